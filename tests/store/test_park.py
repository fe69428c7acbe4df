"""Park: a waiting run holds nothing, and no wake falls between its last look and its rest."""

from __future__ import annotations

import pytest

from agentq.core.errors import StaleHolder
from agentq.store.refs import Holder
from tests.store.bench import Bench


@pytest.fixture
def run(bench: Bench) -> Holder:
    return bench.run_agent("run")


def test_a_parked_run_holds_nothing(bench: Bench, run: Holder) -> None:
    assert bench.store.park(run, seen=1, due_ms=None)
    assert bench.state("run") == "p"
    assert bench.client.exists(bench.keys.held("w1"), bench.keys.wake("run", "run")) == 0
    assert bench.take() == []


def test_an_input_that_came_before_the_park_is_seen_by_it(bench: Bench, run: Holder) -> None:
    bench.store.signal("run", "run", "unexpected", "1")
    assert not bench.store.park(run, seen=1, due_ms=None)
    assert bench.state("run") == "h"
    assert bench.store.park(run, seen=2, due_ms=None)


def test_a_repeat_is_answered_alike_even_after_the_wake(bench: Bench, run: Holder) -> None:
    assert bench.store.park(run, seen=1, due_ms=None, waits=["go"])
    assert bench.store.park(run, seen=1, due_ms=None, waits=["go"])
    bench.store.signal("run", "run", "go", "1")
    assert bench.store.park(run, seen=1, due_ms=None, waits=["go"])
    assert bench.take_one("w2").generation == 2


def test_a_stale_turn_cannot_park(bench: Bench, run: Holder) -> None:
    bench.kill("w1")
    with pytest.raises(StaleHolder):
        bench.store.park(run, seen=1, due_ms=None)
    bench.take_one("w2")
    with pytest.raises(StaleHolder):
        bench.store.park(run, seen=1, due_ms=None)


def test_a_wake_is_one_message_however_many_inputs_come(bench: Bench, run: Holder) -> None:
    bench.store.park(run, seen=1, due_ms=None, waits=["go"])
    for _ in range(5):
        bench.store.signal("run", "run", "go", "1")
    assert len(bench.lane()) == 1
    assert bench.kinds("run") == ["start"] + ["signal"] * 5


def test_the_message_that_wakes_is_the_one_that_was_taken(bench: Bench, run: Holder) -> None:
    bench.store.park(run, seen=1, due_ms=None, waits=["go"])
    bench.store.signal("run", "run", "go", "1")
    got = bench.take_one()
    assert got.message["body"] == "run"
    assert got.message["agentq"] == "run|run|2"


def test_a_wake_takes_the_runs_timer_with_it(bench: Bench, run: Holder) -> None:
    bench.store.park(run, seen=1, due_ms=bench.store.now_ms() + 60_000, waits=["go"])
    assert bench.client.zcard(bench.keys.of("due")) == 1
    bench.store.signal("run", "run", "go", "1")
    assert bench.client.zcard(bench.keys.of("due")) == 0
    bench.store.park(bench.take_one().holder, seen=2, due_ms=None)
    assert bench.tick().due == 0


def test_a_timer_that_is_due_at_the_park_wakes_at_the_next_tick(bench: Bench, run: Holder) -> None:
    bench.store.park(run, seen=1, due_ms=bench.store.now_ms() - 1)
    assert bench.tick().due == 1
    assert bench.kinds("run") == ["start", "tick"]


def test_generations_only_grow_over_many_turns(bench: Bench, run: Holder) -> None:
    holder, seen = run, []
    for turn in range(5):
        bench.store.park(holder, seen=turn + 1, due_ms=None, waits=["go"])
        bench.store.signal("run", "run", "go", "1")
        got = bench.take_one()
        seen.append(got.generation)
        holder = got.holder
    assert seen == [2, 3, 4, 5, 6]


def test_a_parked_run_shows_as_parked(bench: Bench, run: Holder) -> None:
    bench.store.park(run, seen=1, due_ms=None)
    summary = bench.store.run("run")
    assert summary is not None
    assert summary.status == "parked"
    assert bench.events("run") == ["queued", "started", "parked"]


def test_a_dead_workers_turn_that_parked_in_time_stays_parked(bench: Bench, run: Holder) -> None:
    bench.store.park(run, seen=1, due_ms=None)
    bench.kill("w1")
    assert bench.state("run") == "p"


class TestRest:
    """After a costly replay the inputs of a while share the next one."""

    @pytest.fixture(autouse=True)
    def resting(self, bench: Bench, run: Holder) -> None:
        assert bench.store.park(run, seen=1, due_ms=None, waits=["go"], rest_ms=3_600_000)

    def test_inputs_wait_for_its_end_and_wake_once(self, bench: Bench) -> None:
        for number in range(5):
            bench.store.signal("run", "run", "go", str(number))
        assert (bench.state("run"), bench.take()) == ("p", [])
        bench.fire_timers()
        assert bench.take_one("w2").holder.id == "run"
        assert bench.kinds("run") == ["start", *["signal"] * 5]
        assert bench.record("run").keys().isdisjoint({"hb", "hw", "sw"})

    def test_a_cancel_wakes_at_once(self, bench: Bench) -> None:
        bench.store.signal("run", "run", "go", "1")
        bench.store.cancel("run", "run", "x")
        assert bench.take_one("w2").holder.id == "run"
        assert bench.client.zcard(bench.keys.of("due")) == 0

    def test_it_ends_by_itself(self, bench: Bench) -> None:
        bench.client.hset(bench.keys.step("run", "run"), "hb", 1)
        bench.store.signal("run", "run", "go", "1")
        assert bench.state("run") == "q"

    def test_the_next_park_knows_nothing_of_it(self, bench: Bench) -> None:
        bench.store.cancel("run", "run", "x")
        assert bench.store.park(bench.take_one("w2").holder, seen=2, due_ms=None, waits=["go"])
        bench.store.signal("run", "run", "go", "1")
        assert bench.state("run") == "q"

    def test_a_timer_waits_too_and_is_no_other_wake(self, bench: Bench) -> None:
        bench.store.cancel("run", "run", "x")
        turn = bench.take_one("w2").holder
        soon = bench.store.now_ms()
        assert bench.store.park(turn, seen=2, due_ms=soon, rest_ms=3_600_000)
        assert bench.tick().due == 1
        assert bench.state("run") == "p"
        bench.fire_timers()
        assert bench.kinds("run") == ["start", "cancel", "tick"]
        assert bench.state("run") == "q"
