"""Steps that take their time, each with another way to be stopped, and agents that wait for them."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from typing import Any

from agentq import AgentQ, Retry, Run
from tests.projects.library import note

app = AgentQ("leaving")


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
