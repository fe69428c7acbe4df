"""Celery's soft and cold shutdown: what runs on goes back to its lane at once, and starts elsewhere.

The warm one stands with the transport's workers.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.step_app import StepApp, make_steps
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

APP = "tests.engine.step_app"
SOFT_S = 0.5

OPTIONS = {"soft": [f"worker.soft_shutdown_timeout={SOFT_S}"]}
SOON_S = 2.5
"""A second where the machine is idle."""


@pytest.fixture(scope="module")
def workers(module_server: PrivateServer, make_module_worker: Callable[..., WorkerProcess]) -> dict[str, WorkerProcess]:
    """A worker of two slots for each test, with a queue of that name; the next one is its heir."""
    made = {
        name: make_module_worker(
            APP,
            url=module_server.celery_url,
            queues=[name],
            pool="threads" if name == "threads" else "prefork",
            options=OPTIONS.get(name, []),
        )
        for name in ("soft", "cold", "threads", "heir")
    }
    for worker in made.values():
        worker.start()
    for worker in made.values():
        worker.wait_ready()
    return made


@pytest.fixture
def steps(module_server: PrivateServer) -> Iterator[StepApp]:
    made = make_steps(module_server.celery_url)
    yield made
    made.celery.close()
    made.store.close()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


def told(notes: Path) -> list[str]:
    return notes.read_text().split()


def begin(steps: StepApp, notes: Path, queue: str, **seconds: float) -> dict[str, Any]:
    """Start steps that take so long, and return them when two of them run."""
    made = {
        line: steps.celery.tasks["tell_async" if line == "async" else "tell"]
        .s(str(notes), line, length)
        .set(queue=queue)
        .apply_async()
        for line, length in seconds.items()
    }
    wait_until(lambda: len(told(notes)) == 2, description="two steps run")
    return made


def bequeath(steps: StepApp, queue: str, heir: WorkerProcess) -> None:
    steps.celery.control.add_consumer(queue, reply=True, pattern=f"{heir.name}@*", matcher="glob", limit=1, timeout=10)


def record(steps: StepApp, result: Any) -> dict[str, str]:
    found = steps.store.client.hgetall(steps.store.keys.step(result.id, result.id))
    return {name.decode(): value.decode() for name, value in found.items()}


def is_first_attempt(steps: StepApp, result: Any) -> bool:
    found = record(steps, result)
    return found["a"] == "1" and found.get("d", "0") == "0"


def test_a_soft_shutdown_lets_short_steps_end_and_hands_back_the_others(
    workers: dict[str, WorkerProcess], steps: StepApp, notes: Path
) -> None:
    results = begin(steps, notes, "soft", a=0.3, b=1.2)
    bequeath(steps, "soft", workers["cold"])
    began = time.monotonic()
    workers["soft"].send(signal.SIGQUIT)
    wait_until(lambda: len(told(notes)) == 3, description="the longer one runs elsewhere")
    assert SOFT_S < time.monotonic() - began < SOFT_S + SOON_S
    assert all(is_first_attempt(steps, result) for result in results.values())
    assert [result.get(timeout=10) for result in results.values()] == ["a", "b"]
    workers["soft"].wait()
    assert sorted(told(notes)) == ["a", "b", "b"]


def test_a_cold_shutdown_hands_back_what_runs(workers: dict[str, WorkerProcess], steps: StepApp, notes: Path) -> None:
    results = begin(steps, notes, "cold", a=1.0, b=1.0)
    bequeath(steps, "cold", workers["heir"])
    began = time.monotonic()
    workers["cold"].send(signal.SIGQUIT)
    wait_until(lambda: len(told(notes)) == 4, description="both run elsewhere")
    assert time.monotonic() - began < SOON_S
    assert all(is_first_attempt(steps, result) for result in results.values())
    assert [result.get(timeout=10) for result in results.values()] == ["a", "b"]
    workers["cold"].wait()
    assert sorted(told(notes)) == ["a", "a", "b", "b"]


def test_a_cold_shutdown_of_threads_ends_with_what_does_not_let_go(
    workers: dict[str, WorkerProcess], steps: StepApp, notes: Path
) -> None:
    """A coroutine is cancelled at once; a function ends with its process, a moment later, and is no death either."""
    results = begin(steps, notes, "threads", **{"async": 30.0, "b": 30.0})
    bequeath(steps, "threads", workers["heir"])
    workers["threads"].send(signal.SIGQUIT)
    wait_until(lambda: len(told(notes)) == 3, description="the coroutine runs elsewhere")
    assert told(notes)[2] == "async"
    wait_until(lambda: len(told(notes)) == 4, description="both run elsewhere")
    workers["threads"].wait()
    assert all(is_first_attempt(steps, result) for result in results.values())
    assert "NotImplementedError" not in workers["threads"].log()
