"""Append: signals, answers and cancels from outside are inputs once, early ones are kept."""

from __future__ import annotations

import json

import pytest

from agentq.store.refs import Holder
from tests.store.bench import Bench


@pytest.fixture
def run(bench: Bench) -> Holder:
    return bench.run_agent("run")


class TestSignals:
    def test_a_signal_before_the_first_turn_is_kept(self, bench: Bench) -> None:
        bench.store.offer([bench.agent("run")])
        assert bench.store.signal("run", "run", "go", '{"a":[]}') == "new"
        assert bench.log("run")[-1]["v"] == {"a": []}
        assert len(bench.lane()) == 1

    def test_the_same_id_is_an_input_once(self, bench: Bench, run: Holder) -> None:
        replies = [bench.store.signal("run", "run", "go", "1", signal_id="i") for _ in range(3)]
        assert replies == ["new", "known", "known"]
        assert bench.kinds("run") == ["start", "signal"]

    def test_a_repeated_call_is_answered_alike(self, bench: Bench, run: Holder) -> None:
        call = ("append", "signal", "run", "run", "token", "go", "1", "i")
        assert [bench.store.run_script(*call) for _ in range(3)] == [1, 1, 1]
        assert bench.kinds("run") == ["start", "signal"]

    def test_only_a_signal_that_is_waited_for_wakes(self, bench: Bench, run: Holder) -> None:
        bench.store.park(run, seen=1, due_ms=None, waits=["go", "stop"])
        bench.store.signal("run", "run", "other", "1")
        assert bench.state("run") == "p"
        bench.store.signal("run", "run", "stop", "1")
        assert bench.state("run") == "q"
        assert [entry.get("n") for entry in bench.log("run")] == [None, "other", "stop"]

    def test_a_run_that_waits_for_nothing_sleeps_on(self, bench: Bench, run: Holder) -> None:
        bench.store.park(run, seen=1, due_ms=None, waits=[])
        bench.store.signal("run", "run", "go", "1")
        assert bench.state("run") == "p"

    @pytest.mark.parametrize("name", ['a"b', "a\nb", "ü/漢", "\\", ""])
    def test_any_name_and_id_arrive_unchanged(self, bench: Bench, run: Holder, name: str) -> None:
        bench.store.park(run, seen=1, due_ms=None, waits=[name])
        bench.store.signal("run", "run", name, "null", signal_id=name)
        entry = bench.log("run")[-1]
        assert (entry["n"], entry["i"], entry["v"]) == (name, name, None)
        assert bench.state("run") == "q"

    def test_an_unknown_run_takes_none(self, bench: Bench) -> None:
        assert bench.store.signal("x", "x", "go", "1") == "unknown"
        assert bench.client.keys("*{x}*") == []

    def test_a_step_that_is_no_agent_takes_none(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s1")])
        assert bench.store.signal("s1", "s1", "go", "1") == "unknown"

    def test_a_run_that_has_ended_takes_none_but_knows_what_it_had(self, bench: Bench, run: Holder) -> None:
        bench.store.signal("run", "run", "go", "1", signal_id="i")
        bench.finish(run)
        assert bench.store.signal("run", "run", "go", "1", signal_id="i") == "known"
        assert bench.store.signal("run", "run", "go", "1", signal_id="j") == "ended"

    def test_a_running_turn_hears_its_bell(self, bench: Bench, run: Holder) -> None:
        bench.store.signal("run", "run", "go", "1")
        assert bench.store.wait_log("run", "run", 5)


class TestAnswers:
    @pytest.fixture(autouse=True)
    def asked(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, questions=['{"id":"a1","run":"run","q":"Publish?"}'])
        bench.store.park(run, seen=1, due_ms=None)

    def test_the_first_answer_stands_and_wakes(self, bench: Bench) -> None:
        assert bench.store.answer("run", "a1", "[]", by="ann") == ("new", "[]")
        assert bench.store.answer("run", "a1", "false", by="bob") == ("known", "[]")
        assert bench.log("run")[-1] == {**bench.log("run")[-1], "k": "answer", "id": "a1", "v": []}
        assert bench.kinds("run").count("answer") == 1
        assert bench.state("run") == "q"

    def test_a_repeated_call_is_answered_alike(self, bench: Bench) -> None:
        call = ("append", "answer", "run", "a1", "token", "true", "ann")
        assert [bench.store.run_script(*call) for _ in range(3)] == [[1, b"true"]] * 3
        assert bench.kinds("run").count("answer") == 1

    def test_an_unknown_ask_has_no_answer(self, bench: Bench) -> None:
        assert bench.store.answer("run", "zz", "true", by="ann") == ("unknown", None)

    def test_the_ask_of_a_run_that_was_ended_from_outside_is_closed(self, bench: Bench) -> None:
        bench.fire_timers()
        bench.store.cancel("run", "run", "x")
        bench.finish(bench.take_one().holder, status="FAILURE")
        assert bench.store.asks() == []
        assert bench.store.answer("run", "a1", "true", by="ann") == ("ended", None)

    def test_who_decided_is_in_the_history(self, bench: Bench) -> None:
        bench.store.answer("run", "a1", "true", by='ann "the" boss')
        (event,) = [event for event in bench.store.events("run") if event.kind == "answered"]
        assert event.fields["by"] == 'ann "the" boss'


class TestCancels:
    def test_a_parked_run_wakes_to_its_cancel(self, bench: Bench, run: Holder) -> None:
        bench.store.park(run, seen=1, due_ms=None)
        assert bench.store.cancel("run", "run", 'because "so"\n') == "new"
        assert bench.log("run")[-1]["why"] == 'because "so"\n'
        assert bench.state("run") == "q"

    def test_a_second_cancel_is_no_input(self, bench: Bench, run: Holder) -> None:
        assert [bench.store.cancel("run", "run", "x") for _ in range(2)] == ["new", "known"]
        assert bench.kinds("run") == ["start", "cancel"]

    def test_a_repeated_call_is_answered_alike_also_after_the_end(self, bench: Bench, run: Holder) -> None:
        call = ("append", "cancel", "run", "run", "token", json.dumps("x"))
        assert [bench.store.run_script(*call) for _ in range(2)] == [1, 1]
        bench.finish(run, status="REVOKED")
        assert bench.store.run_script(*call) == 1
        assert bench.store.cancel("run", "run", "x") == "ended"

    def test_an_unknown_run_cannot_be_cancelled(self, bench: Bench) -> None:
        assert bench.store.cancel("x", "x", "y") == "unknown"
        assert bench.client.keys("*{x}*") == []
