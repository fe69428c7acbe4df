"""Workers' trees are SIGKILLed in the middle of runs, which end as undisturbed ones do."""

from __future__ import annotations

import os
import signal
from collections import Counter
from functools import partial
from typing import Any

import psutil
import pytest
from celery import chain, chord

from agentq import AgentqError
from tests.kit.field import Field, shape_of
from tests.kit.process import has_ended
from tests.kit.sample import lines, wait_for_lines
from tests.kit.waiting import wait_until

TIMEOUT = 120.0


def has_parked(handle: Any) -> bool:
    """Return whether a run waits, or has done so: one that sleeps may be awake again before anybody has looked."""
    return any(event.kind == "parked" for event in handle.events(follow=False))


def test_a_chain_of_steps_survives(field: Field) -> None:
    length = 8
    undisturbed = field.flows.chain_of.start(str(field.path("calm")), length, 0.0)
    assert undisturbed.get(timeout=TIMEOUT) == length

    started = field.path("started")
    handle = field.flows.chain_of.start(str(started), length, 0.3)
    for seen in (2, 5):
        wait_for_lines(started, seen)
        field.replace_one()
    assert handle.get(timeout=TIMEOUT) == length
    assert shape_of(handle) == shape_of(undisturbed)
    attempts = Counter(lines(started))
    assert set(attempts) == {str(n) for n in range(length)}
    assert sum(attempts.values()) <= length + 2, "only what was killed in the middle runs again"


def test_a_canvas_chain_survives(field: Field) -> None:
    started, slow = field.path("started"), field.flows.slow
    rest = [slow.s(str(started), 0.3) for _ in range(5)]
    result = chain(slow.s(0, str(started), 0.3), *rest).apply_async()
    for seen in (2, 4):
        wait_for_lines(started, seen)
        field.replace_one()
    assert result.get(timeout=TIMEOUT) == 6


def test_a_canvas_chord_survives(field: Field) -> None:
    started, slow, total = field.path("started"), field.flows.slow, field.flows.total
    result = chord([slow.s(n, str(started), 0.1) for n in range(30)], total.s()).apply_async()
    for seen in (5, 15):
        wait_for_lines(started, seen)
        field.replace_one()
    assert result.get(timeout=TIMEOUT) == sum(range(1, 31))


def test_a_map_of_200_survives(field: Field) -> None:
    size = 200
    undisturbed = field.flows.slow_fan.start(str(field.path("calm")), size, 0.0)
    assert undisturbed.get(timeout=TIMEOUT) == list(range(1, size + 1))

    started = field.path("started")
    handle = field.flows.slow_fan.start(str(started), size, 0.05)
    for seen in sorted(field.rng.sample(range(1, 180), 2)):
        wait_for_lines(started, seen)
        field.replace_one()
    assert handle.get(timeout=TIMEOUT) == list(range(1, size + 1))
    assert shape_of(handle) == shape_of(undisturbed)


def test_a_loop_of_local_calls_survives(field: Field) -> None:
    length = 60
    started = field.path("started")
    handle = field.flows.local_loop.start(str(started), length, 0.05)
    for seen in (15, 40):
        wait_for_lines(started, seen)
        field.replace_one()
    assert handle.get(timeout=TIMEOUT) == length
    attempts = Counter(lines(started))
    assert set(attempts) == {str(n) for n in range(length)}
    assert sum(attempts.values()) <= length + 2 * 2, "committed local calls are not made again"


def test_signals_survive(field: Field) -> None:
    count = 30
    handle = field.flows.collect.start(count)
    for number in range(count):
        if number in (8, 20):
            field.replace_one()
        handle.signal("number", number)
    assert handle.get(timeout=TIMEOUT) == list(range(count))


def test_runs_outlive_their_last_worker(empty_field: Field) -> None:
    """Signals, an answer, a cancel and time itself reach runs that no worker serves."""
    flows, started = empty_field.flows, empty_field.path("started")
    early = flows.collect.start(2)
    early.signal("number", 1)
    empty_field.start_workers(1)
    asking, sleeping = flows.approve.start(600.0), flows.nap.start(1.0)
    cancelled = flows.chain_of.start(str(started), 100, 0.1)
    wait_for_lines(started, 2)
    for handle in (early, asking, sleeping):
        wait_until(partial(has_parked, handle), description=f"{handle!r} is parked")
    ask = wait_until(lambda: empty_field.app.asks.list(run_id=asking.id), description="the question is asked")[0]
    empty_field.kill_one()

    early.signal("number", 2)
    assert empty_field.app.asks.answer(ask.ask_id, True)
    cancelled.cancel("nobody waits for it")
    empty_field.start_workers(1)
    assert early.get(timeout=TIMEOUT) == [1, 2]
    assert asking.get(timeout=TIMEOUT) is True
    assert sleeping.get(timeout=TIMEOUT) >= 1.0
    with pytest.raises(AgentqError, match="cancel"):
        cancelled.get(timeout=TIMEOUT)
    assert cancelled.status() == "cancelled"
    assert len(lines(started)) < 100


