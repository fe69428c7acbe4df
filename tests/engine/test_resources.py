"""Resources: opened once per process when asked for, closed at its end, never shared by a fork unless declared so."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, assert_type

import pytest

from agentq import AgentQ, InvalidArguments
from agentq.engine import realloop, resources
from agentq.engine.declare_resource import resource
from agentq.engine.resources import AsyncResource, Resource
from tests.kit.process import ROOT, clean_environment
from tests.kit.projects import load_module
from tests.kit.sample import lines
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess


class Model:
    """A value that says when it is closed."""

    def __init__(self, said: list[str]) -> None:
        self.said = said
        said.append("opened")

    def close(self) -> None:
        self.said.append("closed")


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the resources of a test say; all are closed behind it."""
    yield []
    resources.close_all()
    realloop.close()


def test_a_value_is_made_when_it_is_asked_for_and_only_then(said: list[str]) -> None:
    @resource
    def model() -> Model:
        return Model(said)

    assert_type(model, Resource[Model])
    assert (said, model.is_open) == ([], False)
    found = model()
    assert_type(found, Model)
    assert model() is found
    assert (said, model.is_open) == (["opened"], True)
    resources.close_all()
    assert (said, model.is_open) == (["opened", "closed"], False)
    resources.close_all()
    assert model() is not found


def test_what_stands_behind_a_yield_closes_the_last_first(said: list[str]) -> None:
    @resource
    def first() -> Iterator[str]:
        said.append("first")
        yield "1"
        said.append("first ends")

    @resource
    @contextmanager
    def second() -> Iterator[str]:
        said.append(f"second by {first()}")
        yield "2"
        said.append("second ends")

    assert_type(first, Resource[str])
    assert_type(second, Resource[str])
    assert second() + first() == "21"
    resources.close_all()
    assert said == ["first", "second by 1", "second ends", "first ends"]


def test_threads_wait_for_the_first_one(said: list[str]) -> None:
    @resource
    def slow() -> Model:
        time.sleep(0.05)
        return Model(said)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: slow(), range(16)))
    assert said == ["opened"]
    assert len({id(each) for each in found}) == 1


def test_a_failure_is_the_callers_and_the_next_one_tries_again(said: list[str]) -> None:
    @resource
    def flaky() -> str:
        said.append("tried")
        if len(said) < 3:
            raise OSError("not yet")
        return "there"

    for _ in range(2):
        with pytest.raises(OSError, match="not yet"):
            flaky()
    assert flaky() == "there"

    @resource
    async def flaky_too() -> str:
        said.append("tried")
        if len(said) < 5:
            raise OSError("not yet")
        return "there"

    with pytest.raises(OSError, match="not yet"):
        flaky_too.get()
    assert flaky_too.get() == "there"


def test_one_that_asks_for_itself_is_told(said: list[str]) -> None:
    @resource
    def snake() -> str:
        return snake()

    with pytest.raises(RuntimeError, match="snake asks for itself"):
        snake()


def test_async_ones_live_on_the_loop_of_async_steps(said: list[str]) -> None:
    @resource
    async def client() -> AsyncIterator[asyncio.AbstractEventLoop]:
        task = asyncio.current_task()
        said.append("opened")
        await asyncio.sleep(0.01)
        yield asyncio.get_running_loop()
        assert asyncio.current_task() is task, "as libraries with cancel scopes want it"
        await asyncio.sleep(0)
        said.append("closed")

    @resource
    @asynccontextmanager
    async def inner() -> AsyncIterator[int]:
        yield 7
        said.append("inner closed")

    assert_type(client, AsyncResource[asyncio.AbstractEventLoop])
    assert_type(inner, AsyncResource[int])

    async def use() -> bool:
        return await client() is asyncio.get_running_loop()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: realloop.run(use()), range(8)))
    assert inner.get() == 7
    assert said == ["opened"]
    with pytest.raises(RuntimeError, match=r"await it in an `async def` step"):
        asyncio.run(_await(client))
    resources.close_all()
    assert said == ["opened", "inner closed", "closed"]
    assert not client.is_open


async def _await(of: AsyncResource[Any]) -> Any:
    return await of()


