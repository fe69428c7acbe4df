"""The project of the tests about going on: short steps, some of which are not."""

from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path

from agentq import AgentQ

app = AgentQ("short")


@app.step(name="double")
def double(number: int) -> int:
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


@app.step(name="fails")
def fails(number: int) -> int:
    if number % 7 == 3:
        raise ValueError(f"{number} is unlucky")
    return number


@app.step(name="left_out")
def left_out() -> int:
    """Return how many objects the process's search for garbage leaves out."""
    return gc.get_freeze_count()
