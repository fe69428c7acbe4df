"""Stock producers, stock workers and ours share one queue under load, and every task runs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.kit.projects import close_app, load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

OURS, STOCK = "tests.projects.leaving.durable", "tests.projects.leaving.plain"


class LiveQueue:
    """One queue, two producers, and workers of both kinds; each task notes its number in a file."""

    def __init__(self, server: PrivateServer, make: Callable[..., WorkerProcess], notes: Path) -> None:
        self._env = {"LEAVING_FILE": str(notes)}
        self._notes = notes
        self._make = lambda app: make(app, url=server.celery_url, env=self._env, concurrency=1)
        self.ours: ModuleType = load_module(OURS, url=server.celery_url, **self._env)
        self.stock: ModuleType = load_module(STOCK, url=server.celery_url, **self._env)

    def start(self, app: str) -> WorkerProcess:
        worker: WorkerProcess = self._make(app)
        worker.launch()
        return worker

    def send(self, first: int, count: int, *, name: str = "leaving.plain_double") -> None:
        """Send tasks by both producers in turn, in every lane."""
        producers: list[Any] = [self.ours.app, self.stock.app]
        for n in range(first, first + count):
            producers[n % 2].send_task(name, (n,), queue="leaving", priority=(n * 3) % 12 % 10)

    def times(self) -> Counter[int]:
        """Return how often each number was doubled."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return Counter(int(line.split()[1]) for line in lines)

    def await_count(self, least: int) -> None:
        wait_until(lambda: len(self.times()) >= least, description=f"{least} tasks have run", report=self.report)

    def report(self) -> str:
        waiting = self.ours.app.store.waiting("leaving")
        client = self.ours.app.store.client
        held = {
            worker.label: client.hgetall(client_key)
            for worker in self.ours.app.store.workers()
            for client_key in [self.ours.app.store.keys.held(worker.id)]
        }
        return f"{len(self.times())} have run, {waiting} wait, stock holds {client.hlen('unacked')}, ours {held}"

    def await_all(self, count: int, *, timeout: float) -> None:
        wait_until(
            lambda: len(self.times()) == count,
            description="every task has run",
            timeout=timeout,
            interval=0.2,
            report=self.report,
        )


@pytest.fixture
def live(server: PrivateServer, make_worker: Callable[..., WorkerProcess], tmp_path: Path) -> Any:
    queue = LiveQueue(server, make_worker, tmp_path / "notes")
    yield queue
    close_app(queue.stock.app)


def test_every_task_runs_once_whoever_sends_and_serves(live: LiveQueue) -> None:
    live.send(0, 150)
    ours, stock = live.start(OURS), live.start(STOCK)
    live.send(150, 150)
    live.await_all(300, timeout=60)
    assert set(live.times().values()) == {1}
    assert "leaving.plain_double" in ours.log()
    assert "leaving.plain_double" in stock.log()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_is_lost_while_our_workers_die_and_stock_ones_come_and_go(live: LiveQueue, rng: random.Random) -> None:
    sent, stock = 0, live.start(STOCK)
    for _ in range(8):
        ours = live.start(OURS)
        live.send(sent, 500, name="leaving.late_double")
        sent += 500
        live.await_count(min(sent, len(live.times()) + rng.randrange(20, 400)))
        ours.kill_tree()
        if rng.random() < 0.4:
            # A warm stop: what a killed stock worker held comes back after an hour, as in stock Celery.
            stock.terminate()
            stock = live.start(STOCK)
    live.start(OURS)
    live.await_all(sent, timeout=60)
    # A death repeats at most what one worker of one slot had in its hands.
    assert sum(live.times().values()) <= sent + 8
