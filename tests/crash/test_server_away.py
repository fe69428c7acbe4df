"""The server goes away in the middle of an attempt: it waits, and goes on when the server is back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from celery import chord

from tests.kit.projects import load_module
from tests.kit.proxy import Call, Moment, Proxy, Verdict
from tests.kit.server import PrivateServer
from tests.kit.waiting import holds_for
from tests.kit.worker import WorkerProcess

FLOWS = "tests.projects.flows"
TIMEOUT = 90.0

AWAY_S = 4.0
"""Longer than the patience of redis-py and kombu together."""


@dataclass(frozen=True)
class Outage:
    """A server behind a proxy, which dies when a call is met; the worker has sent nothing before the first test."""

    flows: Any
    server: PrivateServer
    proxy: Proxy
    worker: WorkerProcess

    def during(self, name: str, moment: Moment, start: Callable[[], Any]) -> Any:
        """Start something, have the server away from the first such call on, and return what it comes to."""
        is_started = Event()

        def spring(call: Call) -> Verdict:
            # The worker may be there before the producer has its own reply, and would take the server from it.
            assert is_started.wait(TIMEOUT)
            self.server.kill()
            return "cut" if moment == "before" else "pass"

        trap = self.proxy.trap({name}, moment, spring)
        started = start()
        is_started.set()
        assert trap.done.wait(TIMEOUT), f"no {name} was met"
        holds_for(lambda: self.worker.running, description="the worker lives on without its server", seconds=AWAY_S)
        self.server.start()
        return started.get(timeout=TIMEOUT)


@pytest.fixture(scope="module")
def outage(make_module_worker: Callable[..., WorkerProcess]) -> Iterator[Outage]:
    server = PrivateServer(fsync="always")
    server.start()
    flows = load_module(FLOWS, url=server.celery_url)
    proxy = Proxy(server.socket, Path(server.folder) / "p", flows.app.store.scripts.hashes)
    proxy.start()
    worker = make_module_worker(FLOWS, url=proxy.celery_url, concurrency=1).launch()
    flows.app.set_current()
    try:
        yield Outage(flows, server, proxy, worker)
    finally:
        worker.kill_tree()
        proxy.close()
        server.stop()


def test_a_turn_that_sends_waits(outage: Outage) -> None:
    """The first time that a process sends, Celery declares the queue."""
    assert outage.during("LRANGE", "after", lambda: outage.flows.fan.start(3)) == 6


def test_a_body_that_reads_its_results_waits(outage: Outage) -> None:
    flows = outage.flows

    def start() -> Any:
        return chord([flows.double.s(number) for number in range(3)], flows.total.s()).apply_async()

    assert outage.during("MGET", "before", start) == 6


def test_a_step_that_says_how_far_it_is_waits(outage: Outage) -> None:
    assert outage.during("progress", "before", lambda: outage.flows.halfway.delay(3)) == 3
