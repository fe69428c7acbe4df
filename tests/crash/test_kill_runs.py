"""Workers' trees are SIGKILLed in the middle of runs, which end as undisturbed ones do."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from celery import chain, chord

from agentq import AgentqError
from tests.kit.field import Field, shape_of
from tests.kit.library import lines, wait_for_lines
from tests.kit.waiting import wait_until

TIMEOUT = 120.0


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
    for seen in sorted(field.rng.sample(range(1, 180), 3)):
        wait_for_lines(started, seen)
        field.replace_one()
    assert handle.get(timeout=TIMEOUT) == list(range(1, size + 1))
    assert shape_of(handle) == shape_of(undisturbed)


def test_a_loop_of_local_calls_survives(field: Field) -> None:
    length = 60
    started = field.path("started")
    handle = field.flows.local_loop.start(str(started), length, 0.05)
    for seen in (10, 30, 50):
        wait_for_lines(started, seen)
        field.replace_one()
    assert handle.get(timeout=TIMEOUT) == length
    attempts = Counter(lines(started))
    assert set(attempts) == {str(n) for n in range(length)}
    assert sum(attempts.values()) <= length + 2 * 3, "committed local calls are not made again"


def test_signals_survive(field: Field) -> None:
    count = 30
    handle = field.flows.collect.start(count)
    for number in range(count):
        if number in (7, 15, 23):
            field.replace_one()
        handle.signal("number", number)
    assert handle.get(timeout=TIMEOUT) == list(range(count))


def test_an_early_signal_is_kept_without_any_worker(empty_field: Field) -> None:
    handle = empty_field.flows.collect.start(2)
    handle.signal("number", 1)
    handle.signal("number", 2)
    empty_field.start_workers(1)
    assert handle.get(timeout=TIMEOUT) == [1, 2]


def test_a_question_survives(empty_field: Field) -> None:
    empty_field.start_workers(1)
    handle = empty_field.flows.approve.start(600.0)
    ask = wait_until(lambda: empty_field.app.asks.list(run_id=handle.id), description="the question is asked")[0]
    wait_until(lambda: handle.status() == "parked", description="the run is parked")
    empty_field.kill_one()
    assert empty_field.app.asks.answer(ask.ask_id, True)
    empty_field.start_workers(1)
    assert handle.get(timeout=TIMEOUT) is True


def test_signals_survive_continue_as_new(field: Field) -> None:
    count, chunk = 600, 50
    handle = field.flows.tally.start(0, 0, count, chunk)
    for number in range(count):
        if number in (150, 300, 450):
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


def test_a_run_is_cancelled_while_no_worker_lives(empty_field: Field) -> None:
    started = empty_field.path("started")
    empty_field.start_workers(1)
    handle = empty_field.flows.chain_of.start(str(started), 100, 0.1)
    wait_for_lines(started, 2)
    empty_field.kill_one()
    handle.cancel("nobody waits for it")
    empty_field.start_workers(1)
    with pytest.raises(AgentqError, match="cancel"):
        handle.get(timeout=TIMEOUT)
    assert handle.status() == "cancelled"
    assert len(lines(started)) < 100


def test_a_killed_step_starts_again_within_seconds(field: Field) -> None:
    started, gate = field.path("started"), field.path("gate")
    result = field.flows.gated.delay(str(gate), str(started), 7)
    wait_for_lines(started, 1)
    holder = next(w for w in field.fleet.workers if f"{result.id}] received" in w.log())
    holder.kill_tree()
    wait_for_lines(started, 2, timeout=10)
    gate.touch()
    assert result.get(timeout=TIMEOUT) == 70


def test_a_slow_step_of_a_live_worker_runs_once(field: Field) -> None:
    """Longer than two leases, with an idle worker beside it."""
    started = field.path("started")
    assert field.flows.slow.delay(1, str(started), 7.0).get(timeout=TIMEOUT) == 2
    assert lines(started) == ["1"]


def test_children_survive(field: Field) -> None:
    handle = field.flows.parent.start(6)
    field.replace_one()
    assert handle.get(timeout=TIMEOUT) == [n * (n - 1) for n in range(6)]


def test_a_sleep_survives(empty_field: Field) -> None:
    empty_field.start_workers(1)
    handle = empty_field.flows.nap.start(2.0)
    wait_until(lambda: handle.status() == "parked", description="the run is parked")
    empty_field.kill_one()
    empty_field.start_workers(1)
    assert handle.get(timeout=TIMEOUT) >= 2.0


def test_a_killed_child_process_loses_nothing(empty_field: Field) -> None:
    (worker,) = empty_field.start_workers(1)
    started = empty_field.path("started")
    handle = empty_field.flows.chain_of.start(str(started), 6, 0.3)
    wait_for_lines(started, 2)
    for pid in worker.children():
        os.kill(pid, signal.SIGKILL)
    assert handle.get(timeout=TIMEOUT) == 6


def test_a_killed_main_process_loses_nothing(empty_field: Field) -> None:
    first, _ = empty_field.start_workers(2)
    started = empty_field.path("started")
    handle = empty_field.flows.chain_of.start(str(started), 6, 0.3)
    wait_for_lines(started, 2)
    first.kill_main()
    assert handle.get(timeout=TIMEOUT) == 6


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


def test_a_warm_stop_hands_back_and_loses_nothing(empty_field: Field) -> None:
    first, _ = empty_field.start_workers(2)
    started = empty_field.path("started")
    handle = empty_field.flows.slow_fan.start(str(started), 40, 0.1)
    wait_for_lines(started, 5)
    first.terminate()
    assert handle.get(timeout=TIMEOUT) == list(range(1, 41))
    assert len(lines(started)) == 40, "a warm stop interrupts nothing"
