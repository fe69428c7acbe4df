"""Values that are too large for messages and journals lie in keys of their own, which end with the tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord

from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.sample import TIMEOUT, lines
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

pytestmark = pytest.mark.timeout(90)

PROJECT = "tests.projects.stopping"
INLINE = 64 * 1024
LARGE = "x" * 200_000


@pytest.fixture(scope="module")
def worker(module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]) -> WorkerProcess:
    return start_module_worker(PROJECT, url=module_server.celery_url)


@pytest.fixture
def app(worker: WorkerProcess, module_server: PrivateServer) -> Iterator[Any]:
    module = load_module(PROJECT, url=module_server.celery_url)
    yield module.app
    check_leaks(module_server.client)


def step(app: Any, name: str) -> Any:
    return app.celery.tasks[f"{PROJECT}.{name}"]


def keys_of(server: PrivateServer, kind: str) -> dict[str, int]:
    """Return the keys of a kind with their seconds of life."""
    names = server.client.scan_iter(match=f"agentq:1:{kind}:*", count=1000)
    return {name.decode(): server.client.ttl(name) for name in names}


def longest_entry(server: PrivateServer) -> int:
    """Return the length of the longest message in a lane, in hands or in a journal."""
    client = server.client
    lengths = [0]
    for key in client.scan_iter(count=1000):
        if client.type(key) == b"list":
            lengths += [len(entry) for entry in client.lrange(key, 0, -1)]
        elif b":held:" in key or b":step:" in key:
            lengths += [len(entry) for entry in client.hvals(key)]
        elif b":message:" in key:
            lengths.append(client.strlen(key))
    return max(lengths)


def test_every_place_takes_large_values(app: Any, module_server: PrivateServer) -> None:
    handle = app.celery.tasks["carries"].start(LARGE, 300_000, 1)
    for asked in (1, 2):
        wait_until(lambda: handle.status() == "parked", description=f"parked for the {asked}. time")
        assert longest_entry(module_server) < INLINE
        assert len(keys_of(module_server, "payload")) == 2, "the agent's arguments and one local result"
        assert set(keys_of(module_server, "payload").values()) == {-1}
        handle.signal("go", True)
        if asked == 1:
            wait_until(lambda: len(handle.steps()) == 0 or handle.status() != "parked", description="it goes on as new")
    assert handle.get(timeout=TIMEOUT) == [300_000, 200_000, 200_000, 300_000, 1]
    wait_until(
        lambda: all(left > 0 for left in keys_of(module_server, "payload").values()),
        description="the large values end with the tree",
    )


def test_a_replay_reads_them_again(app: Any, worker: WorkerProcess) -> None:
    handle = app.celery.tasks["carries"].start(LARGE, 100_000, 0)
    wait_until(lambda: handle.status() == "parked", description="parked")
    worker.kill_child()
    handle.signal("go", False)
    assert handle.get(timeout=TIMEOUT) == [100_000, 200_000, 200_000, 100_000, 1]


def test_a_retry_keeps_its_arguments(app: Any, tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    assert step(app, "measures_at_last").delay(str(tries), LARGE).get(timeout=TIMEOUT) == len(LARGE)
    assert lines(tries) == ["attempt"] * 2


def test_a_replaced_step_takes_others(app: Any, module_server: PrivateServer) -> None:
    assert step(app, "measures_elsewhere").delay(LARGE).get(timeout=TIMEOUT) == 2 * len(LARGE)


def test_canvas_carries_them(app: Any) -> None:
    echoes, measures = step(app, "echoes"), step(app, "measures")
    assert chain(echoes.s(LARGE), echoes.s(), measures.s()).apply_async().get(timeout=TIMEOUT) == len(LARGE)
    body = step(app, "measures_body")
    assert chord([echoes.s("a"), echoes.s("b")], body.s(LARGE)).apply_async().get(timeout=TIMEOUT) == 2 + len(LARGE)


def test_arguments_go_when_their_step_is_done(app: Any, module_server: PrivateServer) -> None:
    before = keys_of(module_server, "payload")
    assert step(app, "measures").delay(LARGE).get(timeout=TIMEOUT) == len(LARGE)
    wait_until(lambda: keys_of(module_server, "payload").keys() == before.keys(), description="they are gone")
