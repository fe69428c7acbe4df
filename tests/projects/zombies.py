"""Agents that get nowhere, and some that only look so; steps that note that they have begun."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentq import AgentQ, Budget, Retry, Run, Zombies, this_step
from tests.kit.notes import note

app = AgentQ("zombies")


@app.step
def look(path: str, what: str = "") -> str:
    """Find nothing, until somebody says enough."""
    note(path, f"look {what}".strip())
    return "enough" if Path(path + ".enough").exists() else "nothing"


@app.step
def stand(path: str, gate: str, number: int = 0, patience: float = 60.0) -> int:
    """Stand until the gate's file is there, or so many seconds."""
    note(path, f"stand {number}")
    end = time.monotonic() + patience
    while not Path(gate).exists() and time.monotonic() < end:
        time.sleep(0.02)
    return number


@app.step
def beat(path: str, gate: str) -> str:
    """Stand like it, and say so."""
    note(path, "beat")
    while not Path(gate).exists():
        this_step.heartbeat()
        time.sleep(0.05)
    return "through"


@app.agent(zombies=Zombies(repeats=5))
async def stuck(run: Run, path: str) -> str:
    """Look again and again."""
    while await run.call(look, path) == "nothing":
        pass
    return "enough"


@app.agent(zombies=Zombies(cycles=3))
async def circling(run: Run, path: str) -> None:
    while True:
        await run.call(look, path, "a")
        await run.call(look, path, "b")


@app.agent(zombies=Zombies(repeats=2, cycles=2))
async def polling(run: Run, path: str) -> int:
    """Poll a dozen times, with a rest in between, and draw equal samples all at once."""
    for _ in range(12):
        await run.call(look, path)
        await run.sleep(0.02)
    drawn = await run.map(look, [path] * 300)
    drawn += await asyncio.gather(*[run.call(look, path, "equal") for _ in range(30)])
    return len(drawn)


@app.agent(zombies=Zombies(repeats=5))
async def locally(run: Run, path: str) -> None:
    """Get nowhere in its own process."""
    while True:
        await run.local(note, path, "local")


@app.agent(zombies=False)
async def waiting(run: Run, path: str, gate: str, patience: float = 60.0) -> int:
    """A sub-agent with a step of its own behind the one that stands."""
    await run.call(stand, path, gate, -1, patience)
    await run.call(look, path, "below")
    return 1


@app.agent(zombies=Zombies(repeats=3))
async def crowded(run: Run, path: str, gate: str, members: int) -> list[int]:
    """Have a crowd and sub-agents under way, and get nowhere beside them."""

    async def loop() -> int:
        while await run.call(look.using(priority="high"), path, "loop") == "nothing":
            pass
        return -2

    crowd = run.starmap(stand.using(priority="low"), [(path, gate, number, 0.4) for number in range(members)])
    below: list[Any] = [run.call(waiting.using(priority=lane), path, gate, 0.5) for lane in ("normal", "low")]
    looked, one, two, stood = await asyncio.gather(loop(), *below, crowd)
    return [looked, one, two, sum(stood)]


@app.agent(zombies=Zombies(quiet=timedelta(seconds=1)))
async def hanging(run: Run, path: str, gate: str) -> int:
    await run.call(stand, path, gate)
    return await run.call(stand, path, gate, 1)


@app.agent(zombies=Zombies(quiet=timedelta(seconds=3)))
async def beating(run: Run, path: str, gate: str) -> str:
    """Say now and then that it goes on; a sub-agent's word counts as well."""
    return await run.call(beating_below, path, gate)


@app.agent(zombies=False)
async def beating_below(run: Run, path: str, gate: str) -> str:
    return await run.call(beat, path, gate)


@app.agent(zombies=Zombies(wall=timedelta(seconds=1)))
async def endless(run: Run) -> str:
    return str(await run.wait_for("go"))


@app.agent(zombies=Zombies(repeats=3))
async def stubborn(run: Run, path: str) -> str:
    """Take every cancel for an answer like any other, for a while."""
    for _ in range(100):
        try:
            await run.call(look, path)
        except asyncio.CancelledError:
            note(path, "swallowed")
            return "left"
    return "never"


@app.agent(zombies=Zombies(tokens=100))
async def wasting(run: Run, path: str) -> None:
    while True:
        await run.call(think, path)


@app.step
def think(path: str) -> str:
    note(path, "think")
    this_step.spend(tokens_out=30)
    return "the same thought"


# -- what is taken back


@app.step
def unbook(path: str, what: str) -> None:
    note(path, f"unbook {what}")


@app.step(retry=Retry(attempts=3, wait=timedelta(milliseconds=10)))
def fail_to_unbook(path: str, what: str) -> None:
    """Fail until the file is there."""
    note(path, f"try {what}")
    if not Path(path + ".well").exists():
        raise ConnectionError("the provider is away")
    note(path, f"unbook {what}")


@app.step(undo=unbook)
def book(path: str, what: str) -> str:
    note(path, f"book {what}")
    return what


@app.step(undo=fail_to_unbook)
def book_badly(path: str, what: str) -> str:
    note(path, f"book {what}")
    return what


def forget(path: str, what: str) -> None:
    note(path, f"forget {what}")
    raise OSError("it cannot be forgotten")


@app.step(undo=forget)
def remember(path: str, what: str) -> str:
    note(path, f"remember {what}")
    return what


async def _book_all(run: Run, path: str) -> None:
    await run.call(book, path, "train")
    await run.call(book_badly, path, "hotel")
    await run.call(remember, path, "friend")
    await run.call(book, path, "museum")


@app.agent
async def travelling(run: Run, path: str, how: str) -> str:
    """Book, then fail, wait, spend too much, or get nowhere."""
    await _book_all(run, path)
    if how == "fails":
        raise ValueError("no holiday")
    await run.wait_for("go")
    return "home"


@app.agent(budget=Budget(steps=5))
async def overspending(run: Run, path: str) -> None:
    await _book_all(run, path)
    while True:
        await run.call(look, path, str(run.random()))


@app.agent(zombies=Zombies(repeats=3))
async def lost(run: Run, path: str) -> None:
    await _book_all(run, path)
    while True:
        await run.call(look, path)


@app.agent(undo=unbook)
async def booking(run: Run, path: str, what: str) -> str:
    """Book below another run, which may take this back as a whole."""
    return await run.call(book, path, what)


@app.agent
async def organising(run: Run, path: str) -> None:
    await run.call(booking, path, "bus")
    await run.call(travelling, path, "fails")
