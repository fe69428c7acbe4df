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


def begin(steps: StepApp, notes: Path, queue: str, **lengths: float | str) -> dict[str, Any]:
    """Start steps that take so long, or until a file is there, and return them when two of them run."""
    made = {}
    for line, length in lengths.items():
        name = "tell_async" if line == "async" else "tell" if isinstance(length, float) else "tell_and_wait"
        made[line] = steps.celery.tasks[name].s(str(notes), line, length).set(queue=queue).apply_async()
    wait_until(lambda: len(told(notes)) == 2, description="two steps run")
    return made


def bequeath(steps: StepApp, queue: str, heir: WorkerProcess) -> None:
    steps.celery.control.add_consumer(queue, reply=True, pattern=f"{heir.name}@*", matcher="glob", limit=1, timeout=60)


def record(steps: StepApp, result: Any) -> dict[str, str]:
    found = steps.store.client.hgetall(steps.store.keys.step(result.id, result.id))
    return {name.decode(): value.decode() for name, value in found.items()}


def is_first_attempt(steps: StepApp, result: Any) -> bool:
    """Whether the step was handed back by its owner: who waits for the lease to run out finds a death."""
    found = record(steps, result)
    return found["a"] == "1" and found.get("d", "0") == "0"


def test_a_soft_shutdown_lets_short_steps_end_and_hands_back_the_others(
    workers: dict[str, WorkerProcess], steps: StepApp, notes: Path
) -> None:
    gate = notes.with_name("gate")
    results = begin(steps, notes, "soft", a=0.2, b=str(gate))
    bequeath(steps, "soft", workers["cold"])
    began = time.monotonic()
    workers["soft"].send(signal.SIGQUIT)
    wait_until(lambda: len(told(notes)) == 3, description="the longer one runs elsewhere")
    assert time.monotonic() - began > SOFT_S
    gate.touch()
    assert all(is_first_attempt(steps, result) for result in results.values())
    assert [result.get(timeout=60) for result in results.values()] == ["a", "b"]
    workers["soft"].wait()
    assert sorted(told(notes)) == ["a", "b", "b"]


def test_a_cold_shutdown_hands_back_what_runs(workers: dict[str, WorkerProcess], steps: StepApp, notes: Path) -> None:
    gate = notes.with_name("gate")
    results = begin(steps, notes, "cold", a=str(gate), b=str(gate))
    bequeath(steps, "cold", workers["heir"])
    workers["cold"].send(signal.SIGQUIT)
    wait_until(lambda: len(told(notes)) == 4, description="both run elsewhere")
    gate.touch()
    assert all(is_first_attempt(steps, result) for result in results.values())
    assert [result.get(timeout=60) for result in results.values()] == ["a", "b"]
    workers["cold"].wait()
    assert sorted(told(notes)) == ["a", "a", "b", "b"]


def test_a_cold_shutdown_of_threads_ends_with_what_does_not_let_go(
    workers: dict[str, WorkerProcess], steps: StepApp, notes: Path
) -> None:
    """A coroutine is cancelled at once; a function ends with its process, a moment later, and is no death either."""
    results = begin(steps, notes, "threads", **{"async": 30.0, "b": 30.0})
    bequeath(steps, "threads", workers["heir"])
    workers["threads"].send(signal.SIGQUIT)
    wait_until(lambda: len(told(notes)) >= 3, description="the coroutine runs elsewhere")
    assert told(notes)[2] == "async"
    wait_until(lambda: len(told(notes)) == 4, description="both run elsewhere")
    workers["threads"].wait()
    assert all(is_first_attempt(steps, result) for result in results.values())
    assert "NotImplementedError" not in workers["threads"].log()
