"""A cancelled run's steps stop while they run: coroutines are cancelled, children told to leave, then killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentq import RunCancelled
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.sample import TIMEOUT, lines, wait_for_lines
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

pytestmark = pytest.mark.timeout(90)

PROJECT = "tests.projects.stopping"
Start = Callable[..., WorkerProcess]


class Place:
    """The project on one worker of a pool."""

    def __init__(self, server: PrivateServer, worker: WorkerProcess, folder: Path) -> None:
        self.app: Any = load_module(PROJECT, url=server.celery_url).app
        self.worker = worker
        self.notes = folder / "notes"

    def start(self, agent: str, *args: Any) -> Any:
        """Start an agent."""
        return self.app.celery.tasks[agent].start(*args)

    def cancel_when_started(self, handle: Any) -> None:
        """Cancel a run whose step has started, and wait for its end."""
        wait_for_lines(self.notes, 1)
        handle.cancel("enough")
        with pytest.raises(RunCancelled):
            handle.get(timeout=TIMEOUT)

    def statuses(self, handle: Any) -> list[str]:
        """Return the statuses of a run's steps."""
        return [step.status for step in handle.steps()]


@pytest.fixture(scope="module")
def workers(module_server: PrivateServer, start_module_worker: Start) -> dict[str, WorkerProcess]:
    """A worker of each pool, on queues of their own names."""
    return {}


@pytest.fixture
def place(
    request: pytest.FixtureRequest,
    module_server: PrivateServer,
    start_module_worker: Start,
    workers: dict[str, WorkerProcess],
    tmp_path: Path,
) -> Iterator[Place]:
    """The project, served by one worker of the pool that the test names."""
    pool = getattr(request, "param", "prefork")
    if pool not in workers:
        for other in workers.values():
            other.kill_tree()
        workers.clear()
        workers[pool] = start_module_worker(
            PROJECT, url=module_server.celery_url, pool=pool, env={"AGENTQ_CANCEL_GRACE": "1s"}
        )
    yield Place(module_server, workers[pool], tmp_path)
    check_leaks(module_server.client)


@pytest.mark.parametrize("place", ["prefork", "threads"], indirect=True)
def test_a_coroutine_is_cancelled_and_its_worker_goes_on(place: Place) -> None:
    children = place.worker.pool_children()
    handle = place.start("waits", "sits_async", str(place.notes), 60.0)
    place.cancel_when_started(handle)
    assert wait_for_lines(place.notes, 2)[1] == "left"
    wait_until(lambda: place.statuses(handle) == ["cancelled"], description="the step is revoked")
    assert place.worker.pool_children() == children


@pytest.mark.parametrize("place", ["prefork", "threads"], indirect=True)
def test_neither_retry_nor_fallback_is_made_of_what_was_stopped(place: Place) -> None:
    handle = place.start("waits", "stubborn", str(place.notes), 60.0)
    place.cancel_when_started(handle)
    wait_until(lambda: place.statuses(handle) == ["cancelled"], description="the step is revoked")
    assert len(lines(place.notes)) == 1


def test_a_function_in_a_child_is_told_to_leave(place: Place) -> None:
    handle = place.start("waits", "sits", str(place.notes), 60.0)
    place.cancel_when_started(handle)
    assert wait_for_lines(place.notes, 2)[1] == "left"
    wait_until(lambda: place.statuses(handle) == ["cancelled"], description="the step is revoked")
    (step,) = handle.steps()
    assert step.attempts == 1


def test_a_function_that_does_not_leave_is_killed(place: Place) -> None:
    handle = place.start("waits", "deaf", str(place.notes), 60.0)
    place.cancel_when_started(handle)
    wait_until(lambda: place.statuses(handle) == ["cancelled"], description="the step is revoked")
    assert lines(place.notes)[1:] == ["heard"]


def test_members_that_run_stop_and_members_that_wait_never_start(place: Place) -> None:
    handle = place.start("waits_for_all", "sits", str(place.notes), 60.0, 6)
    wait_for_lines(place.notes, 2)
    place.cancel_when_started(handle)
    wait_until(lambda: place.statuses(handle) == ["cancelled"] * 6, description="all are revoked")
    assert sorted(line.split()[0] for line in lines(place.notes)) == ["left", "left", "started", "started"]


def test_a_call_that_was_given_up_stops(place: Place) -> None:
    handle = place.start("impatient", str(place.notes), 60.0, 1.0)
    assert handle.get(timeout=TIMEOUT) == "gave up"
    wait_until(lambda: "left" in lines(place.notes), description="the step has left")
    wait_until(lambda: place.statuses(handle) == ["cancelled"], description="the step is revoked")


def test_what_had_started_is_undone(place: Place) -> None:
    handle = place.start("waits", "undoable", str(place.notes), 60.0)
    place.cancel_when_started(handle)
    assert [line.split()[0] for line in lines(place.notes)] == ["started", "retracted"]


@pytest.mark.parametrize("place", ["threads"], indirect=True)
def test_a_function_in_a_thread_ends_for_nothing(place: Place) -> None:
    handle = place.start("waits", "undoable", str(place.notes), 3.0)
    place.cancel_when_started(handle)
    assert [line.split()[0] for line in lines(place.notes)] == ["started", "effect", "retracted"]
    assert "cancelled" in place.statuses(handle)


def test_sub_agents_end_with_the_one_above(place: Place) -> None:
    handle = place.start("waits_for_agents", 5)
    wait_until(lambda: place.statuses(handle) == ["parked"] * 6, description="all six wait")
    handle.cancel("enough")
    with pytest.raises(RunCancelled):
        handle.get(timeout=TIMEOUT)
    wait_until(lambda: place.statuses(handle) == ["cancelled"] * 6, description="all six are cancelled")


def test_a_revoked_agent_takes_along_what_it_called(place: Place) -> None:
    handle = place.start("waits_for_agents", 2)
    wait_until(lambda: place.statuses(handle) == ["parked"] * 3, description="all three wait")
    place.app.celery.control.revoke(handle.id)
    handle.signal("anything")
    handle.cancel("wake up")
    with pytest.raises(RunCancelled):
        handle.get(timeout=TIMEOUT)
    wait_until(lambda: place.statuses(handle) == ["cancelled"] * 3, description="all three are cancelled")
