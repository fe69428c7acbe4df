"""Steps that are not done twice (their answers are kept), and steps that are, side by side (hedges)."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentq import AgentQ, Limit, Retry, Run, this_step
from agentq.engine.messages import HEDGED
from agentq.engine.this_step import current_attempt
from tests.kit.notes import note

app = AgentQ("twice")

HOUR = timedelta(hours=1)
SOON = timedelta(milliseconds=100)


def is_there(path: str) -> bool:
    return Path(path).exists()


def is_second() -> bool:
    """Whether the attempt is one of a hedge: on a busy machine it may begin before the first one's function does."""
    attempt = current_attempt.get()
    return attempt is not None and HEDGED in attempt.ours


# -- kept answers


@app.step(cache=HOUR)
def squares(number: int, path: str) -> int:
    """Note that it was called, and take a moment, so that others come meanwhile."""
    note(path, f"{os.getpid()}")
    this_step.spend(tokens_in=number, usd=0.25)
    time.sleep(0.2)
    return number * number


@app.step(cache=HOUR)
def opens(path: str, gate: str) -> str:
    """Return when the gate's file is there; who calls it meanwhile waits."""
    note(path, f"{os.getpid()}")
    while not is_there(gate):
        time.sleep(0.02)
    return "open"


@app.step(cache=HOUR)
def fails_thrice(path: str) -> int:
    """Succeed at the fourth call."""
    note(path, "called")
    calls = len(Path(path).read_text().splitlines())
    if calls < 4:
        raise ConnectionError(f"call {calls}")
    return calls


@app.step(cache=HOUR, retry=Retry(attempts=2, wait=timedelta(milliseconds=1)))
def fails_once(path: str) -> int:
    note(path, "called")
    calls = len(Path(path).read_text().splitlines())
    if calls < 2:
        raise ConnectionError(f"call {calls}")
    return calls


@app.step(cache=HOUR, fallback=lambda path: "from memory")
def away(path: str) -> str:
    note(path, "called")
    raise ConnectionError("away")


@app.step(cache=HOUR, cache_version="2")
def listed(names: set[str], path: str, *, deep: bool = False) -> list[str]:
    note(path, "called")
    return sorted(names)


@app.step(cache=HOUR)
def large(size: int, path: str) -> str:
    note(path, "called")
    return "x" * size


@app.step(cache=HOUR, limit=Limit("kept", slots=1))
def guarded(number: int, path: str) -> int:
    note(path, "called")
    return number


@app.step(limit=Limit("one at a time", slots=1), retry=Retry(attempts=2, wait=timedelta(milliseconds=1)))
def fails_behind_others(path: str, name: str) -> None:
    note(path, name)
    time.sleep(0.05)
    raise ConnectionError(name)


@app.agent
async def asks_twice(run: Run, path: str) -> list[int]:
    first = await run.call(squares, 3, path)
    return [first, await run.call(squares, 3, path)]


@app.agent
async def asks_many(run: Run, path: str, size: int) -> list[int]:
    return list(await run.starmap(squares, [(4, path)] * size))


# -- hedges


async def until(path: str) -> None:
    """Return when the file is there; files are what the tests and all processes see."""
    while not is_there(path):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def until_ended(path: str) -> None:
    """Return when the step that the file's last line names has ended."""
    attempt = current_attempt.get()
    assert attempt is not None
    while not (is_there(path) and "failed" in Path(path).read_text()):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.02)
    name = Path(path).read_text().split()[-1]  # noqa: ASYNC240
    while attempt.store.record(attempt.holder.root, name)["s"] != "d":  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def sits(folder: str) -> None:
    """Say that it was stopped; the folder's file ends it if nobody stops it."""
    try:
        await until(f"{folder}/end")
    except asyncio.CancelledError:
        note(f"{folder}/notes", f"stopped {os.getpid()}")
        raise


@app.step(hedge_after=SOON)
async def second_wins(folder: str, tokens: int = 0) -> str:
    """The first takes its time."""
    this_step.spend(tokens_in=tokens)
    note(f"{folder}/notes", f"came {this_step.step_id} {os.getpid()}")
    if not is_second():
        await sits(folder)
        return "first"
    return "second"


@app.step(hedge_after=SOON)
async def first_wins(folder: str) -> str:
    """The first waits for the second to come, which then takes its time."""
    if not is_second():
        await until(f"{folder}/notes")
        return "first"
    note(f"{folder}/notes", f"came {this_step.step_id}")
    await sits(folder)
    return "second"


@app.step(hedge_after=SOON)
def hangs(folder: str) -> str:
    """The first hangs, in a function that only a signal ends."""
    if not is_second():
        note(f"{folder}/notes", f"hangs {os.getpid()}")
        while not is_there(f"{folder}/end"):
            time.sleep(0.02)
        return "first"
    return "second"


@app.step(hedge_after=SOON)
async def both_sit(folder: str) -> str:
    note(f"{folder}/notes", f"came {os.getpid()}")
    await sits(folder)
    return "end"


@app.step(hedge_after=SOON)
async def first_fails(folder: str) -> str:
    """The first fails when the second has come, which succeeds when the first has failed."""
    if not is_second():
        await until(f"{folder}/notes")
        raise ConnectionError("the first")
    note(f"{folder}/notes", "came")
    await until(f"{folder}/go")
    return "second"


@app.step(hedge_after=SOON)
async def both_fail(folder: str) -> str:
    """The first fails when the second has."""
    if is_second():
        note(f"{folder}/notes", f"failed {this_step.step_id}")
        raise LookupError("the second")
    await until_ended(f"{folder}/notes")
    raise ConnectionError("the first")


@app.step(hedge_after="p95")
def measured(number: int, folder: str) -> int:
    """Only the first call of the last number is slow."""
    if number == 100 and not is_second():
        while not is_there(f"{folder}/end"):
            time.sleep(0.02)
    return number


@app.step
async def unhedged(folder: str) -> str:
    if not is_second():
        await sits(folder)
        return "first"
    return "second"


@app.step
def shouts(text: str, path: str) -> str:
    note(path, text)
    return text.upper()


@app.step
def counts(texts: list[str], path: str) -> int:
    note(path, "counted")
    return len(texts)


@app.agent
async def calls(run: Run, name: str, *args: Any) -> Any:
    """Call a step, and wait for a signal: what comes then is a replay."""
    found = await run.call(app.tasks[name], *args)
    await run.wait_for("go")
    return found


@app.agent
async def calls_once(run: Run, name: str, *args: Any) -> Any:
    return await run.call(app.tasks[name], *args)


@app.agent
async def calls_using(run: Run, folder: str) -> str:
    return await run.call(unhedged.using(hedge_after=SOON), folder)


@app.agent
async def calls_all(run: Run, folders: list[str]) -> list[str]:
    return list(await run.map(second_wins, folders))


@app.step
def breaks(path: str) -> str:
    """Fail until the file is there."""
    if not is_there(path):
        raise ConnectionError("not yet")
    return "whole"


@app.agent
async def hedges_then_breaks(run: Run, folder: str) -> list[str]:
    return [await run.call(second_wins, folder), await run.call(breaks, f"{folder}/mended")]