def test_signals_survive_continue_as_new(field: Field) -> None:
    count, chunk = 600, 50
    handle = field.flows.tally.start(0, 0, count, chunk)
    for number in range(count):
        if number == 300:
            field.replace_one()
        handle.signal("number", number, id=f"n{number}")
        assert handle.signal("number", number, id=f"n{number}") is False, "said twice, heard once"
    assert handle.get(timeout=TIMEOUT) == sum(range(count))


def test_undo_survives(field: Field) -> None:
    path, count = field.path("promises"), 5
    handle = field.flows.breaks_promises.start(str(path), count)
    wait_for_lines(path, count + 2)
    field.replace_one()
    with pytest.raises(AgentqError, match="after all promises"):
        handle.get(timeout=TIMEOUT)
    undone = [line.split()[1] for line in lines(path) if line.startswith("retracted")]
    assert list(dict.fromkeys(undone)) == ["4", "3", "2", "1", "0"], "in reverse, none left out"
    assert len(undone) <= count + 1, "only what was killed in the middle is undone again"
    assert handle.status() == "failed"


def test_a_slow_step_of_a_live_worker_runs_once(field: Field) -> None:
    """Longer than a lease, with an idle worker beside it; the keeper's long tests have a minute."""
    started = field.path("started")
    assert field.flows.slow.delay(1, str(started), 4.0).get(timeout=TIMEOUT) == 2
    assert lines(started) == ["1"]


def test_children_survive(field: Field) -> None:
    handle = field.flows.parent.start(6)
    field.replace_one()
    assert handle.get(timeout=TIMEOUT) == [n * (n - 1) for n in range(6)]


def test_killed_children_lose_nothing(field: Field) -> None:
    started = field.path("started")
    handle = field.flows.chain_of.start(str(started), 6, 0.3)
    wait_for_lines(started, 2)
    for worker in field.fleet.workers:
        for pid in worker.children():
            os.kill(pid, signal.SIGKILL)
    assert handle.get(timeout=TIMEOUT) == 6


def test_a_killed_main_process_loses_nothing(field: Field) -> None:
    """Its children must end with it, or a step would run twice at once."""
    started = field.path("started")
    handle = field.flows.chain_of.start(str(started), 6, 0.3)
    wait_for_lines(started, 2)
    victim = field.fleet.choose(field.rng)
    children = [psutil.Process(pid) for pid in victim.children()]
    victim.kill_main()
    assert handle.get(timeout=TIMEOUT) == 6
    wait_until(lambda: all(has_ended(child) for child in children), description="the children have ended")


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_survive_too(empty_field: Field, pool: str) -> None:
    empty_field.start_workers(2, pool=pool, concurrency=2 if pool == "threads" else 1)
    started = empty_field.path("started")
    handle = empty_field.flows.chain_of.start(str(started), 6, 0.2)
    wait_for_lines(started, 2)
    empty_field.kill_one()
    assert handle.get(timeout=TIMEOUT) == 6


def test_a_stopped_worker_wakes_as_a_zombie_and_changes_nothing(empty_field: Field) -> None:
    """A machine stands still longer than its lease: its successor commits, its own late commit fails."""
    (zombie,) = empty_field.start_workers(1)
    started, gate = empty_field.path("started"), empty_field.path("gate")
    result = empty_field.flows.gated.delay(str(gate), str(started), 7)
    wait_for_lines(started, 1)
    zombie.pause()
    empty_field.start_workers(1)
    wait_for_lines(started, 2)
    gate.touch()
    assert result.get(timeout=TIMEOUT) == 70
    before = empty_field.server.client.get(f"celery-task-meta-{result.id}")
    zombie.resume()
    follow_up = [empty_field.flows.double.delay(n) for n in range(4)]
    assert [r.get(timeout=TIMEOUT) for r in follow_up] == [0, 2, 4, 6]
    assert empty_field.server.client.get(f"celery-task-meta-{result.id}") == before


def test_a_warm_stop_hands_back_and_loses_nothing(field: Field) -> None:
    started = field.path("started")
    handle = field.flows.slow_fan.start(str(started), 40, 0.1)
    wait_for_lines(started, 5)
    leaver = field.fleet.choose(field.rng)
    leaver.terminate()
    assert leaver.returncode == 0
    assert handle.get(timeout=TIMEOUT) == list(range(1, 41))
    assert len(lines(started)) == 40, "a warm stop interrupts nothing"
