"""A cancelled run's steps stop while they run: coroutines are cancelled, children told to leave, then killed."""

from __future__ import annotations

import pytest

from agentq import RunCancelled
from tests.kit.sample import TIMEOUT, lines, wait_for_lines
from tests.kit.stopping import Stopping
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.timeout(90)

BOTH = pytest.mark.parametrize("stopping", ["prefork", "threads"], indirect=True)


@BOTH
def test_a_coroutine_is_cancelled_and_its_worker_goes_on(stopping: Stopping) -> None:
    children = stopping.worker.whole_pool()
    handle = stopping.start("waits", "sits_async", str(stopping.notes), 60.0)
    stopping.cancel_when_started(handle)
    assert wait_for_lines(stopping.notes, 2)[1] == "left"
    wait_until(lambda: stopping.statuses(handle) == ["cancelled"], description="the step is revoked")
    assert stopping.worker.pool_children() == children


@BOTH
def test_neither_retry_nor_fallback_is_made_of_what_was_stopped(stopping: Stopping) -> None:
    handle = stopping.start("waits", "stubborn", str(stopping.notes), 60.0)
    stopping.cancel_when_started(handle)
    wait_until(lambda: stopping.statuses(handle) == ["cancelled"], description="the step is revoked")
    assert len(lines(stopping.notes)) == 1


def test_a_function_in_a_child_is_told_to_leave(stopping: Stopping) -> None:
    handle = stopping.start("waits", "sits", str(stopping.notes), 60.0)
    stopping.cancel_when_started(handle)
    assert wait_for_lines(stopping.notes, 2)[1] == "left"
    wait_until(lambda: stopping.statuses(handle) == ["cancelled"], description="the step is revoked")
    (step,) = handle.steps()
    assert step.attempts == 1


def test_a_function_that_does_not_leave_is_killed(stopping: Stopping) -> None:
    handle = stopping.start("waits", "deaf", str(stopping.notes), 60.0)
    stopping.cancel_when_started(handle)
    wait_until(lambda: stopping.statuses(handle) == ["cancelled"], description="the step is revoked")
    assert lines(stopping.notes)[1:] == ["heard"]


def test_members_that_run_stop_and_members_that_wait_never_start(stopping: Stopping) -> None:
    handle = stopping.start("waits_for_all", "sits", str(stopping.notes), 60.0, 6)
    wait_for_lines(stopping.notes, 2)
    stopping.cancel_when_started(handle)
    wait_until(lambda: stopping.statuses(handle) == ["cancelled"] * 6, description="all are revoked")
    assert sorted(line.split()[0] for line in lines(stopping.notes)) == ["left", "left", "started", "started"]


def test_a_call_that_was_given_up_stops(stopping: Stopping) -> None:
    handle = stopping.start("impatient", str(stopping.notes), 60.0, 1.0)
    assert handle.get(timeout=TIMEOUT) == "gave up"
    wait_until(lambda: "left" in lines(stopping.notes), description="the step has left")
    wait_until(lambda: stopping.statuses(handle) == ["cancelled"], description="the step is revoked")


def test_what_had_started_is_undone(stopping: Stopping) -> None:
    handle = stopping.start("waits", "undoable", str(stopping.notes), 60.0)
    stopping.cancel_when_started(handle)
    assert [line.split()[0] for line in lines(stopping.notes)] == ["started", "retracted"]


@pytest.mark.parametrize("stopping", ["threads"], indirect=True)
def test_a_function_in_a_thread_ends_for_nothing(stopping: Stopping) -> None:
    handle = stopping.start("waits", "undoable", str(stopping.notes), 3.0)
    stopping.cancel_when_started(handle)
    assert [line.split()[0] for line in lines(stopping.notes)] == ["started", "effect", "retracted"]
    assert "cancelled" in stopping.statuses(handle)


def test_sub_agents_end_with_the_one_above(stopping: Stopping) -> None:
    handle = stopping.start("waits_for_agents", 5)
    wait_until(lambda: stopping.statuses(handle) == ["parked"] * 6, description="all six wait")
    handle.cancel("enough")
    with pytest.raises(RunCancelled):
        handle.get(timeout=TIMEOUT)
    wait_until(lambda: stopping.statuses(handle) == ["cancelled"] * 6, description="all six are cancelled")


def test_a_revoked_agent_takes_along_what_it_called(stopping: Stopping) -> None:
    handle = stopping.start("waits_for_agents", 2)
    wait_until(lambda: stopping.statuses(handle) == ["parked"] * 3, description="all three wait")
    stopping.app.celery.control.revoke(handle.id)
    handle.signal("anything")
    handle.cancel("wake up")
    with pytest.raises(RunCancelled):
        handle.get(timeout=TIMEOUT)
    wait_until(lambda: stopping.statuses(handle) == ["cancelled"] * 3, description="all three are cancelled")
