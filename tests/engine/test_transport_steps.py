"""Steps on the transport under faults: each is committed once, whatever dies or cannot be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain

from tests.engine.step_app import StepApp, make_steps
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

Start = Callable[..., WorkerProcess]


@pytest.fixture
def steps(server: PrivateServer) -> Iterator[StepApp]:
    made = make_steps(server.celery_url)
    yield made
    made.celery.close()
    made.store.close()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


def launch(start_worker: Start, server: PrivateServer, **options: Any) -> WorkerProcess:
    return start_worker("tests.engine.step_app", url=server.celery_url, queues=["q"], **options)


def told(notes: Path) -> list[str]:
    return notes.read_text().split()


def one(steps: StepApp, name: str, *args: Any) -> Any:
    return steps.celery.tasks[name].s(*args).set(queue="q")


class TestSteps:
    @pytest.mark.parametrize("pool", ["prefork", "threads"])
    def test_sync_and_async_steps_are_committed(
        self, steps: StepApp, server: PrivateServer, start_worker: Start, notes: Path, pool: str
    ) -> None:
        launch(start_worker, server, pool=pool)
        results = [
            one(steps, name, str(notes), f"{name}{number}").apply_async()
            for number in range(5)
            for name in ("tell", "tell_async")
        ]
        assert [result.get(timeout=60) for result in results] == [
            f"{name}{number}" for number in range(5) for name in ("tell", "tell_async")
        ]

    def test_async_steps_share_the_time_in_a_pool_of_threads(
        self, steps: StepApp, server: PrivateServer, start_worker: Start, notes: Path
    ) -> None:
        launch(start_worker, server, pool="threads", concurrency=50)
        one(steps, "tell_async", str(notes), "warm").apply_async().get(timeout=60)
        began = time.monotonic()
        results = [one(steps, "tell_async", str(notes), str(n), 1.0).apply_async() for n in range(50)]
        for result in results:
            result.get(timeout=60)
        assert time.monotonic() - began < 30, "one after the other would be fifty seconds"

    def test_a_chain_survives_the_death_of_its_worker(
        self, steps: StepApp, server: PrivateServer, start_worker: Start, notes: Path
    ) -> None:
        first = launch(start_worker, server, concurrency=1)
        path = str(notes)
        result = chain(
            one(steps, "tell", path, "a"),
            one(steps, "tell", path, "b", 5.0).set(immutable=True),
            one(steps, "tell", path, "c").set(immutable=True),
        ).apply_async()
        wait_until(lambda: "b" in told(notes), description="the second step runs")
        launch(start_worker, server, concurrency=1)
        first.kill_tree()
        assert result.get(timeout=60) == "c"
        assert sorted(told(notes)) == ["a", "b", "b", "c"]

    def test_steps_survive_the_death_of_the_server(
        self, steps: StepApp, server: PrivateServer, start_worker: Start, notes: Path
    ) -> None:
        launch(start_worker, server, concurrency=2)
        results = [one(steps, "tell", str(notes), str(n), 0.2).apply_async() for n in range(20)]
        wait_until(lambda: len(told(notes)) >= 3, description="some have started")
        # What the append-only file holds by now is what a process kill leaves; see the fsync policy in the docs.
        server.restart()
        assert [result.get(timeout=60) for result in results] == [str(n) for n in range(20)]

    def test_a_child_that_dies_costs_one_attempt(
        self, steps: StepApp, server: PrivateServer, start_worker: Start, notes: Path
    ) -> None:
        worker = launch(start_worker, server, concurrency=1)
        result = one(steps, "tell", str(notes), "a", 2.0).apply_async()
        wait_until(lambda: told(notes) == ["a"], description="it runs")
        worker.kill_child()
        assert result.get(timeout=60) == "a"
        assert told(notes) == ["a", "a"]
