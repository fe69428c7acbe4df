"""Steps that use a model and a client of an event loop, which say in a file when they come and go."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator

from agentq import AgentQ
from tests.kit.notes import note

app = AgentQ("resourceful")

NOTES = os.environ.get("RESOURCES_NOTES", os.devnull)


@app.resource
def model() -> Iterator[int]:
    note(NOTES, f"opened model {os.getpid()}")
    yield os.getpid()
    note(NOTES, f"closed model {os.getpid()}")


@app.resource
async def client() -> AsyncIterator[tuple[int, asyncio.AbstractEventLoop]]:
    note(NOTES, f"opened client {os.getpid()}")
    yield os.getpid(), asyncio.get_running_loop()
    await asyncio.sleep(0.01)
    note(NOTES, f"closed client {os.getpid()}")


@app.step(resources=[model])
async def use(number: int) -> list[int]:
    """Use both; one is named, the other is opened by its use."""
    pid, loop = await client()
    assert loop is asyncio.get_running_loop()
    await asyncio.sleep(0.01)
    return [model(), pid, os.getpid()]


@app.step(resources=[model], queue="warm")
def busy(seconds: float) -> int:
    time.sleep(seconds)
    return model()
