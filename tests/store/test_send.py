"""Send: what a turn asks for and has done, in one instant, by the holder alone."""

from __future__ import annotations

import json

import pytest

from agentq.core.errors import StaleHolder
from agentq.store.refs import Holder
from tests.store.bench import TREE, Bench

ASK = '{"k":"ask","id":"c","key":"k","kind":"call","name":"read","after":1}'


@pytest.fixture
def run(bench: Bench) -> Holder:
    return bench.run_agent("run")


def test_asks_records_and_messages_are_there_together(bench: Bench, run: Holder) -> None:
    child = bench.step("c", root="run", parent="run", ask="c")
    tail = bench.store.send(run, token="t", seen=1, asks=[ASK], offers=[child])
    assert [json.loads(entry)["k"] for entry in tail] == ["ask"]
    assert bench.state("c", "run") == "q"
    assert bench.take_one("w2").holder.id == "c"


def test_a_repeat_writes_once_and_is_answered_with_what_came_since(bench: Bench, run: Holder) -> None:
    child = bench.step("c", root="run", parent="run", ask="c")
    everything = {
        "asks": [ASK],
        "offers": [child],
        "results": ['{"k":"result","id":"l","s":"ok","v":[]}'],
        "events": ['{"e":"emit","r":"run"}'],
        "tick": True,
        "usage": {"tokens": 7},
    }
    first = bench.store.send(run, token="t", seen=1, **everything)  # type: ignore[arg-type]
    bench.store.signal("run", "run", "go", "1")
    again = bench.store.send(run, token="t", seen=1, **everything)  # type: ignore[arg-type]
    assert again[: len(first)] == first
    assert bench.kinds("run") == ["start", "ask", "result", "tick", "signal"]
    assert bench.store.tree("run")["n_tokens"] == 7
    assert bench.events("run").count("emit") == 1
    assert len(bench.lane()) == 1


def test_inputs_carry_the_servers_time_and_their_value_unchanged(bench: Bench, run: Holder) -> None:
    values = ["[]", "{}", "null", "1e300", "123456789012345678", '{"a":[],"b":{}}', '"\\u0000\\u2028"', "0.1"]
    results = [f'{{"k":"result","id":"l","s":"ok","v":{value}}}' for value in values]
    tail = bench.store.send(run, token="t", seen=1, results=results)
    for line, value in zip(tail, values, strict=True):
        assert line.decode().endswith(f'"v":{value}}}')
        assert isinstance(json.loads(line)["t"], int)


def test_an_empty_send_reads_the_tail(bench: Bench, run: Holder) -> None:
    bench.store.signal("run", "run", "go", "1")
    assert [json.loads(entry)["k"] for entry in bench.store.send(run, token="t", seen=1)] == ["signal"]
    assert bench.store.send(run, token="u", seen=2) == []


class TestStale:
    def refused(self, bench: Bench, run: Holder) -> None:
        before = bench.log("run")
        child = bench.step("c", root="run", parent="run", ask="c")
        with pytest.raises(StaleHolder):
            bench.store.send(
                run, token="t", seen=1, asks=[ASK], offers=[child], events=['{"e":"x"}'], usage={"tokens": 1}
            )
        assert bench.log("run") == before
        assert bench.state("c", "run") is None
        assert "n_tokens" not in bench.store.tree("run")

    def test_a_turn_that_was_given_up_sends_nothing(self, bench: Bench, run: Holder) -> None:
        bench.kill("w1")
        self.refused(bench, run)

    def test_a_turn_whose_successor_runs_sends_nothing(self, bench: Bench, run: Holder) -> None:
        bench.kill("w1")
        bench.take_one("w2")
        self.refused(bench, run)

    def test_a_worker_marked_dead_sends_nothing_even_before_its_release(self, bench: Bench, run: Holder) -> None:
        bench.client.set(bench.keys.of("dead", "w1"), 1, px=60_000)
        self.refused(bench, run)

    def test_a_parked_turn_sends_nothing(self, bench: Bench, run: Holder) -> None:
        bench.store.park(run, seen=1, due_ms=None)
        self.refused(bench, run)

    def test_a_finished_run_sends_nothing(self, bench: Bench, run: Holder) -> None:
        bench.finish(run)
        self.refused(bench, run)


