"""FastAPI endpoints start, await and follow runs on the application's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.sample import TIMEOUT
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess


@pytest.fixture(scope="module")
def served(module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]) -> Any:
    """The application; its worker serves the flows."""
    start_module_worker("tests.projects.flows", url=module_server.celery_url)
    load_module("tests.projects.flows", url=module_server.celery_url)
    return load_module("tests.projects.web", url=module_server.celery_url)


@pytest.fixture
def web(served: Any, module_server: PrivateServer) -> Iterator[Any]:
    """The application, checked for leaked keys."""
    yield served
    check_leaks(module_server.client)


def client(web: Any) -> httpx.AsyncClient:
    """A client that calls the application in this process, on this loop."""
    transport = httpx.ASGITransport(app=web.app)
    return httpx.AsyncClient(transport=transport, base_url="http://web", timeout=TIMEOUT)


def test_endpoints_start_and_await_runs(web: Any) -> None:
    async def visit() -> list[int]:
        async with client(web) as http:
            started = await asyncio.gather(*(http.post("/runs", params={"limit": n}) for n in range(5)))
            ids = [response.json()["run_id"] for response in started]
            assert len(set(ids)) == 5
            results = await asyncio.gather(*(http.get(f"/runs/{run_id}/result") for run_id in ids))
            return [response.json() for response in results]

    assert asyncio.run(visit()) == [n * (n - 1) for n in range(5)]


def test_a_key_starts_one_run_for_many_requests(web: Any) -> None:
    async def visit() -> set[str]:
        async with client(web) as http:
            requests = (http.post("/runs", params={"limit": 3, "key": "one"}) for _ in range(5))
            return {response.json()["run_id"] for response in await asyncio.gather(*requests)}

    (run_id,) = asyncio.run(visit())
    assert web.queue.runs.get(run_id).get(timeout=TIMEOUT) == 6


def test_events_are_streamed_to_the_end(web: Any) -> None:
    async def visit() -> list[str]:
        async with client(web) as http:
            run_id = (await http.post("/runs", params={"limit": 3})).json()["run_id"]
            async with http.stream("GET", f"/runs/{run_id}/events") as stream:
                return [line async for line in stream.aiter_lines()]

    assert len(asyncio.run(visit())) >= 2


def test_waiting_for_a_run_does_not_block_the_loop(web: Any) -> None:
    """While one endpoint waits for a run that waits for a person, the loop goes on with other requests."""

    async def visit() -> None:
        async with client(web) as http:
            waiting_id = (await http.post("/approvals")).json()["run_id"]
            pending = asyncio.create_task(http.get(f"/runs/{waiting_id}/result"))
            other = (await http.post("/runs", params={"limit": 4})).json()["run_id"]
            assert (await http.get(f"/runs/{other}/result")).json() == 12
            assert not pending.done()
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
            web.queue.runs.get(waiting_id).cancel("the test has seen enough")

    asyncio.run(visit())
