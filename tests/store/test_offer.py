"""Offer: in custody from the first moment, once however often it is called."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentq.core.errors import InvalidArguments, KeyReused
from agentq.store.refs import Arrival, Join
from tests.store.bench import Bench


def test_an_offer_is_recorded_and_in_its_lane(bench: Bench) -> None:
    (reply,) = bench.store.offer([bench.step("s1", lane=3)])
    assert (reply.state, reply.run_id) == ("new", "s1")
    assert bench.state("s1") == "q"
    (message,) = bench.lane(lane=3)
    assert message["agentq"] == "s1|s1|1"
    assert message["body"] == "s1"


def test_a_repeat_sends_nothing(bench: Bench) -> None:
    offer = bench.step("s1")
    assert [bench.store.offer([offer])[0].state for _ in range(3)] == ["new", "known", "known"]
    assert len(bench.lane()) == 1


def test_a_repeat_after_the_end_sends_nothing(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.finish(bench.take_one().holder)
    assert bench.store.offer([bench.step("s1")])[0].state == "known"
    assert bench.lane() == []


def test_a_bell_rings_and_stays_bounded(bench: Bench) -> None:
    bench.store.offer([bench.step() for _ in range(50)])
    assert bench.client.llen(bench.keys.bell("q")) == 32


def test_a_delayed_offer_waits_among_the_timers_and_may_be_taken_when_due(bench: Bench) -> None:
    bench.store.offer([bench.step("s1", due_ms=bench.store.now_ms() + 3_600_000)])
    assert bench.state("s1") == "l"
    assert bench.take() == []
    bench.fire_timers()
    assert bench.take_one().holder.id == "s1"


def test_a_delay_counts_from_the_servers_receipt(bench: Bench) -> None:
    """Of an offer, and of a retry; the time that the sender made of it by its own clock does not count."""
    before = bench.store.now_ms()
    bench.store.offer([bench.step("s1", delay_ms=60_000, due_ms=1), bench.step("s2")])
    bench.store.commit(
        bench.take_one().holder, mode="again", status="RETRY", offers=[bench.step("s2", delay_ms=60_000, due_ms=1)]
    )
    due = dict(bench.client.zrange(bench.keys.of("due"), 0, -1, withscores=True))
    assert len(due) == 2
    assert all(before + 60_000 <= at <= bench.store.now_ms() + 60_000 for at in due.values())


def test_an_offer_that_was_due_in_the_past_is_queued(bench: Bench) -> None:
    bench.store.offer([bench.step("s1", due_ms=bench.store.now_ms() - 1)])
    assert bench.state("s1") == "q"


@pytest.mark.parametrize("text", ["a\nb", "ü\u2028\x00\x06\x16", '"quoted"', "{[%d]}"])
def test_a_queue_may_have_any_name(bench: Bench, text: str) -> None:
    bench.store.offer([bench.step("s1", queue=text), bench.step("s2", queue=text)])
    first = bench.take_one(queues=[text])
    assert first.queue == text
    bench.store.requeue("w1", first.holder.take)
    assert [got.holder.id for got in bench.take(slots=2, queues=[text])] == ["s1", "s2"]


def test_any_text_travels_unchanged(bench: Bench) -> None:
    body = 'line\nfeed \\ " | } \x00 ü 漢 ' + "x" * 100_000
    bench.store.offer([bench.step("s1", name='a"b\\c\nd', message=json.dumps({"body": body}), card={"key": body})])
    assert bench.take_one().message["body"] == body
    assert json.loads(bench.record("s1")["cd"])["key"] == body
    assert bench.record("s1")["nm"] == 'a"b\\c\nd'


@pytest.mark.parametrize("name", ["", "a b", "a|b", "a{b", "x" * 201, "ü", "a\n"])
def test_an_id_that_cannot_stand_in_a_key_is_refused_before_anything_is_sent(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidArguments):
        bench.store.offer([bench.step("s1"), bench.step(name)])
    assert bench.state("s1") is None


@pytest.mark.parametrize("wrong", [{"queue": ""}, {"lane": 5}, {"lane": -1}])
def test_a_lane_that_nobody_takes_from_is_refused(bench: Bench, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArguments):
        bench.store.offer([bench.step("s1", **wrong)])


def test_five_thousand_offers_fit_into_one_call(bench: Bench) -> None:
    bench.store.offer([bench.step(f"s{number}", root="run") for number in range(5_000)])
    assert bench.client.llen(bench.keys.lane("q", 6)) == 5_000
    assert bench.store.tree("run")["live"] == 5_000
    # To bring each to its end would take longer than all other tests of this module.
    bench.client.flushall()


class TestKeyedStarts:
    def test_the_same_key_finds_the_standing_run(self, bench: Bench) -> None:
        first = bench.agent("run1", start_digest="d", args_digest="a")
        assert bench.store.start(first, key="k") == "run1"
        second = bench.agent("run2", start_digest="d", args_digest="a")
        assert bench.store.start(second, key="k") == "run1"
        assert bench.state("run2") is None
        assert len(bench.lane()) == 1

    def test_a_repeat_of_the_first_call_finds_its_own_run(self, bench: Bench) -> None:
        offer = bench.agent("run1", start_digest="d", args_digest="a")
        assert {bench.store.start(offer, key="k") for _ in range(2)} == {"run1"}
        assert len(bench.lane()) == 1

    def test_other_arguments_are_refused_with_the_run_that_stands(self, bench: Bench) -> None:
        bench.store.start(bench.agent("run1", start_digest="d", args_digest="a"), key="k")
        with pytest.raises(KeyReused) as raised:
            bench.store.start(bench.agent("run2", start_digest="d", args_digest="b"), key="k")
        assert raised.value.run_id == "run1"
        assert bench.state("run2") is None

    def test_the_key_stands_until_the_retention_of_the_finished_run(self, bench: Bench) -> None:
        bench.store.start(bench.agent("run1", start_digest="d", args_digest="a"), key="k")
        assert bench.client.ttl(bench.keys.start("d")) == -1
        bench.finish(bench.take_one().holder)
        assert bench.client.pttl(bench.keys.start("d")) > bench.store.retention_ms - 60_000
        assert bench.store.start(bench.agent("run2", start_digest="d", args_digest="a"), key="k") == "run1"

    def test_a_child_under_a_key_of_another_run_is_refused_and_leaves_the_key_alone(self, bench: Bench) -> None:
        bench.store.start(bench.agent("run1", start_digest="d", args_digest="a"), key="k")
        bench.take_one()
        holder = bench.run_agent("parent", worker="w2")
        child = bench.agent(
            "child", root="parent", parent="parent", ask="child", start_digest="d", args_digest="a", card={"key": "k"}
        )
        bench.store.send(holder, token="t", seen=1, asks=['{"k":"ask","id":"child"}'], offers=[child])
        refused = bench.log("parent")[-1]
        assert (refused["id"], refused["s"], refused["v"]["code"]) == ("child", "error", "key_reused")
        assert refused["v"]["fields"] == {"key": "k", "run_id": "run1"}
        bench.finish(holder)
        assert bench.client.ttl(bench.keys.start("d")) == -1


def test_an_agent_begins_its_log(bench: Bench) -> None:
    before = bench.store.now_ms()
    bench.store.offer([bench.agent("run", version="7")])
    (start,) = bench.log("run")
    assert (start["k"], start["version"]) == ("start", "7")
    assert before <= start["t"] <= bench.store.now_ms()
    assert [run.run_id for run in bench.store.runs()] == ["run"]


def test_an_agent_without_a_version_has_none_in_its_log(bench: Bench) -> None:
    bench.store.offer([bench.agent("run", version=None)])
    assert "version" not in bench.log("run")[0]


def test_a_join_that_is_offered_twice_is_opened_once(bench: Bench) -> None:
    join = Join(root="g", id="g", size=1, body=bench.step("body"))
    bench.store.offer([], [join])
    bench.store.offer([], [join])
    assert bench.store.tree("g")["live"] == 1
    assert bench.client.llen(bench.keys.members("g")) == 1
    bench.store.arrive([Arrival(root="g", id="g", index="t:1", succeeded=True)])
    assert bench.take_one().holder.id == "body"
