"""A run's short steps in its own slot, by real workers, its short calls in its own thread, and those that are not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.short"
TIMEOUT = 60.0
STEPS = 12


@pytest.fixture(scope="module", params=["prefork", "threads"])
def project(
    request: pytest.FixtureRequest, start_module_worker: Callable[..., WorkerProcess]
) -> Iterator[tuple[str, Any]]:
    """A worker of two slots, and its project."""
    server = PrivateServer()
    server.start()
    start_module_worker(PROJECT, url=server.celery_url, pool=request.param)
    yield request.param, load_module(PROJECT, url=server.celery_url)
    check_leaks(server.client)
    server.stop()


def test_short_steps_run_where_their_agent_is(project: tuple[str, Any]) -> None:
    pool, found = project
    if pool != "prefork":
        pytest.skip("threads are all of one process")

    def is_at_home() -> bool:
        home, places = found.places.start(STEPS).get(timeout=TIMEOUT)
        assert len(places) == STEPS
        return bool(places.count(home) > STEPS // 2)

    # A step is known to be short once one was, which on a busy machine may take a while.
    wait_until(is_at_home, description="a run whose steps run in its own slot", timeout=TIMEOUT)


def test_each_runs_once(project: tuple[str, Any]) -> None:
    _, found = project
    handles = [found.places.start(STEPS) for _ in range(6)]
    for handle in handles:
        handle.get(timeout=TIMEOUT)
        assert [step.attempts for step in handle.steps()] == [1] * STEPS


def test_calls_made_from_one_message_keep_what_is_theirs(project: tuple[str, Any]) -> None:
    _, found = project
    handle = found.mixed.start(STEPS)
    assert handle.get(timeout=TIMEOUT) == [each for number in range(STEPS) for each in (2 * number, 7 * number)]
    ids = [step.step_id for step in handle.steps() if step.name == "double"]
    tenants = [found.app.store.record(handle.id, each).get("tn") for each in ids]
    assert tenants == ["acme" if at % 5 == 4 else None for at in range(STEPS)]


def test_one_that_turns_out_long_keeps_its_agent_from_nothing(project: tuple[str, Any], tmp_path: Path) -> None:
    _, found = project
    assert found.patient.start(STEPS, "", 60.0).get(timeout=TIMEOUT) == "slept"
    gate = tmp_path / "gate"
    handle = found.patient.start(STEPS, str(gate), 0.5)
    assert handle.get(timeout=TIMEOUT) == "gave up", "and the step has not ended"
    gate.touch()


def test_one_that_is_waited_for_runs_on_when_the_turn_is_given_back(project: tuple[str, Any], tmp_path: Path) -> None:
    _, found = project
    gate = tmp_path / "gate"
    handle = found.patient.start(STEPS, str(gate), 60.0)
    wait_until(
        lambda: {"released", "parked"} & {event.kind for event in handle.events(follow=False)},
        description="the turn's end while the step runs",
        timeout=TIMEOUT,
    )
    gate.touch()
    assert handle.get(timeout=TIMEOUT) == "slept"
    assert [step.attempts for step in handle.steps()] == [1] * (STEPS + 1)


def test_one_is_ended_at_its_soft_limit(project: tuple[str, Any], tmp_path: Path) -> None:
    """The pool knows of the turn alone; other attempts have ended before in the child that interrupts its step."""
    pool, found = project
    if pool != "prefork":
        pytest.skip("a plain function in a thread goes on to its end")
    numbers = count()

    def is_ended_at_home() -> bool:
        marks = tmp_path / str(next(numbers))
        handle = found.hurried.start(STEPS, str(marks))
        home, told, last = handle.get(timeout=TIMEOUT)
        assert (told, last) == ("gave up", 2 * STEPS), "the fallback answered, and the run went on"
        assert [step.attempts for step in handle.steps()] == [1] * (STEPS + 2)
        (error,) = [event.fields["error"] for event in handle.events(follow=False) if event.kind == "fallback"]
        assert error.startswith("StepTimeout")
        (note,) = marks.read_text().splitlines()
        place, seconds = note.split()
        assert float(seconds) < 10.0
        return bool(int(place) == home)

    # It is the run's own step where those before it were short, which on a busy machine they need not be.
    wait_until(is_ended_at_home, description="a run whose own step ends at its soft limit", timeout=TIMEOUT)


def test_a_child_that_dies_by_a_step_is_not_its_agent_s_fault(project: tuple[str, Any], tmp_path: Path) -> None:
    pool, found = project
    if pool != "prefork":
        pytest.skip("a thread that kills, kills the worker")
    handle = found.fragile_run.start(STEPS, str(tmp_path / "killed"))
    assert handle.get(timeout=TIMEOUT) == STEPS
    assert [step.attempts for step in handle.steps()] == [1] * STEPS + [2]
    lost = [event.step_id for event in handle.events(follow=False) if event.kind == "lost"]
    assert len(lost) == 1
    assert lost[0] != handle.id


def test_short_calls_run_in_the_turn_s_own_thread(project: tuple[str, Any]) -> None:
    pool, found = project

    def places() -> list[str]:
        return list(found.in_place.start(STEPS, "", "", 60.0).get(timeout=TIMEOUT)[0])

    if pool == "threads":
        # One that hangs could not be ended there: each has a thread of its own.
        assert places() == ["other"] * STEPS
        return
    wait_until(lambda: places().count("main") > STEPS // 2, description="a run whose calls need no threads")


def begun(project: tuple[str, Any], folder: Path, *, patience: float = 60.0) -> tuple[Any, Path, int]:
    """A run that is in a call which is not short; the gate that ends it, and the process."""
    _, found = project
    gate, notes = folder / "gate", folder / "notes"
    handle = found.in_place.start(STEPS, str(gate), str(notes), patience)
    wait_until(lambda: notes.exists() and notes.read_text().endswith("\n"), description="the call", timeout=TIMEOUT)
    return handle, gate, int(notes.read_text().split()[1])


def test_a_call_that_turns_out_long_comes_to_its_end(project: tuple[str, Any], tmp_path: Path) -> None:
    handle, gate, _ = begun(project, tmp_path)
    gate.touch()
    assert handle.get(timeout=TIMEOUT)[1] == "through"
    assert len((tmp_path / "notes").read_text().splitlines()) == 1


def test_an_agent_may_give_such_a_call_up(project: tuple[str, Any], tmp_path: Path) -> None:
    handle, gate, _ = begun(project, tmp_path, patience=0.3)
    assert handle.get(timeout=TIMEOUT)[1] == "gave up", "and the file is not there"
    gate.touch()


def test_an_agent_is_cancelled_during_such_a_call(project: tuple[str, Any], tmp_path: Path) -> None:
    handle, gate, _ = begun(project, tmp_path)
    handle.cancel()
    wait_until(lambda: handle.status() == "cancelled", description="the cancelled run", timeout=TIMEOUT)
    gate.touch()


def test_a_call_that_swallows_its_process_s_end_has_no_answer(project: tuple[str, Any], tmp_path: Path) -> None:
    pool, _ = project
    if pool != "prefork":
        pytest.skip("a thread cannot be ended")
    handle, gate, pid = begun(project, tmp_path)
    os.kill(pid, signal.SIGTERM)
    wait_until(
        lambda: (tmp_path / "notes").read_text().count("started") == 2, description="the call again", timeout=TIMEOUT
    )
    gate.touch()
    assert handle.get(timeout=TIMEOUT)[1] == "through"
