"""Take: the claim itself, once per token, never by the dead, only what the record agrees to."""

from __future__ import annotations

import pytest

from agentq.store.refs import Offer
from tests.store.bench import Bench


def test_a_take_moves_the_message_into_custody(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    got = bench.take_one()
    record = bench.record("s1")
    assert (record["s"], record["w"], record["t"], record["a"]) == ("h", "w1", str(got.holder.take), "1")
    assert bench.lane() == []
    assert bench.client.hlen(bench.keys.held("w1")) == 1


def test_the_same_token_gets_the_same_reply(bench: Bench) -> None:
    bench.store.offer([bench.step() for _ in range(5)])
    first = bench.take(slots=3, token="t")
    assert bench.take(slots=3, token="t") == first
    assert len(bench.lane()) == 2


def test_a_repeat_leaves_out_what_was_committed_or_handed_back_meanwhile(bench: Bench) -> None:
    bench.store.offer([bench.step(f"s{number}") for number in range(3)])
    first = bench.take(slots=3, token="t")
    bench.finish(first[0].holder)
    bench.store.requeue("w1", first[1].holder.take)
    assert bench.take(slots=3, token="t") == [first[2]]


def test_an_empty_take_repeats_empty(bench: Bench) -> None:
    assert bench.take(token="t") == []
    bench.store.offer([bench.step("s1")])
    assert bench.take(token="t") == []
    assert bench.take(token="u")[0].holder.id == "s1"


def test_a_dead_worker_takes_nothing(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.kill("w1")
    assert bench.take_reply("w1").refused
    assert bench.take_one("w2").holder.id == "s1"


def test_urgent_lanes_go_first(bench: Bench) -> None:
    bench.store.offer([bench.step(f"lane{lane}", lane=lane) for lane in (9, 3, 0, 6)])
    assert [got.holder.id for got in bench.take(slots=9)] == ["lane0", "lane3", "lane6", "lane9"]


def test_every_nth_take_begins_with_the_lowest_lane(bench: Bench) -> None:
    bench.store.offer([bench.step(f"{number}", lane=0) for number in range(8)] + [bench.step("low", lane=9)])
    order = [bench.take_one(low_share=4).holder.id for _ in range(5)]
    assert order.index("low") == 3


def test_a_lane_keeps_its_order(bench: Bench) -> None:
    bench.store.offer([bench.step(f"s{number}") for number in range(10)])
    assert [got.holder.id for got in bench.take(slots=10)] == [f"s{number}" for number in range(10)]


def test_queues_are_served_in_the_order_given(bench: Bench) -> None:
    bench.store.offer([bench.step("a", queue="q1"), bench.step("b", queue="q2")])
    assert bench.take_one(queues=["q2", "q1"]).holder.id == "b"
    assert bench.take(queues=["q"]) == []
    assert bench.take_one(queues=["q1"]).queue == "q1"


def test_no_more_is_taken_than_there_are_slots(bench: Bench) -> None:
    bench.store.offer([bench.step() for _ in range(5)])
    assert len(bench.take(slots=2)) == 2
    assert bench.take(slots=0) == []


def test_a_second_message_of_the_same_generation_is_dropped(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    lane = bench.keys.lane("q", 6)
    bench.client.lpush(lane, bench.client.lindex(lane, 0))
    assert len(bench.take(slots=5)) == 1
    assert bench.client.exists(lane) == 0


def test_a_message_of_an_older_generation_is_dropped(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    lane = bench.keys.lane("q", 6)
    stale = bench.client.lindex(lane, 0)
    bench.again(bench.take_one().holder)
    bench.client.rpush(lane, stale)
    assert bench.take_one(slots=5).generation == 2


def test_a_message_whose_record_has_expired_is_dropped(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.finish(bench.take_one().holder)
    bench.client.delete(bench.keys.step("s1", "s1"))
    bench.client.lpush(bench.keys.lane("q", 6), '{"agentq":"s1|s1|1","body":"x"}')
    assert bench.take() == []


def test_a_plain_message_is_held_without_a_record(bench: Bench) -> None:
    bench.store.ring("q", 6, '{"body":"x"}')
    got = bench.take_one()
    assert got.message == {"body": "x"}
    assert bench.client.hlen(bench.keys.held("w1")) == 1
    bench.store.drop("w1", got.holder.take)
    assert bench.client.hlen(bench.keys.held("w1")) == 0
    assert bench.take() == []


def test_a_plain_message_that_is_rejected_goes_back_to_the_front(bench: Bench) -> None:
    for body in ("1", "2"):
        bench.store.ring("q", 6, f'{{"body":{body}}}')
    got = bench.take_one()
    bench.store.requeue("w1", got.holder.take)
    assert [each.message["body"] for each in bench.take(slots=2)] == [1, 2]
    for take in (2, 3):
        bench.store.drop("w1", take)


def test_take_numbers_only_grow(bench: Bench) -> None:
    seen = []
    for _ in range(3):
        bench.store.offer([bench.step()])
        got = bench.take_one()
        seen.append(got.holder.take)
        bench.finish(got.holder)
    assert seen == [1, 2, 3]


class TestConsumersWithoutALease:
    def test_one_that_goes_on_taking_is_never_given_up(self, bench: Bench) -> None:
        workers = bench.keys.of("workers")
        bench.take("lonely")
        bench.expire_lease("lonely")
        bench.take("lonely")
        assert bench.client.zscore(workers, "lonely") > bench.store.now_ms() + 3_000_000
        assert bench.tick().dead == 0

    def test_one_that_stopped_is_given_up_and_its_messages_move(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s1")])
        bench.take_one("lonely")
        bench.expire_lease("lonely")
        assert bench.tick().dead == 1
        assert bench.take_one("w1").holder.id == "s1"
        assert bench.take_reply("lonely").refused

    def test_its_card_has_an_end(self, bench: Bench) -> None:
        bench.take("lonely")
        assert bench.client.ttl(bench.keys.worker("lonely")) > 0


class TestCancelled:
    @pytest.fixture
    def child(self, bench: Bench) -> Offer:
        holder = bench.run_agent("run")
        child = bench.step("child", root="run", parent="run", ask="child")
        bench.store.send(holder, token="t", seen=1, offers=[child])
        bench.store.cancel("run", "run", "enough")
        return child

    def test_a_step_of_a_cancelled_run_is_flagged(self, bench: Bench, child: Offer) -> None:
        first = bench.take_one("w2", token="t")
        assert (first.holder.id, first.cancelled) == (child.id, True)
        assert bench.take("w2", token="t") == [first]

    def test_a_part_of_a_canvas_goes_with_the_whole_run(self, bench: Bench, child: Offer) -> None:
        bench.store.offer([bench.step("part", root="run")])
        assert [got.cancelled for got in bench.take("w2", slots=2)] == [True, True]

    def test_an_undo_runs_all_the_same(self, bench: Bench, child: Offer) -> None:
        holder = bench.store.record("run", "run")
        assert holder["w"] == "w1"
        bench.store.offer([bench.step("undo", root="run", parent="run", undoes=True)])
        flags = {got.holder.id: got.cancelled for got in bench.take("w2", slots=2)}
        assert flags == {"child": True, "undo": False}

    def test_an_agent_sees_the_cancel_by_itself(self, bench: Bench, child: Offer) -> None:
        bench.kill("w1")
        taken = {got.holder.id: got.cancelled for got in bench.take("w2", slots=2)}
        assert taken["run"] is False

    def test_a_member_of_a_fan_out_that_was_called_off_is_flagged(self, bench: Bench) -> None:
        holder = bench.run_agent("run")
        member = bench.step("m0", root="run", parent="run", join=("run", "map"), index=0)
        bench.store.send(holder, token="t", seen=1, offers=[member])
        bench.store.send(holder, token="u", seen=1, cancels=["map"])
        assert bench.take_one("w2").cancelled
