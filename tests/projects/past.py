"""The project of the tests about what has been: history, forks and archive."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from agentq import AgentQ, Budget, Run, this_step

app = AgentQ("past")


def wait_for(gate: Path) -> None:
    while not gate.exists():
        time.sleep(0.005)


@app.step
def speak(folder: str, words: int) -> int:
    """Emit the time of each word; word n waits for the file n of the folder."""
    for word in range(words):
        wait_for(Path(folder) / str(word))
        this_step.emit("word", number=word, said=time.time())
    return words


@app.step
def double(number: int) -> int:
    return 2 * number


@app.agent
async def doubled(run: Run, limit: int) -> list[int]:
    run.emit("began", limit=limit)
    if limit < 0:
        raise ValueError("the limit is below zero")
    return list(await run.map(double, list(range(limit))))


@app.agent
async def speech(run: Run, folder: str, words: int) -> int:
    return await run.call(speak, folder, words)


def count(path: str, line: str) -> None:
    """What the steps have done, one line each."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


@app.step
def work(path: str, name: str) -> str:
    """Fail while the file ``broken-{name}`` stands beside the path."""
    count(path, name)
    if Path(path).with_name(f"broken-{name}").exists():
        raise ValueError(f"{name} is broken")
    return name.upper()


def take_back(path: str, name: str) -> None:
    count(path, f"undo {name}")


@app.step(undo=take_back)
def promise(path: str, name: str) -> str:
    count(path, name)
    return name.upper()


@app.agent(version="1", budget=Budget(steps=40))
async def story(run: Run, path: str) -> list[str]:
    """A step, a signal, two steps at once, a fan-out, a random number, a time-out and a local call."""
    first = await run.call(work, path, "a")
    heard = await run.wait_for("go", str)
    async with asyncio.timeout(3600):
        b, c = await asyncio.gather(run.call(work, path, "b"), run.call(work, path, "c"))
    mapped = await run.starmap(work, [(path, f"m{n}") for n in range(5)])
    chance = await run.call(work, path, f"r{run.random.randrange(10**9)}")
    local = await run.local(count_here, path)
    last = await run.call(work, path, "z")
    return [first, heard, b, c, *mapped, str(bool(chance)), local, last]


def count_here(path: str) -> str:
    count(path, "local")
    return "L"


@app.agent
async def promises(run: Run, path: str) -> list[str]:
    """What is done first is undone when the last step fails."""
    first = await run.call(work, path, "a")
    kept = await run.call(promise, path, "p")
    return [first, kept, await run.call(work, path, "z")]


LARGE = 100_000
"""Characters that stand in no journal."""


@app.agent
async def large(run: Run, path: str, text: str) -> list[int]:
    """Large arguments, a large local result and a large result of a step."""
    local = await run.local(text.upper)
    lengths = [len(text), len(local), len(await run.call(repeat, path, LARGE))]
    await run.call(work, path, "z")
    return lengths


@app.step
def repeat(path: str, length: int) -> str:
    count(path, "repeat")
    return "x" * length


@app.agent
async def own_fault(run: Run, path: str) -> str:
    """The agent itself fails while the file ``broken-agent`` stands beside the path."""
    first = await run.call(work, path, "a")
    if Path(path).with_name("broken-agent").exists():
        raise RuntimeError("the agent is broken")
    return first


@app.agent(budget=Budget(steps=1))
async def spender(run: Run, path: str) -> str:
    """Two steps under a budget of one."""
    await run.call(work, path, "a")
    return await run.call(work, path, "b")


@app.agent
async def wide(run: Run, path: str) -> int:
    """A fan-out that internal steps send."""
    return len(await run.starmap(work, [(path, f"m{n}") for n in range(520)]))


@app.agent
async def enough(run: Run, path: str) -> list[str]:
    """The first two of three that succeed."""
    return list(await run.starmap(work, [(path, f"m{n}") for n in range(3)], need=2))
