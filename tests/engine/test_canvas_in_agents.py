"""Canvases that an agent awaits: each ends, whatever fails in it, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess

TIMEOUT = 60

RESULTS = {
    "chain": 8,
    "group": [2, 4],
    "chord": 6,
    # Celery unrolls an inner group from its end.
    "nested": [4, 6, 4],
    "chord with a chain as its body": 12,
    "chain around a group": 12,
    "plain task in a chain": 8,
    "plain task in a chord": 6,
    "replaced by a chord": 8,
}
FAILURES = {
    "failing chain": "bad 2",
    "failing plain task in a chain": "plain 2",
    "failing group": "bad 2",
    "failing plain task in a group": "plain 2",
    "failing chord with a chain as its body": "bad 1",
    "failing before a chord": "bad 1",
    "failing replaced step": "bad 1",
}


@pytest.fixture(scope="module")
def canvas(module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]) -> ModuleType:
    url = module_server.celery_url
    start_module_worker("tests.engine.canvas_app", url=url)
    return load_module("tests.engine.canvas_app", url=url)


@pytest.fixture
def run(canvas: ModuleType, module_server: PrivateServer) -> Iterator[Callable[[str, str], Any]]:
    canvas.app.set_current()
    yield lambda agent, argument: getattr(canvas, agent).start(argument).get(timeout=TIMEOUT)
    check_leaks(module_server.client)


@pytest.mark.parametrize("shape", sorted(RESULTS))
def test_a_canvas_gives_what_celery_gives(run: Callable[[str, str], Any], shape: str) -> None:
    assert run("awaits", shape) == RESULTS[shape]


@pytest.mark.parametrize("shape", sorted(FAILURES))
def test_a_failure_reaches_the_agent(run: Callable[[str, str], Any], shape: str) -> None:
    assert FAILURES[shape] in run("awaits", shape)


def test_a_step_that_replaces_itself_keeps_its_place(run: Callable[[str, str], Any]) -> None:
    assert run("calls", "fan") == [4, [4, 8, 12]]


@pytest.mark.parametrize(("name", "words"), [("stumble", "bad 1"), ("stumble_plain", "plain 2")])
def test_a_replaced_step_whose_chain_fails_has_failed(run: Callable[[str, str], Any], name: str, words: str) -> None:
    alone, members = run("calls", name)
    assert words in alone
    assert "0 of 3 succeeded" in members
