"""Steps that sit, block a loop, or fail where their worker is ill."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

from agentq import AgentQ, Limit, Retry
from tests.kit.notes import note

app = AgentQ("wellbeing")

WHO = os.environ.get("WELLBEING_WHO", "")
"""Set for each worker."""


@app.step
def who(number: int = 0) -> str:
    return WHO


@app.step
def sits(path: str, seconds: float) -> str:
    """Say who began it, and who ended it."""
    note(path, f"begun {WHO}")
    time.sleep(seconds if WHO == "a" else 0)
    return WHO


@app.step
async def sits_async(path: str, seconds: float) -> str:
    note(path, f"begun {WHO}")
    await asyncio.sleep(seconds if WHO == "t" else 0)
    return WHO


@app.step
async def blocks(path: str) -> str:
    """Hold the event loop of all async steps until a file is there."""
    note(path, f"begun {WHO}")
    while not os.path.exists(f"{path}.go"):  # noqa: ASYNC240  # that is what it is for
        time.sleep(0.02)  # noqa: ASYNC251
    return WHO


@app.step(retry=Retry(attempts=3, wait=timedelta(milliseconds=1)))
def third_time(path: str) -> str:
    """Fail twice, and be tried again in place."""
    note(path, "tried")
    if len(Path(path).read_text().splitlines()) < 3:
        raise OSError("the disk was busy")
    return WHO


@app.step(limit=Limit("narrow", slots=1))
def alone(gate: str) -> str:
    """Run until a file is there; the next one waits in line for its place."""
    while not os.path.exists(gate):
        time.sleep(0.02)
    return WHO


@app.step
def fails_in_a(number: int) -> str:
    if WHO == "a":
        raise OSError("the disk of this machine is broken")
    return WHO