def test_a_caller_that_is_cancelled_leaves_it_to_the_others(said: list[str]) -> None:
    @resource
    async def slow() -> str:
        await asyncio.sleep(0.2)
        said.append("opened")
        return "there"

    async def both() -> str:
        impatient = asyncio.ensure_future(slow())
        patient = asyncio.ensure_future(slow())
        await asyncio.sleep(0.01)
        impatient.cancel()
        return await patient

    assert realloop.run(both()) == "there"
    assert said == ["opened"]


def test_a_client_of_a_plain_function_is_closed_on_the_loop(said: list[str]) -> None:
    class Client:
        async def aclose(self) -> None:
            said.append(threading.current_thread().name)

    @resource
    def client() -> Client:
        return Client()

    client()
    resources.close_all()
    assert said == ["agentq-loop"]


def test_nonsense_is_refused() -> None:
    app = AgentQ("nonsense")
    with pytest.raises(InvalidArguments, match="has parameters"):
        resource(load_module)  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match="shared is for plain functions"):

        @app.resource(shared=True)
        async def client() -> str:
            return ""

    with pytest.raises(InvalidArguments, match=r"such as resources=\[model\]"):

        @app.step(resources=["model"])  # type: ignore[list-item]
        def uses() -> None: ...


def test_a_forked_child_has_none_of_its_parents_but_what_is_shared() -> None:
    program = """
import os
from agentq.engine.declare_resource import resource
from agentq.engine import resources

@resource
def own():
    yield os.getpid()
    print("closed by its owner", flush=True)

@resource
async def loops():
    return os.getpid()

@resource(shared=True)
def weights():
    yield [os.getpid()]
    print("weights closed", flush=True)

own(); loops.get(); resources.open_shared()
parent = os.getpid()
child = os.fork()
if child == 0:
    print(own() == loops.get() == os.getpid(), weights() == [parent], flush=True)
    resources.close_all()
    os._exit(0)
os.waitpid(child, 0)
print(own() == loops.get() == os.getpid(), flush=True)
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=clean_environment(), cwd=ROOT, timeout=60
    )
    assert found.stdout.splitlines() == [
        "True True",
        "closed by its owner",
        "True",
        "weights closed",
        "closed by its owner",
    ], found.stderr


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_workers_open_once_per_process_say_so_and_close_at_the_end(
    server: PrivateServer, make_worker: Callable[..., WorkerProcess], tmp_path: Path, pool: str
) -> None:
    env = {"RESOURCES_NOTES": str(tmp_path / "notes")}
    worker = make_worker(
        "tests.projects.resourceful", url=server.celery_url, pool=pool, concurrency=2, env=env
    ).launch()
    module = load_module("tests.projects.resourceful", url=server.celery_url, **env)
    pids = {pid for each in [module.use.delay(n) for n in range(12)] for pid in each.get(timeout=60)}
    notes = tmp_path / "notes"
    opened = [line for line in lines(notes) if line.startswith("opened")]
    assert sorted(opened) == sorted(f"opened {name} {pid}" for pid in pids for name in ("model", "client"))
    warm = wait_until(
        lambda: module.app.store.workers()[0].report.get("warm"), description="the card says what is warm"
    )
    assert warm == ["tests.projects.resourceful.client", "tests.projects.resourceful.model"]
    if pool == "threads":
        cold = make_worker("tests.projects.resourceful", url=server.celery_url, concurrency=2, env=env).launch()
        found = {module.busy.delay(0).get(timeout=60) for _ in range(20)}
        assert found == pids, "each goes to the warm one, although the other is idle"
        cold.kill_tree()
    if pool == "prefork":
        killed = worker.kill_child()
        wait_until(lambda: killed not in worker.pool_children(), description="another child")
        pids |= {pid for each in [module.use.delay(n) for n in range(12)] for pid in each.get(timeout=60)}
        pids -= {killed}
    worker.terminate()
    closed = [line for line in lines(notes) if line.startswith("closed")]
    assert set(closed) == {f"closed {name} {pid}" for pid in pids for name in ("model", "client")}
    assert len(set(closed)) == len(closed)
