"""Agents whose branches race, give up, take back and go on: what only real workers can show."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta

from agentq import AgentQ, Run, this_step

app = AgentQ("branches")


def note(path: str, line: str) -> None:
    """Append a line at once."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, (line + "\n").encode())
    finally:
        os.close(handle)


@app.step
def double(number: int) -> int:
    return 2 * number


@app.step
def slow(path: str, seconds: float) -> str:
    note(path, "slow began")
    time.sleep(seconds)
    note(path, "slow ended")
    return "slow"


@app.step
def withdraw(path: str, what: str) -> None:
    note(path, f"-{what}")


@app.step(undo=withdraw)
def publish(path: str, what: str) -> str:
    note(path, f"+{what}")
    return what


@app.step
def broken(message: str) -> None:
    raise ValueError(message)


@app.step
def large(size: int) -> str:
    return "x" * size


@app.agent(version="1")
async def doubler(run: Run, number: int) -> int:
    return await run.call(double, number)


@app.agent(version="1")
async def gives_up(run: Run, path: str) -> str:
    """A slow step against a time-out; the agent does not wait for the step."""
    try:
        async with asyncio.timeout(0.3):
            return await run.call(slow, path, 2.0)
    except TimeoutError:
        return f"gave up, {await run.call(double, 4)}"


@app.agent(version="1")
async def races(run: Run, count: int) -> list[int]:
    tasks = {asyncio.create_task(run.call(double, number)) for number in range(count)}
    found: list[int] = []
    while tasks:
        done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        found += [task.result() for task in done]
        found += await asyncio.gather(*(run.call(double, 100) for _ in done))
    return sorted(found)


@app.agent(version="1")
async def regrets(run: Run, path: str) -> None:
    await run.call(publish, path, "one")
    await run.map(double, [1, 2, 3])
    await run.starmap(publish, [(path, "two"), (path, "three")])
    await run.call(broken, "no")


@app.agent(version="1")
async def publishes_and_waits(run: Run, path: str) -> None:
    await run.call(publish, path, "one")
    await run.wait_for("never")


@app.agent(version="1")
async def family(run: Run, count: int) -> list[int]:
    """Sub-agents: called, mapped and spawned."""
    spawned = await run.spawn(doubler, 1000)
    mapped = await run.map(doubler, range(count))
    return [*mapped, await run.call(doubler, 500), await spawned.result()]


@app.agent(version="1")
async def locals_at_once(run: Run, count: int) -> list[str]:
    async def awaited(number: int) -> str:
        await asyncio.sleep(0.05)
        return f"{number} {this_step.step_id is not None}"

    return list(await asyncio.gather(*(run.local(awaited, number) for number in range(count))))


@app.agent(version="1")
async def carries_much(run: Run, size: int) -> int:
    """Results that are too large for the log, one alone and in a map; parked in between."""
    alone = await run.call(large, size)
    mapped = await run.map(large, [size, size + 1])
    await run.sleep(timedelta(seconds=1.2))
    return len(alone) + sum(map(len, mapped))


@app.agent(version="1")
async def asks_in_parallel(run: Run) -> list[str | None]:
    one = run.ask("First?", str, timeout=timedelta(seconds=60), default=None)
    two = run.ask("Second?", str, timeout=timedelta(seconds=0.3), default=None)
    return list(await asyncio.gather(one, two))
