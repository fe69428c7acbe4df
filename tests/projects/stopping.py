"""Steps that take their time, each with another way to be stopped, and agents that wait for them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery.exceptions import Ignore, Reject

from agentq import AgentQ, Retry, Run
from tests.kit.notes import note

app = AgentQ("stopping")


@app.step
def has_imported(module: str) -> bool:
    return module in sys.modules


@app.step
def sits(path: str, seconds: float) -> str:
    """Leave a word however it is left."""
    note(path, f"started {os.getpid()}")
    try:
        time.sleep(seconds)
    finally:
        note(path, "left")
    return "sat"


@app.step
async def sits_async(path: str, seconds: float) -> str:
    note(path, f"started {os.getpid()}")
    try:
        await asyncio.sleep(seconds)
    finally:
        note(path, "left")
    return "sat"


@app.step
def deaf(path: str, seconds: float) -> str:
    """Go on whatever it is told."""
    note(path, f"started {os.getpid()}")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(seconds)
        except BaseException:
            note(path, "heard")
    return "sat"


def retract(path: str, seconds: float) -> None:
    note(path, "retracted")


@app.step(undo=retract)
def undoable(path: str, seconds: float) -> str:
    note(path, f"started {os.getpid()}")
    time.sleep(seconds)
    note(path, "effect")
    return "sat"


def fall_back(path: str, seconds: float) -> None:
    note(path, "fallback")


@app.step(retry=Retry(attempts=3, wait=timedelta(milliseconds=20)), fallback=fall_back)
async def stubborn(path: str, seconds: float) -> None:
    """Has a retry and a fallback, neither of which is for a step that nobody wants."""
    note(path, f"started {os.getpid()}")
    await asyncio.sleep(seconds)


STEPS: dict[str, Any] = {
    "sits": sits,
    "sits_async": sits_async,
    "deaf": deaf,
    "undoable": undoable,
    "stubborn": stubborn,
}


@app.agent(version="1")
async def waits(run: Run, step: str, path: str, seconds: float) -> str:
    """One step, for as long as it takes."""
    return str(await run.call(STEPS[step], path, seconds))


@app.agent(version="1")
async def waits_for_all(run: Run, step: str, path: str, seconds: float, size: int) -> int:
    """A fan-out, of which some run and some wait."""
    return len(await run.starmap(STEPS[step], [(path, seconds)] * size))


@app.agent(version="1")
async def impatient(run: Run, path: str, seconds: float, patience: float) -> str:
    """Gives one call up after a while and goes on."""
    try:
        async with asyncio.timeout(patience):
            return await run.call(sits, path, seconds)
    except TimeoutError:
        return "gave up"


class Unspeakable(Exception):
    """An error without words."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


RAISED: dict[str, Any] = {
    "memory": MemoryError,
    "cancelled": asyncio.CancelledError,
    "generator": GeneratorExit,
    "unspeakable": Unspeakable,
    "wordy": lambda: ValueError("x" * 1_000_000),
    "recursion": RecursionError,
}


@app.step
def raises(kind: str) -> None:
    raise RAISED[kind]()


@app.step
async def raises_async(kind: str) -> None:
    raise RAISED[kind]()


@app.step
def steps_aside(path: str, how: str) -> str | None:
    """Leave by one of Celery's own ways; one that asks to be queued again goes through the second time."""
    note(path, "attempt")
    if how == "ignore":
        raise Ignore("nobody needs it")
    if how == "reject":
        raise Reject("it is not for us", requeue=False)
    if len(Path(path).read_text().splitlines()) == 1:
        raise Reject("not now", requeue=True)
    return "done"


@app.step
def returns_an_object() -> Any:
    return object()


@app.step
def returns(size: int) -> str:
    return "x" * size


@app.step(timeout=timedelta(seconds=2))
def on_time(path: str, seconds: float) -> str:
    """Ends before its limit; whether its outcome can be written by then is another question."""
    note(path, "started")
    time.sleep(seconds)
    return "on time"


@app.step(timeout=timedelta(seconds=0.5))
async def too_long(path: str, seconds: float) -> str:
    note(path, "started")
    await asyncio.sleep(seconds)
    return "never"


@app.step(ignore_result=True)
def ignored(path: str, fails: bool) -> str:
    note(path, "started")
    if fails:
        raise ValueError("nobody asked")
    return "nobody asked"


@app.agent(version="1")
async def calls(run: Run, name: str, args: list[Any]) -> Any:
    """Call a step by its name; a failure is told by the name of its error."""
    try:
        return await run.call(app.celery.tasks[f"tests.projects.stopping.{name}"], *args)
    except Exception as error:
        return [type(error).__name__, getattr(error, "error_type", ""), str(error)[:200]]


@app.step
def measures(text: str) -> int:
    return len(text)


@app.step
def echoes(text: str) -> str:
    return text


@app.step(retry=Retry(attempts=3, wait=timedelta(milliseconds=20)))
def measures_at_last(path: str, text: str) -> int:
    """Fails once; its arguments must come along."""
    note(path, "attempt")
    if len(Path(path).read_text().splitlines()) < 2:
        raise ConnectionError("once more")
    return len(text)


@app.step(bind=True)
def measures_elsewhere(self: Any, text: str) -> int:
    """Hands its large argument on to another step that stands in for it."""
    raise self.replace(measures.s(text + text))


def made(size: int) -> str:
    return "y" * size


@app.agent(version="1")
async def carries(run: Run, text: str, size: int, rounds: int) -> list[int]:
    """Large values at every place: arguments, results, local results, a fan-out, continue_as_new."""
    locally = await run.local(made, size)
    echoed = await run.call(echoes, text)
    mapped = await run.map(measures, [text, locally, "z"])
    go_on = await run.wait_for("go", bool)
    if rounds > 0 and go_on:
        run.continue_as_new(text, size, rounds - 1)
    return [len(locally), len(echoed), *mapped]


@app.step
def measures_body(parts: list[str], text: str) -> int:
    return len("".join(parts)) + len(text)


@app.agent(version="1")
async def ponders(run: Run, path: str, seconds: float) -> str:
    """Compute without an await."""
    await run.call(undoable, path, 0.0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "pondered"


@app.agent(version="1")
async def idles(run: Run, number: int) -> str:
    """Wait for a signal that nobody sends."""
    return await run.wait_for(f"never {number}", str)


@app.agent(version="1")
async def waits_for_agents(run: Run, size: int) -> int:
    """A fan-out over sub-agents, and one that is called."""
    async with asyncio.TaskGroup() as group:
        group.create_task(run.map(idles, list(range(size))))
        group.create_task(run.call(idles, size))
    return size
