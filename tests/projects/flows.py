"""The engine tests' own project: steps with visible effects and agents of every shape."""

from __future__ import annotations

import asyncio
import ctypes
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentq import AgentQ, Breaker, Budget, Limit, Rate, Retry, Run, this_step
from agentq.engine.messages import HEDGED
from agentq.engine.this_step import current_attempt
from tests.kit.notes import note

app = AgentQ("flows")


@app.step
def add(a: int, b: int) -> int:
    return a + b


@app.step
def double(number: int) -> int:
    return 2 * number


@app.step
async def double_async(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


@app.step
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.step
def says(number: int) -> int:
    this_step.emit("said", number=number)
    return number


@app.step(bind=True)
def halfway(self: Any, number: int) -> int:
    """Says how far it is, as Celery's tasks do."""
    self.update_state(state="HALF", meta={"done": 0.5})
    return number


@app.step(
    breaker=Breaker("all"),
    rate=Rate("all", requests="100k/min", tokens="100m/min", in_flight=50),
    limit=Limit("all", slots=50),
    concurrency=50,
    estimate=lambda number: number,
    retry=Retry(attempts=3),
    fallback=lambda number: -1,
    check=lambda number: number >= 0,
)
def wrapped(number: int) -> int:
    """Have all guards at once."""
    this_step.spend(tokens_in=number)
    return number


@app.step(cache=timedelta(hours=1))
def kept(number: int) -> int:
    """Have its answer kept."""
    return number


@app.agent(budget=Budget(usd=100, tokens=10_000_000, attempts=100_000))
async def wrap(run: Run, size: int) -> int:
    return sum(await run.map(wrapped, list(range(size))))


@app.step(concurrency=1)
def narrow(path: str, line: str) -> str:
    """One at a time, in all workers."""
    note(path, f"+{line}")
    time.sleep(0.01)
    note(path, f"-{line}")
    return line


@app.step
def nothing() -> None:
    return None


@app.step
def numbers_below(limit: int) -> list[int]:
    return list(range(limit))


@app.step
def broken(message: str) -> int:
    raise ValueError(message)


@app.step
def noted(path: str, line: str) -> str:
    note(path, line)
    return line


@app.celery.task(shared=False)
def plain_note(value: object, path: str) -> None:
    """A plain Celery task."""
    note(path, f"plain {value}")


@app.celery.task(shared=False)
def plain_gate(gate: str, started: str) -> None:
    """A plain Celery task that ends when the gate's file exists."""
    note(started, "plain gate")
    while not Path(gate).exists():
        time.sleep(0.01)


@app.step
def on_error(path: str, line: str) -> None:
    note(path, line)


@app.step(retry=Retry(attempts=4, wait=timedelta(milliseconds=20)))
def flaky(path: str, failures: int) -> int:
    """Fails as often as told; returns the number of the attempt that succeeded."""
    note(path, "attempt")
    attempts = len(Path(path).read_text().splitlines())
    if attempts <= failures:
        raise ConnectionError(f"attempt {attempts}")
    return attempts


@app.step
def gated(gate: str, started: str, number: int) -> int:
    """Say that it has started and end when the gate's file exists."""
    note(started, str(number))
    while not Path(gate).exists():
        time.sleep(0.01)
    return 10 * number


@app.step
def slow(number: int, started: str, seconds: float) -> int:
    note(started, str(number))
    time.sleep(seconds)
    return number + 1


@app.step
def holds_the_lock(started: str, seconds: float) -> int:
    """Keep every other thread of the process from running, as a long call into a C library may."""
    note(started, "lock")
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
    return 1


@app.step
def stubborn(started: str, seconds: float) -> int:
    """Go on after the soft limit."""
    note(started, "stubborn")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(Exception):
            time.sleep(0.05)
    return 1


@app.agent(version="1")
async def chain_of(run: Run, started: str, length: int, seconds: float) -> int:
    """One step after another."""
    value = 0
    for _ in range(length):
        value = await run.call(slow, value, started, seconds)
    return value


@app.agent(version="1")
async def fan(run: Run, limit: int) -> int:
    """Fan-out over a list that a step made, then a join."""
    numbers = await run.call(numbers_below, limit)
    doubled = await run.map(double, numbers)
    return await run.call(total, list(doubled))


@app.agent(version="1")
async def slow_fan(run: Run, started: str, size: int, seconds: float) -> list[int]:
    members = [(number, started, seconds) for number in range(size)]
    return list(await run.starmap(slow, members))


@app.agent(version="1")
async def local_loop(run: Run, started: str, length: int, seconds: float) -> int:
    """Many journaled calls in place."""

    def visit(number: int) -> int:
        note(started, str(number))
        time.sleep(seconds)
        return number + 1

    value = 0
    for _ in range(length):
        value = await run.local(visit, value)
    return value


@app.agent(version="1")
async def collect(run: Run, count: int) -> list[int]:
    """Signals in their order of arrival."""
    return [await run.wait_for("number", int) for _ in range(count)]


@app.agent(version="1")
async def waiting(run: Run) -> str:
    """Parked until told."""
    return await run.wait_for("go", str)


@app.agent(version="1")
async def tally(run: Run, total_so_far: int, seen: int, until: int, chunk: int) -> int:
    """Without end in principle: starts anew every ``chunk`` signals, so that its journal stays small."""
    for _ in range(min(chunk, until - seen)):
        total_so_far += await run.wait_for("number", int)
        seen += 1
    if seen < until:
        run.continue_as_new(total_so_far, seen, until, chunk)
    return total_so_far


@app.agent(version="1")
async def approve(run: Run, limit_seconds: float) -> bool:
    return await run.ask("Publish?", bool, timeout=timedelta(seconds=limit_seconds), default=False)


@app.agent(version="1")
async def parent(run: Run, limit: int) -> list[int]:
    """Child runs at once."""
    async with asyncio.TaskGroup() as group:
        children = [group.create_task(run.call(fan, number)) for number in range(limit)]
    return [child.result() for child in children]


def retract(path: str, line: str) -> None:
    """Undo ``promise``, slowly enough to be killed meanwhile."""
    time.sleep(0.2)
    note(path, f"retracted {line}")


@app.step(undo=retract)
def promise(path: str, line: str) -> str:
    note(path, f"promised {line}")
    return line


@app.agent(version="1")
async def breaks_promises(run: Run, path: str, count: int) -> None:
    """Does what must be undone, and fails."""
    for number in range(count):
        await run.call(promise, path, str(number))
    await run.call(broken, "after all promises")


@app.agent(version="1")
async def mixed(run: Run, path: str, size: int) -> dict[str, list[int]]:
    """Everything at once: branches, a fan-out, local calls, children, signals, sleeps, random numbers."""

    def local_double(number: int) -> int:
        note(path, f"local {number}")
        return 2 * number

    async def branch(number: int) -> int:
        await run.sleep(timedelta(milliseconds=run.random.randrange(1, 50)))
        return await run.call(double, await run.local(local_double, number))

    async with asyncio.TaskGroup() as group:
        branches = [group.create_task(branch(number)) for number in range(size)]
        child = group.create_task(run.call(fan, size))
        heard = group.create_task(run.wait_for("number", int))
        mapped = group.create_task(run.map(add_one, list(range(size))))
    return {
        "branches": [task.result() for task in branches],
        "mapped": list(mapped.result()),
        "rest": [child.result(), heard.result()],
    }


@app.step
def add_one(number: int) -> int:
    time.sleep(0.01)
    return number + 1


@app.agent(version="1")
async def failing(run: Run, message: str) -> int:
    return await run.call(broken, message)


@app.agent(version="1")
async def nap(run: Run, seconds: float) -> float:
    before = run.now()
    await run.sleep(timedelta(seconds=seconds))
    return (run.now() - before).total_seconds()


@app.step(hedge_after=timedelta(milliseconds=100))
async def hedged(path: str) -> str:
    """The first never ends by itself."""
    attempt = current_attempt.get()
    if attempt is not None and HEDGED in attempt.ours:
        return "second"
    note(path, "first")
    await asyncio.sleep(600)
    return "first"
