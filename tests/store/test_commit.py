"""Commit: one per step, by its holder, with everything that follows at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentq.core.errors import StaleHolder
from agentq.store.refs import Holder, Offer
from tests.store.bench import Bench, meta


def result(bench: Bench, task_id: str) -> Any:
    (found,) = bench.store.outcomes([task_id])
    return json.loads(found)["result"] if found is not None else None


@pytest.fixture
def held(bench: Bench) -> Holder:
    bench.store.offer([bench.step("s1")])
    return bench.take_one().holder


class TestOnce:
    def test_a_commit_ends_the_step(self, bench: Bench, held: Holder) -> None:
        bench.finish(held)
        record = bench.record("s1")
        assert (record["s"], record["o"]) == ("d", "SUCCESS")
        assert result(bench, "s1") == 1
        assert bench.client.hlen(bench.keys.held("w1")) == 0

    def test_a_repeat_is_answered_alike_and_changes_nothing(self, bench: Bench, held: Holder) -> None:
        onward = bench.step("s2", root="s1")
        for _ in range(3):
            bench.finish(held, offers=[onward], usage={"tokens": 5})
        assert bench.store.tree("s1")["n_tokens"] == 5
        assert len(bench.lane()) == 1

    def test_another_outcome_of_the_same_attempt_hears_that_it_lost(self, bench: Bench, held: Holder) -> None:
        bench.store.commit(held, mode="done", status="FAILURE", results=[("s1", meta("s1", status="FAILURE"))])
        with pytest.raises(StaleHolder):
            bench.finish(held)
        assert bench.record("s1")["o"] == "FAILURE"

    def test_an_attempt_that_was_given_up_cannot_commit(self, bench: Bench, held: Holder) -> None:
        bench.kill("w1")
        with pytest.raises(StaleHolder) as raised:
            bench.finish(held)
        assert raised.value.holder == "w1"
        second = bench.take_one("w2").holder
        with pytest.raises(StaleHolder) as raised:
            bench.finish(held)
        assert (raised.value.holder, raised.value.take) == ("w2", second.take)
        assert result(bench, "s1") is None
        bench.finish(second)

    def test_a_worker_marked_dead_whose_step_was_not_released_yet_may_commit(self, bench: Bench, held: Holder) -> None:
        bench.client.set(bench.keys.of("dead", "w1"), 1, px=60_000)
        bench.finish(held)
        assert bench.state("s1") == "d"

    def test_an_earlier_take_of_the_same_worker_cannot_commit(self, bench: Bench, held: Holder) -> None:
        bench.store.requeue("w1", held.take)
        bench.take_one()
        with pytest.raises(StaleHolder):
            bench.finish(held)

    def test_nobody_commits_what_was_never_offered(self, bench: Bench) -> None:
        with pytest.raises(StaleHolder):
            bench.finish(Holder("x", "x", "w1", 1))
        assert bench.client.keys("*x*") == []

    def test_an_outcome_is_written_once_even_as_a_side_result(self, bench: Bench, held: Holder) -> None:
        bench.store.offer([bench.step("s2", root="s1")])
        bench.finish(bench.take_one("w2").holder)
        failed = [("s1", meta("s1", status="FAILURE")), ("s2", meta("s2", status="FAILURE"))]
        bench.store.commit(held, mode="done", status="FAILURE", results=failed)
        assert json.loads(bench.store.outcomes(["s2"])[0] or b"")["status"] == "SUCCESS"


class TestAgain:
    def test_a_retry_is_the_next_generation(self, bench: Bench, held: Holder) -> None:
        bench.again(held)
        got = bench.take_one("w2")
        assert (got.holder.id, got.generation) == ("s1", 2)
        assert bench.store.tree("s1")["live"] == 1

    def test_a_retry_of_what_called_nothing_is_no_attempt(self, bench: Bench, held: Holder) -> None:
        for _ in range(2):
            bench.again(held, idle=True)
        assert bench.record("s1")["a"] == "0"
        second = bench.take_one("w2").holder
        bench.again(second)
        assert bench.record("s1")["a"] == "1"

    def test_a_delayed_retry_waits_among_the_timers(self, bench: Bench, held: Holder) -> None:
        bench.again(held, due_ms=bench.store.now_ms() + 60_000)
        assert bench.state("s1") == "l"
        assert bench.take() == []
        bench.fire_timers()
        assert bench.take_one().generation == 2

    def test_a_repeat_queues_it_once(self, bench: Bench, held: Holder) -> None:
        bench.again(held)
        bench.again(held)
        assert len(bench.lane()) == 1

    def test_the_last_error_is_shown_until_an_attempt_succeeds(self, bench: Bench, held: Holder) -> None:
        bench.again(held)
        assert bench.record("s1")["e"] == "ValueError: x"
        bench.finish(bench.take_one("w2").holder)
        assert "e" not in bench.record("s1")

    def test_a_retry_may_change_the_queue(self, bench: Bench, held: Holder) -> None:
        offer = bench.step("s1", queue="other", lane=0)
        bench.store.commit(held, mode="again", status="RETRY", offers=[offer])
        assert bench.take() == []
        assert bench.take_one(queues=["other"]).generation == 2

    def test_a_retry_without_its_next_message_is_refused(self, bench: Bench, held: Holder) -> None:
        for offers in ([], [bench.step("other")]):
            with pytest.raises(ValueError, match="next message"):
                bench.store.commit(held, mode="again", status="RETRY", offers=offers)

    def test_the_first_attempt_is_stale_from_then_on(self, bench: Bench, held: Holder) -> None:
        bench.again(held)
        with pytest.raises(StaleHolder):
            bench.finish(held)


class TestReplaced:
    def replace(self, bench: Bench, held: Holder, *offers: Offer) -> None:
        bench.store.commit(held, mode="replaced", status="RETRY", offers=list(offers))

    def test_the_successor_takes_over_the_id_under_the_next_generation(self, bench: Bench, held: Holder) -> None:
        self.replace(bench, held, bench.step("first", root="s1"))
        assert bench.state("s1") == "r"
        first = bench.take_one().holder
        bench.finish(first, offers=[bench.step("s1", name="second")])
        got = bench.take_one()
        assert (got.holder.id, got.generation) == ("s1", 2)
        assert bench.record("s1")["nm"] == "second"
        assert bench.store.tree("s1")["live"] == 1

    def test_a_successor_is_queued_once(self, bench: Bench, held: Holder) -> None:
        self.replace(bench, held)
        states = [bench.store.offer([bench.step("s1")])[0].state for _ in range(2)]
        assert states == ["new", "known"]

    def test_a_successor_that_is_an_agent_begins_a_log(self, bench: Bench, held: Holder) -> None:
        self.replace(bench, held)
        bench.store.offer([bench.agent("s1")])
        assert bench.kinds("s1") == ["start"]
        assert bench.take_one().holder.id == "s1"
        assert bench.store.signal("s1", "s1", "go", "1") == "new"

    def test_it_keeps_its_place_in_its_run(self, bench: Bench) -> None:
        holder = bench.run_agent("run")
        child = bench.step("s1", root="run", parent="run", ask="s1")
        bench.store.send(holder, token="t", seen=1, offers=[child])
        self.replace(bench, bench.take_one("w2").holder)
        bench.store.offer([bench.step("s1", root="run")])
        bench.finish(bench.take_one("w2").holder, entry='{"k":"result","id":"s1","s":"ok","v":2}')
        assert bench.log("run")[-1]["v"] == 2

    def test_a_chain_that_fails_before_it_carries_the_id_ends_the_replaced_step(self, bench: Bench) -> None:
        holder = bench.run_agent("run")
        child = bench.step("s1", root="run", parent="run", ask="s1")
        bench.store.send(holder, token="t", seen=1, offers=[child])
        self.replace(bench, bench.take_one("w2").holder, bench.step("first", root="run"))
        first = bench.take_one("w2").holder
        error = {"exc_type": "ValueError", "exc_message": ["no", "luck"], "exc_module": "builtins"}
        failed = [(name, meta(name, status="FAILURE", result=error)) for name in ("first", "s1")]
        bench.store.commit(first, mode="done", status="FAILURE", results=failed)
        assert bench.record("s1", "run")["o"] == "FAILURE"
        told = bench.log("run")[-1]
        assert (told["id"], told["s"]) == ("s1", "error")
        fields = {"step": "read", "step_id": "s1", "error_type": "ValueError", "message": "no luck", "details": None}
        assert told["v"] == {"code": "step_failed", "fields": fields}
        assert bench.store.tree("run")["live"] == 1

    def test_an_agent_that_the_failing_step_tells_by_itself_hears_once(self, bench: Bench) -> None:
        holder = bench.run_agent("run")
        child = bench.step("s1", root="run", parent="run", ask="s1")
        bench.store.send(holder, token="t", seen=1, offers=[child])
        self.replace(bench, bench.take_one("w2").holder, bench.step("first", root="run"))
        failed = [("s1", meta("s1", status="FAILURE"))]
        told = [("run", '{"k":"result","id":"s1","s":"error","v":{}}')]
        bench.store.commit(bench.take_one("w2").holder, mode="done", status="FAILURE", results=failed, tells=told)
        assert bench.kinds("run") == ["start", "result"]
        assert bench.state("s1", "run") == "d"


class TestAPlainTaskThatFailsInAChain:
    ENTRY = '{"k":"result","id":"canvas","s":"error","v":{}}'

    def test_the_agent_hears_once_and_wakes(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        bench.store.park(run, seen=1, due_ms=None)
        for _ in range(3):
            bench.store.fail_behind("run", [("later", meta("later", status="FAILURE"))], [("run", self.ENTRY)])
        assert bench.kinds("run") == ["start", "result"]
        assert bench.state("run") == "q"
        assert bench.store.outcomes(["later"]) == [None]

    def test_a_replaced_step_that_the_chain_was_to_end_has_failed(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        child = bench.step("s1", root="run", parent="run", ask="s1")
        bench.store.send(run, token="t", seen=1, offers=[child])
        bench.store.commit(bench.take_one("w2").holder, mode="replaced", status="RETRY")
        for _ in range(2):
            bench.store.fail_behind("run", [("s1", meta("s1", status="FAILURE"))], [])
        assert bench.record("s1", "run")["o"] == "FAILURE"
        assert bench.kinds("run") == ["start", "result"]
        assert bench.store.tree("run")["live"] == 1

    def test_a_run_that_has_ended_or_is_unknown_hears_nothing(self, bench: Bench) -> None:
        bench.finish(bench.run_agent("run"))
        bench.store.fail_behind("run", [], [("run", self.ENTRY)])
        bench.store.fail_behind("x", [("y", meta("y"))], [("x", self.ENTRY)])
        assert bench.kinds("run") == ["start"]
        assert bench.client.keys("*{x}*") == []


class TestWhatFollows:
    def test_onward_messages_go_out_with_the_outcome(self, bench: Bench, held: Holder) -> None:
        plain = bench.step("plain", kind="plain", message='{"body":"p"}')
        bench.finish(held, offers=[bench.step("s2", root="s1"), plain])
        assert bench.store.tree("s1")["live"] == 1
        bodies = [got.message["body"] for got in bench.take(slots=3)]
        assert bodies == ["s2", "p"]
        bench.store.drop("w1", 3)

    def test_the_parent_hears_once_and_wakes(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        child = bench.step("c", root="run", parent="run", ask="c")
        bench.store.send(run, token="t", seen=1, asks=['{"k":"ask","id":"c"}'], offers=[child])
        assert bench.store.park(run, seen=2, due_ms=None)
        step = bench.take_one("w2").holder
        for _ in range(2):
            bench.finish(step, entry='{"k":"result","id":"c","s":"ok","v":[]}')
        assert bench.kinds("run") == ["start", "ask", "result"]
        assert bench.take_one("w2").holder.id == "run"

    def test_a_running_parent_hears_its_bell(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        child = bench.step("c", root="run", parent="run", ask="c")
        bench.store.send(run, token="t", seen=1, offers=[child])
        bench.finish(bench.take_one("w2").holder, entry='{"k":"result","id":"c","s":"ok","v":1}')
        assert bench.store.wait_log("run", "run", 5)
        assert not bench.store.wait_log("run", "run", 0.001)

    def test_another_run_of_the_tree_may_be_told(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        bench.store.send(run, token="t", seen=1, offers=[bench.step("c", root="run")])
        told = [("run", '{"k":"result","id":"chain","s":"error","v":{}}')]
        bench.finish(bench.take_one("w2").holder, tells=told)
        assert bench.log("run")[-1]["id"] == "chain"

    def test_a_parent_that_has_ended_hears_nothing(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        child = bench.step("c", root="run", parent="run", ask="c")
        bench.store.send(run, token="t", seen=1, offers=[child])
        bench.finish(run)
        bench.finish(bench.take_one("w2").holder, entry='{"k":"result","id":"c","s":"ok","v":1}')
        assert bench.kinds("run") == ["start"]

    def test_a_missing_parent_leaves_no_log_behind(self, bench: Bench) -> None:
        bench.store.offer([bench.step("c", parent="ghost", ask="c")])
        bench.finish(bench.take_one().holder, entry='{"k":"result","id":"c","s":"ok","v":1}')
        assert bench.client.exists(bench.keys.log("c", "ghost")) == 0

    def test_an_agent_that_ends_closes_its_asks_and_calls_its_children_off(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        child = bench.agent("child", root="run", parent="run", ask="child")
        question = json.dumps({"id": "ask", "run": "run", "q": "Publish?"})
        bench.store.send(run, token="t", seen=1, offers=[child], questions=[question])
        assert [ask.question for ask in bench.store.asks()] == ["Publish?"]
        bench.finish(run, closes=["ask"], cancels=["child"])
        assert bench.store.asks() == []
        assert bench.log("child", "run")[-1]["k"] == "cancel"

    def test_usage_adds_up_over_the_tree(self, bench: Bench, held: Holder) -> None:
        bench.store.offer([bench.step("s2", root="s1")])
        bench.finish(bench.take_one("w2").holder, usage={"tokens": 3, "usd_micro": 10**12})
        bench.finish(held, usage={"tokens": 4, "usd_micro": 10**12})
        tree = bench.store.tree("s1")
        assert (tree["n_tokens"], tree["n_usd_micro"]) == (7, 2 * 10**12)

    def test_results_of_tasks_without_a_record_have_an_end(self, bench: Bench, held: Holder) -> None:
        bench.finish(held, results=[("s1", meta("s1")), ("later", meta("later", status="FAILURE"))])
        assert bench.client.pttl(bench.keys.result("later")) > 0

    def test_a_commit_ends_the_count_of_deaths(self, bench: Bench, held: Holder) -> None:
        bench.kill("w1")
        again = bench.take_one("w2").holder
        assert bench.record("s1")["d"] == "1"
        bench.again(again)
        assert bench.record("s1")["d"] == "0"

    def test_listeners_are_told(self, bench: Bench, held: Holder) -> None:
        with bench.client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(bench.keys.result("s1"))
            channel.get_message(timeout=30)
            bench.finish(held)
            message = channel.get_message(timeout=30)
        assert message is not None
        assert json.loads(message["data"])["status"] == "SUCCESS"

    def test_progress_is_written_by_the_holder_alone(self, bench: Bench, held: Holder) -> None:
        assert bench.store.progress(held, meta("s1", status="PROGRESS", result=50))
        assert result(bench, "s1") == 50
        bench.finish(held)
        assert not bench.store.progress(held, meta("s1", status="PROGRESS", result=60))
        assert result(bench, "s1") == 1
