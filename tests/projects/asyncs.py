"""Async steps that meet, fetch, remember, and leave things behind, on the one event loop of their process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx

from agentq import AgentQ, Retry, this_step
from agentq.engine.task import Step
from tests.kit.notes import note

app = AgentQ("asyncs")

memory: ContextVar[str] = ContextVar("memory", default="empty")
around: ContextVar[str] = ContextVar("around", default="nothing")


@dataclass
class Gate:
    """Opens when so many stand before it."""

    there: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)


@app.resource
async def gate() -> Gate:
    return Gate()


@app.resource
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Bound to the loop on which it was first used."""
    async with httpx.AsyncClient(trust_env=False) as made:
        yield made


@app.step(timeout=timedelta(seconds=60))
async def meets(size: int) -> int:
    """Wait for all others; only where all of them wait in one process does anybody go on."""
    here = await gate()
    here.there += 1
    if here.there == size:
        here.opened.set()
    await here.opened.wait()
    return os.getpid()


@app.step
async def fetches(url: str) -> tuple[int, str]:
    answer = await (await client()).get(url)
    return os.getpid(), answer.text


@app.step
async def remembers(value: str) -> list[Any]:
    """What it finds, what a task of its own finds, and which step both think they are."""
    found = memory.get()
    memory.set(value)

    async def inner() -> list[Any]:
        await asyncio.sleep(0.01)
        return [memory.get(), this_step.step_id]

    return [found, *await asyncio.create_task(inner()), this_step.step_id]


@app.step
async def abandons(path: str) -> str:
    """Leave an async generator in the middle, and a task that fails."""

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.sleep(0)
            note(path, "closed")

    async def fails() -> None:
        raise LookupError("nobody waits for this")

    task = asyncio.create_task(fails(), name="forgotten")
    await asyncio.sleep(0)
    async for _ in numbers():
        break
    return task.get_name()


@app.step
async def waits(path: str, seconds: float) -> str:
    note(path, "begun")
    await asyncio.sleep(seconds)
    note(path, "ended")
    return "waited"


@app.step(concurrency=1)
async def alone(path: str) -> None:
    """Nobody else is in here meanwhile."""
    note(path, "in")
    await asyncio.sleep(0.05)
    note(path, "out")


@app.step(retry=Retry(attempts=3, wait=timedelta(milliseconds=1)))
async def at_the_second_try(path: str) -> str:
    note(path, f"try {this_step.attempt}")
    await asyncio.sleep(0)
    if this_step.attempt == 1:
        raise ConnectionError("not yet")
    return "done"


@app.step(timeout=timedelta(milliseconds=200))
async def too_long(path: str) -> None:
    note(path, "begun")
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.01)
        note(path, "cleaned up")


class Around(Step[..., Any]):
    """What a project puts around all of its steps."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        around.set("set by __call__")
        return super().__call__(*args, **kwargs)


@app.step(base=Around)
async def is_called_by_its_class() -> str:
    return around.get()


@app.step
def plain(seconds: float) -> float:
    return seconds


@app.step
def by_a_loop_of_its_own(number: int) -> int:
    """A plain step may run loops as it likes."""

    async def double() -> int:
        await asyncio.sleep(0)
        return 2 * number

    return asyncio.run(double())
