"""Journal: what local calls came to stands in the log as a send would have written it, by the holder alone."""

from __future__ import annotations

import json

import pytest

from agentq.core.errors import StaleHolder
from agentq.store.refs import Holder
from tests.store.bench import Bench

ASK = '{"k":"ask","id":"l","key":"k","kind":"local","name":"read","after":1}'
RESULT = '{"k":"result","id":"l","s":"ok","v":[{}]}'


@pytest.fixture
def run(bench: Bench) -> Holder:
    return bench.run_agent("run")


def test_it_writes_what_a_send_would(bench: Bench, run: Holder) -> None:
    other = bench.run_agent("other")
    before = bench.store.now_ms()
    written = bench.store.journal(run, seen=1, asks=[ASK], results=[RESULT])
    assert isinstance(written, int)
    assert before <= written <= bench.store.now_ms()
    bench.store.send(other, token="t", seen=1, asks=[ASK], results=[RESULT])
    ask, result = bench.log("run")[1:]
    assert result.pop("t") == written
    sent = bench.log("other")[1:]
    sent[1].pop("t")
    assert [ask, result] == sent
    # Lua would make other values of these.
    assert bench.store.read_log("run", "run", 2)[0].endswith(b'"v":[{}]}')


def test_a_log_that_has_grown_is_told_of(bench: Bench, run: Holder) -> None:
    bench.store.signal("run", "run", "go", "1")
    tail = bench.store.journal(run, seen=1, asks=[ASK], results=[RESULT])
    assert isinstance(tail, list)
    assert [json.loads(entry)["k"] for entry in tail] == ["signal", "ask", "result"]


def test_a_repeat_writes_once_and_is_answered_with_the_log(bench: Bench, run: Holder) -> None:
    bench.store.journal(run, seen=1, asks=[ASK], results=[RESULT])
    again = bench.store.journal(run, seen=1, asks=[ASK], results=[RESULT])
    assert isinstance(again, list)
    assert [json.loads(entry)["k"] for entry in again] == ["ask", "result"]
    assert bench.kinds("run") == ["start", "ask", "result"]


@pytest.mark.parametrize("asks", [[ASK], []], ids=["with its ask", "alone"])
def test_a_repeat_is_known_also_behind_what_came_meanwhile(bench: Bench, run: Holder, asks: list[str]) -> None:
    """Its reply was lost, and others have written since; or before it, so that it was told of more."""
    bench.store.signal("run", "run", "go", "1")
    first = bench.store.journal(run, seen=1, asks=asks, results=[RESULT])
    bench.store.signal("run", "run", "go", "2")
    again = bench.store.journal(run, seen=1, asks=asks, results=[RESULT])
    assert isinstance(first, list)
    assert isinstance(again, list)
    assert [json.loads(entry)["k"] for entry in again] == ["signal", *(["ask"] * len(asks)), "result", "signal"]
    assert again[:-1] == first


def test_the_next_call_of_a_turn_is_no_repeat(bench: Bench, run: Holder) -> None:
    bench.store.journal(run, seen=1, asks=[ASK], results=[RESULT])
    ask, result = ASK.replace('"id":"l"', '"id":"m"'), RESULT.replace('"id":"l"', '"id":"m"')
    bench.store.signal("run", "run", "go", "1")
    assert isinstance(bench.store.journal(run, seen=3, asks=[ask], results=[result]), list)
    assert bench.kinds("run") == ["start", "ask", "result", "signal", "ask", "result"]


def test_a_repeat_is_known_also_where_the_run_was_stopped_since(bench: Bench, run: Holder) -> None:
    bench.store.journal(run, seen=1, asks=[ASK], results=[RESULT])
    bench.store.stop("run", "run", "enough", rule="by hand")
    assert isinstance(bench.store.journal(run, seen=1, asks=[ASK], results=[RESULT]), list)
    assert bench.kinds("run").count("result") == 1


def test_a_result_ends_the_count_of_deaths(bench: Bench, run: Holder) -> None:
    bench.client.hset(bench.keys.step("run", "run"), "d", 2)
    bench.store.journal(run, seen=1, asks=[ASK], results=[RESULT])
    assert bench.client.hget(bench.keys.step("run", "run"), "d") == b"0"


def test_where_something_was_called_off_or_stands_still_it_is_left_to_send(bench: Bench, run: Holder) -> None:
    bench.store.stop("run", "run", "enough", rule="by hand")
    assert bench.store.journal(run, seen=1, asks=[ASK], results=[RESULT]) is None
    assert bench.kinds("run") == ["start"]


class TestStale:
    def refused(self, bench: Bench, run: Holder) -> None:
        before = bench.log("run")
        with pytest.raises(StaleHolder):
            bench.store.journal(run, seen=1, asks=[ASK], results=[RESULT])
        assert bench.log("run") == before

    def test_a_turn_whose_successor_runs_writes_nothing(self, bench: Bench, run: Holder) -> None:
        bench.kill("w1")
        bench.take_one("w2")
        self.refused(bench, run)

    def test_a_worker_marked_dead_writes_nothing_even_before_its_release(self, bench: Bench, run: Holder) -> None:
        bench.client.set(bench.keys.of("dead", "w1"), 1, px=60_000)
        self.refused(bench, run)

    def test_a_parked_turn_writes_nothing(self, bench: Bench, run: Holder) -> None:
        bench.store.park(run, seen=1, due_ms=None)
        self.refused(bench, run)

    def test_a_finished_run_writes_nothing(self, bench: Bench, run: Holder) -> None:
        bench.finish(run)
        self.refused(bench, run)
