"""A FastAPI app whose endpoints start, follow and answer runs without blocking its loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from tests.projects.flows import app as queue
from tests.projects.flows import approve, fan

app = FastAPI()


class Started(BaseModel):
    """A run that has been started."""

    run_id: str


@app.post("/runs")
async def start(limit: int, key: str | None = None) -> Started:
    """Start a run and return at once."""
    handle = await fan.using(key=key).astart(limit)
    return Started(run_id=handle.id)


@app.get("/runs/{run_id}/result")
async def result(run_id: str) -> int:
    """Wait for a run's result."""
    value = await queue.runs.get(run_id)
    assert isinstance(value, int)
    return value


@app.get("/runs/{run_id}/events")
async def events(run_id: str) -> StreamingResponse:
    """Follow a run, a line for each event, until it ends."""

    async def lines() -> AsyncIterator[str]:
        async for event in queue.runs.get(run_id).events():
            yield event.kind + "\n"

    return StreamingResponse(lines(), media_type="text/plain")


@app.post("/approvals")
async def ask() -> Started:
    """Start a run that waits for a person."""
    return Started(run_id=(await approve.astart(600.0)).id)