class TestBudget:
    def test_a_step_over_the_limit_is_refused_by_an_input(self, bench: Bench) -> None:
        poor = bench.run_agent("poor", budget={"steps": 1})
        offers = [bench.step(name, root="poor", parent="poor", ask=name, accounts=TREE) for name in ("c1", "c2")]
        bench.store.send(poor, token="t", seen=1, offers=offers)
        assert [message["body"] for message in bench.lane()] == ["c1"]
        refused = bench.log("poor")[-1]
        assert (refused["id"], refused["s"], refused["v"]["code"]) == ("c2", "error", "budget_exceeded")
        assert bench.store.tree("poor")["n_steps"] == 1

    def test_what_stands_already_is_not_refused_afterwards(self, bench: Bench) -> None:
        poor = bench.run_agent("poor", budget={"steps": 1})
        child = bench.step("c1", root="poor", parent="poor", ask="c1", accounts=TREE)
        bench.store.send(poor, token="t", seen=1, offers=[child])
        bench.store.send(poor, token="u", seen=1, offers=[child])
        assert bench.kinds("poor") == ["start"]

    @pytest.mark.parametrize(
        ("limit", "shown", "amount"), [("tokens", "tokens", "100"), ("usd_micro", "usd", "0.000100")]
    )
    def test_spending_counts_over_the_whole_tree(self, bench: Bench, limit: str, shown: str, amount: str) -> None:
        poor = bench.run_agent("poor", budget={limit: 100})
        child = bench.agent("sub", root="poor", parent="poor", ask="sub")
        bench.store.send(poor, token="t", seen=1, offers=[child])
        sub = bench.take_one("w2").holder
        bench.store.send(sub, token="t", seen=1, usage={limit: 100})
        bench.store.send(
            sub, token="u", seen=1, offers=[bench.step("c", root="poor", parent="sub", ask="c", accounts=TREE)]
        )
        assert bench.log("sub", "poor")[-1]["v"]["fields"] == {
            "limit_name": shown,
            "limit": amount,
            "used": amount,
        }

    def test_time_counts_from_the_start(self, bench: Bench) -> None:
        poor = bench.run_agent("poor", budget={"wall_ms": 60_000})
        bench.client.hset(bench.keys.tree("poor"), "born", bench.store.now_ms() - 61_000)
        bench.store.send(
            poor, token="t", seen=1, offers=[bench.step("c", root="poor", parent="poor", ask="c", accounts=TREE)]
        )
        assert bench.log("poor")[-1]["v"]["fields"]["limit_name"] == "wall"

    def test_parts_of_a_canvas_are_not_cut_in_the_middle(self, bench: Bench) -> None:
        poor = bench.run_agent("poor", budget={"steps": 1})
        plain = bench.step("p", kind="plain", message='{"body":"p"}')
        bench.store.send(
            poor,
            token="t",
            seen=1,
            offers=[*(bench.step(f"s{at}", root="poor", accounts=TREE) for at in range(3)), plain],
        )
        assert len(bench.lane()) == 4
        assert bench.store.tree("poor")["n_steps"] == 1
        # Whoever takes the others hears of it, and asks before it runs them.
        reply = bench.take_reply("w2", slots=4)
        assert [taken.over_budget for taken in reply.taken] == [False, True, True, False]
        bench.store.drop("w2", reply.taken[-1].take)


class TestQuestions:
    def test_a_question_is_listed_until_it_is_answered(self, bench: Bench, run: Holder) -> None:
        card = json.dumps({"id": "a1", "run": "run", "q": 'Publish "it"?\n', "schema": {"enum": [], "type": "boolean"}})
        for token in ("t", "t", "u"):
            bench.store.send(run, token=token, seen=1, questions=[card])
        (ask,) = bench.store.asks()
        assert (ask.question, ask.answer_schema) == ('Publish "it"?\n', {"enum": [], "type": "boolean"})
        assert bench.events("run").count("asked") == 1
        assert bench.store.answer("run", "a1", "true", by="ann") == ("new", "true")
        assert bench.store.asks() == []

    def test_a_question_may_be_closed(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, questions=['{"id":"a1","run":"run","q":"?"}'])
        bench.store.send(run, token="u", seen=1, closes=["a1", "unknown"])
        assert bench.store.asks() == []
        assert bench.store.answer("run", "a1", "true", by="ann") == ("ended", None)


class TestCalledOff:
    def test_a_child_run_hears_of_it_once(self, bench: Bench, run: Holder) -> None:
        child = bench.agent("sub", root="run", parent="run", ask="sub")
        bench.store.send(run, token="t", seen=1, offers=[child])
        for token in ("u", "v"):
            bench.store.send(run, token=token, seen=1, cancels=["sub"])
        assert bench.kinds("sub", "run") == ["start", "cancel"]

    def test_a_step_is_flagged_when_it_is_taken(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, offers=[bench.step("c", root="run", parent="run", ask="c")])
        bench.store.send(run, token="u", seen=1, cancels=["c"])
        assert bench.take_one("w2").cancelled
