"""The project of the tests about going on: short steps, some of which are not."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

from celery.exceptions import SoftTimeLimitExceeded

from agentq import AgentQ, Run, this_step
from tests.kit.notes import note

app = AgentQ("short")


@app.step(name="double")
def double(number: int) -> int:
    return 2 * number


@app.step(name="says")
def says(number: int) -> int:
    """Call the server while the answer to the commit before may not be read yet."""
    this_step.emit("said", number=number)
    return 2 * number


@app.step(name="fragile")
def fragile(number: int, marks: str) -> int:
    """Kill its process at the first attempt, where a file is named."""
    if marks and not Path(marks).exists():
        Path(marks).touch()
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    return number


@app.step(name="nap")
def nap(gate: str = "") -> str:
    """Go on until a file is there, where one is named."""
    while gate and not Path(gate).exists():
        time.sleep(0.02)
    return gate


def gave_up(_marks: str = "") -> str:
    return "gave up"


@app.step(name="dawdle", timeout=timedelta(seconds=0.5), fallback=gave_up)
def dawdle(marks: str = "") -> str:
    """Go on until it is interrupted, where a file is named; note there where it ran and for how many seconds."""
    began = time.monotonic()
    try:
        while marks:
            time.sleep(0.02)
    except SoftTimeLimitExceeded:
        with Path(marks).open("a") as notes:
            notes.write(f"{os.getpid()} {time.monotonic() - began}\n")
        raise
    return "in time"


@app.step(name="fails")
def fails(number: int) -> int:
    if number % 7 == 3:
        raise ValueError(f"{number} is unlucky")
    return number


@app.step(name="meets")
def meets(folder: str, number: int, size: int) -> int:
    """Leave a file and wait until so many are there."""
    (Path(folder) / f"here-{number}").touch()
    while (found := len(list(Path(folder).glob("here-*")))) < size:
        time.sleep(0.02)
    return found


@app.step(name="left_out")
def left_out() -> int:
    """Return how many objects the process's search for garbage leaves out."""
    return gc.get_freeze_count()


@app.step(name="place")
def place() -> int:
    """Where it ran."""
    return os.getpid()


@app.agent(name="places", version="1")
async def places(run: Run, size: int) -> tuple[int, list[int]]:
    """Steps one after the other; where the agent was at the end, and where each of them ran."""
    found = [await run.call(place) for _ in range(size)]
    return os.getpid(), found


@app.agent(name="fragile_run", version="1")
async def fragile_run(run: Run, size: int, marks: str) -> int:
    """Steps that are known to be short, of which the last one kills."""
    for number in range(size):
        await run.call(fragile, number, "")
    return await run.call(fragile, size, marks)


@app.agent(name="patient", version="1")
async def patient(run: Run, size: int, gate: str, patience: float) -> str:
    """Steps that are known to be short, of which the last one is not."""
    for _ in range(size):
        await run.call(nap)
    try:
        async with asyncio.timeout(patience):
            await run.call(nap, gate)
    except TimeoutError:
        return "gave up"
    return "slept"


@app.agent(name="mixed", version="1")
async def mixed(run: Run, size: int) -> list[int]:
    """Calls of one step, with other options now and then, by turns with another one."""
    found = []
    for number in range(size):
        step = double.using(tenant="acme") if number % 5 == 4 else double
        found.append(await run.call(step, number))
        found.append(await run.call(fails, 7 * number))
    return found


@app.agent(name="brief", version="1")
async def brief(run: Run, number: int, marks: str = "") -> int:
    """Two calls in place, of which the second one kills where a file is named; such a turn follows another one."""
    return await run.local(fragile.function, await run.local(double.function, number), marks)


@app.agent(name="brief_then_step", version="1")
async def brief_then_step(run: Run, number: int) -> int:
    """A call in place, then a step."""
    return await run.call(double, await run.local(double.function, number))


def home_of(note: Path) -> int:
    """Return the process that was the first to ask."""
    if not note.exists():
        note.write_text(str(os.getpid()))
    return int(note.read_text())


@app.agent(name="hurried", version="1")
async def hurried(run: Run, size: int, marks: str) -> tuple[int, str, int]:
    """Steps that are known to be short, one that is ended at its soft limit, and another.

    Returns where the agent was before that one, what it came to, and what the last one did.
    """
    for _ in range(size):
        await run.call(dawdle)
    home = home_of(Path(f"{marks}.home"))
    return home, await run.call(dawdle, marks), await run.call(double, size)


def stays(gate: str = "", notes: str = "") -> str:
    """Tell whether the main thread runs it; where a file is named, stay until that is there, or until interrupted."""
    place = "main" if threading.current_thread() is threading.main_thread() else "other"
    if not gate:
        return place
    note(notes, "started", os.getpid(), place)
    while not Path(gate).exists():
        try:
            time.sleep(0.02)
        except BaseException:
            note(notes, "swallowed")
            return "swallowed"
    return "through"


@app.agent(name="in_place", version="1")
async def in_place(run: Run, size: int, gate: str, notes: str, patience: float) -> tuple[list[str], str]:
    """Calls that are known to be short, of which the last one is not: where the former ran, what the last came to."""
    places = [await run.local(stays) for _ in range(size)]
    if not gate:
        return places, ""
    try:
        async with asyncio.timeout(patience):
            return places, await run.local(stays, gate, notes)
    except TimeoutError:
        return places, "gave up"
