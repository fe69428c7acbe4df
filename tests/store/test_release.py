"""Giving back: by the owner, at a worker's farewell, and never what is not held any more."""

from __future__ import annotations

import json

import pytest

from agentq.core.errors import StaleHolder
from tests.store.bench import LEASE_MS, Bench


def test_a_hand_back_goes_to_the_front_and_counts_as_no_start(bench: Bench) -> None:
    bench.store.offer([bench.step("s1"), bench.step("s2")])
    bench.store.requeue("w1", bench.take_one().holder.take)
    record = bench.record("s1")
    assert (record["s"], record["g"], record["a"]) == ("q", "2", "0")
    assert "d" not in record
    assert [got.holder.id for got in bench.take("w2", slots=2)] == ["s1", "s2"]


def test_a_lost_attempt_counts_as_a_start_and_a_death(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.store.requeue("w1", bench.take_one().holder.take, lost=True)
    record = bench.record("s1")
    assert (record["s"], record["a"], record["d"]) == ("q", "1", "1")


TRICKY = (
    '{"body": "x", "headers": {"argsrepr": "(\'\\"headers\\": {\',)", "none": []}, "properties": {"delivery_info": {}}}'
)


@pytest.mark.parametrize("text", [TRICKY, json.dumps(json.loads(TRICKY), separators=(",", ":"))])
def test_what_comes_back_says_that_it_was_delivered_before(bench: Bench, text: str) -> None:
    before = json.loads(text)
    bench.store.offer([bench.step("s1", message=text)])
    bench.store.ring("q", 6, text)
    for _ in range(2):
        for got in bench.take("w1", slots=2):
            bench.store.requeue("w1", got.holder.take)
    for got in bench.take("w1", slots=2):
        if got.message.pop("agentq", None):
            bench.finish(got.holder)
        else:
            bench.store.drop("w1", got.holder.take)
        assert got.message["headers"] == {"redelivered": True, **before["headers"]}
        assert got.message["properties"] == {"delivery_info": {"redelivered": True}}


def test_a_repeat_gives_back_nothing(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    take = bench.take_one().holder.take
    for _ in range(3):
        bench.store.requeue("w1", take)
    assert len(bench.lane()) == 1
    assert bench.generation("s1") == 2


def test_an_entry_that_was_committed_meanwhile_is_not_given_back(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    holder = bench.take_one().holder
    bench.finish(holder)
    bench.store.requeue("w1", holder.take)
    assert bench.state("s1") == "d"
    assert bench.lane() == []


def test_a_hand_back_of_another_take_touches_nothing(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    first = bench.take_one().holder
    bench.store.requeue("w1", first.take)
    second = bench.take_one("w2").holder
    bench.store.requeue("w1", first.take)
    bench.store.requeue("w1", second.take)
    assert bench.state("s1") == "h"
    bench.finish(second)


def test_a_step_is_never_dropped(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    holder = bench.take_one().holder
    bench.store.drop("w1", holder.take)
    assert bench.state("s1") == "h"
    bench.finish(holder)


def test_what_is_no_step_of_ours_any_more_may_be_dropped(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    holder = bench.take_one().holder
    bench.client.hset(bench.keys.step("s1", "s1"), "t", 99)
    bench.store.drop("w1", holder.take)
    assert bench.client.hlen(bench.keys.held("w1")) == 0
    bench.client.hset(bench.keys.step("s1", "s1"), "s", "r")


class TestLeave:
    def test_everything_goes_back_in_its_order(self, bench: Bench) -> None:
        bench.store.offer([bench.step(f"s{number}") for number in range(12)])
        bench.take(slots=11)
        assert bench.store.leave("w1", chunk=3) == 11
        assert [got.holder.id for got in bench.take("w2", slots=12)] == [f"s{number}" for number in range(12)]

    def test_the_id_is_used_up(self, bench: Bench) -> None:
        bench.store.leave("w1")
        assert bench.take_reply("w1").refused
        assert bench.store.renew("w1", LEASE_MS) == "dead"
        assert not bench.store.enroll("w1", label="w1", queues=("q",), concurrency=1, lease_ms=LEASE_MS)
        assert [card.id for card in bench.store.workers()] == ["w2"]

    def test_leaving_twice_is_leaving_once(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s1")])
        bench.take_one()
        assert [bench.store.leave("w1"), bench.store.leave("w1")] == [1, 0]
        assert len(bench.lane()) == 1

    def test_a_keeper_that_speaks_for_the_dead_counts_deaths(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s1")])
        bench.take_one()
        bench.store.leave("w1", counted=True)
        assert bench.record("s1")["d"] == "1"

    def test_an_attempt_that_still_runs_cannot_commit_after_it(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s1")])
        holder = bench.take_one().holder
        bench.store.leave("w1")
        with pytest.raises(StaleHolder):
            bench.finish(holder)

    def test_plain_messages_go_back_too(self, bench: Bench) -> None:
        bench.store.ring("q", 3, '{"body":"x"}')
        bench.take_one()
        bench.store.leave("w1")
        got = bench.take_one("w2")
        assert got.message == {"body": "x"}
        bench.store.drop("w2", got.holder.take)
