"""Joins: released once, by the set of members, however often and in whatever order they arrive."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from agentq.store.refs import Arrival, Holder, Join, JoinMembers, Offer
from tests.store.bench import TREE, Bench, agent_join, meta


def arrival(join: str, index: int | str, *, succeeded: bool = True) -> Arrival:
    return Arrival(root=join, id=join, index=index, succeeded=succeeded)


def counters(bench: Bench, join: str, root: str | None = None) -> dict[str, str]:
    found = bench.client.hgetall(bench.keys.join(root if root is not None else join, join))
    return {name.decode(): value.decode() for name, value in found.items()}


def members(size: int) -> list[Offer]:
    return [
        Offer(
            root="run",
            id=f"m{index}",
            queue="q",
            lane=6,
            name="read",
            message=json.dumps({"body": index}),
            parent="run",
            join=("run", "map"),
            index=index,
        )
        for index in range(size)
    ]


class TestFanOut:
    @pytest.fixture
    def run(self, bench: Bench) -> Holder:
        return bench.run_agent("run")

    def test_the_last_member_tells_the_agent_once(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 3)], offers=members(3))
        for got in bench.take("w2", slots=3):
            assert "joined" not in bench.kinds("run")
            bench.finish(got.holder)
        assert bench.kinds("run") == ["start", "joined"]
        assert bench.log("run")[-1]["id"] == "map"

    def test_members_append_nothing_before_and_nothing_after(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 3, need=1)], offers=members(3))
        assert bench.store.park(run, seen=1, due_ms=None)
        first, *others = bench.take("w2", slots=3)
        bench.finish(first.holder)
        for got in others:
            bench.finish(got.holder, status="REVOKED")
        assert bench.kinds("run") == ["start", "joined"]
        assert bench.take_one("w2").holder.id == "run"
        assert bench.take("w2") == []

    def test_failures_arrive_too(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 2)], offers=members(2))
        for got in bench.take("w2", slots=2):
            bench.finish(got.holder, status="FAILURE")
        assert counters(bench, "map", "run")["ok"] == "0"
        assert bench.kinds("run")[-1] == "joined"

    def test_need_counts_successes_only(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 3, need=2)], offers=members(3))
        statuses = iter(["FAILURE", "SUCCESS", "SUCCESS"])
        seen = []
        for got in bench.take("w2", slots=3):
            bench.finish(got.holder, status=next(statuses))
            seen.append("joined" in bench.kinds("run"))
        assert seen == [False, False, True]

    def test_the_first_to_succeed_are_named_and_the_others_called_off(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 4, need=2)], offers=members(4))
        first, second, third = bench.take("w2", slots=3)
        bench.finish(third.holder)
        bench.finish(first.holder, status="FAILURE")
        bench.finish(second.holder)
        told = bench.log("run")[-1]
        assert (told["k"], told["id"], told["at"]) == ("joined", "map", [2, 1])
        assert bench.take_one("w2").cancelled
        bench.store.arrive([Arrival(root="run", id="map", index=0, succeeded=True)])
        assert counters(bench, "map", "run")["won"] == "2,1"

    def test_those_that_are_enough_together_with_the_last_are_named_too(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 2, need=2)], offers=members(2))
        for got in bench.take("w2", slots=2):
            bench.finish(got.holder)
        assert bench.log("run")[-1]["at"] == [0, 1]
        assert bench.client.exists(bench.keys.of("cancelled", "run")) == 0

    def test_all_arrived_releases_also_below_need(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 2, need=2)], offers=members(2))
        for got in bench.take("w2", slots=2):
            bench.finish(got.holder, status="FAILURE")
        assert bench.kinds("run")[-1] == "joined"
        assert "at" not in bench.log("run")[-1]

    def test_one_without_members_releases_at_once(self, bench: Bench, run: Holder) -> None:
        entries = bench.store.send(
            run, token="t", seen=1, asks=['{"k":"ask","id":"map"}'], joins=[agent_join("run", "map", 0)]
        )
        assert [json.loads(entry)["k"] for entry in entries] == ["ask", "joined"]

    def test_a_replaced_member_keeps_its_place(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 1)], offers=members(1))
        first = bench.take_one("w2").holder
        bench.store.commit(first, mode="replaced", status="RETRY", offers=[bench.step("other", root="run")])
        bench.finish(bench.take_one("w2").holder, offers=[bench.step("m0", root="run")])
        assert "joined" not in bench.kinds("run")
        bench.finish(bench.take_one("w2").holder)
        assert bench.kinds("run")[-1] == "joined"

    def test_a_member_that_runs_twice_arrives_once(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 2)], offers=members(2))
        bench.take("w2", slots=1)
        bench.store.leave("w2")
        bench.worker("w3")
        first, second = bench.take("w3", slots=2)
        for _ in range(3):
            bench.finish(first.holder)
        assert counters(bench, "map", "run")["n"] == "1"
        bench.finish(second.holder)
        assert bench.kinds("run").count("joined") == 1

    def test_thousands_of_members_are_one_wake(self, bench: Bench, run: Holder) -> None:
        size = 3_000
        bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", size)])
        assert bench.store.park(run, seen=1, due_ms=None)
        places = list(range(size))
        random.Random(7).shuffle(places)
        bench.store.arrive([Arrival(root="run", id="map", index=place, succeeded=True) for place in places])
        assert bench.kinds("run") == ["start", "joined"]
        assert len(bench.lane()) == 1

    @pytest.mark.parametrize("place", [-1, 2, 10**9])
    def test_a_place_outside_the_set_is_nobodys(self, bench: Bench, run: Holder, place: int) -> None:
        bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 2)])
        bench.store.arrive([Arrival(root="run", id="map", index=at, succeeded=True) for at in (0, place)])
        assert counters(bench, "map", "run")["n"] == "1"

    def test_members_over_the_budget_arrive_as_failed(self, bench: Bench) -> None:
        run = bench.run_agent("poor", worker="w2", budget={"steps": 2})
        offers = [
            bench.step(f"m{index}", root="poor", parent="poor", join=("poor", "map"), index=index, accounts=TREE)
            for index in range(4)
        ]
        bench.store.send(run, token="t", seen=1, joins=[agent_join("poor", "map", 4)], offers=offers)
        assert len(bench.lane()) == 2
        assert counters(bench, "map", "poor")["n"] == "2"
        refused = json.loads(bench.store.outcomes(["m3"])[0] or b"")
        assert (refused["status"], refused["children"]) == ("FAILURE", [])
        assert refused["result"]["agentq"]["fields"] == {"limit_name": "steps", "limit": "2", "used": "2"}
        assert bench.client.ttl(bench.keys.result("m3")) == -1
        for got in bench.take("w1", slots=2):
            bench.finish(got.holder)
        assert bench.kinds("poor")[-1] == "joined"
        bench.finish(run)
        assert bench.client.ttl(bench.keys.result("m3")) > 0


class TestCanvas:
    def open(self, bench: Bench, size: int, **options: Any) -> None:
        bench.store.offer([], [Join(root="g", id="g", size=size, body=bench.step("body", **options), members="[1]")])

    def test_the_last_branch_queues_the_body(self, bench: Bench) -> None:
        self.open(bench, 2)
        bench.store.arrive([arrival("g", "t:a")])
        assert bench.lane() == []
        bench.store.arrive([arrival("g", "t:b")])
        got = bench.take_one()
        assert (got.holder.id, got.message["body"]) == ("body", "body")

    def test_branches_are_told_apart_by_their_task_id(self, bench: Bench) -> None:
        self.open(bench, 2)
        bench.store.arrive([arrival("g", "t:a")] * 3)
        assert counters(bench, "g")["n"] == "1"
        bench.store.arrive([arrival("g", "t:10")])
        assert counters(bench, "g")["sent"] == "1"

    def test_arrivals_after_the_release_move_nothing(self, bench: Bench) -> None:
        self.open(bench, 1)
        bench.store.arrive([arrival("g", "t:a"), arrival("g", "t:a"), arrival("g", "t:b")])
        assert len(bench.lane()) == 1

    def test_an_arrival_at_a_join_that_is_gone_is_nothing(self, bench: Bench) -> None:
        bench.store.arrive([arrival("nowhere", "t:a"), arrival("nowhere", 3)])
        assert bench.client.keys("*nowhere*") == []

    def test_a_commit_carries_its_arrivals(self, bench: Bench) -> None:
        self.open(bench, 1)
        bench.store.offer([bench.step("s1")])
        for _ in range(2):
            bench.finish(bench.take_one().holder, arrivals=[arrival("g", "t:s1")])
            assert bench.state("body") in ("q", "d")

    def test_a_commit_may_open_a_join_and_replace_itself_by_its_body(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s1")])
        join = Join(root="g", id="g", size=1, body=bench.step("s1", name="body"))
        holder = bench.take_one().holder
        bench.store.commit(
            holder, mode="replaced", status="RETRY", joins=[join], offers=[bench.step("part", root="s1")]
        )
        bench.finish(bench.take_one().holder, arrivals=[arrival("g", "t:part")])
        got = bench.take_one()
        assert (got.holder.id, got.generation, bench.record("s1")["nm"]) == ("s1", 2, "body")

    def test_a_turn_may_send_a_join_with_a_body(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        body = bench.step("body", root="run", parent="run", ask="canvas")
        join = Join(root="g", id="g", size=1, body=body)
        for _ in range(2):
            bench.store.send(run, token="t", seen=1, joins=[join], offers=[bench.step("part", root="run")])
        bench.finish(bench.take_one("w2").holder, arrivals=[arrival("g", "t:part")])
        bench.finish(bench.take_one("w2").holder, entry='{"k":"result","id":"canvas","s":"ok","v":[1]}')
        assert bench.kinds("run") == ["start", "result"]

    def test_a_plain_body_is_queued_without_a_record(self, bench: Bench) -> None:
        self.open(bench, 1, kind="plain", message='{"body":"plain"}')
        bench.store.arrive([arrival("g", "t:a")])
        got = bench.take_one()
        assert got.message == {"body": "plain"}
        bench.store.drop("w1", got.holder.take)
        assert bench.client.ttl(bench.keys.join("g", "g")) > 0

    def test_the_body_keeps_the_join_until_it_is_done(self, bench: Bench) -> None:
        self.open(bench, 1)
        bench.store.arrive([arrival("g", "t:a")])
        assert bench.client.ttl(bench.keys.join("g", "g")) == -1
        assert bench.store.join_members("g", "g") == JoinMembers("[1]", size=1, succeeded=1)
        body = bench.take_one().holder
        bench.again(body)
        assert bench.client.ttl(bench.keys.join("g", "g")) == -1
        bench.finish(bench.take_one().holder)
        assert bench.client.ttl(bench.keys.join("g", "g")) > 0

    def test_a_body_that_is_replaced_by_another_chord_lets_the_first_join_go(self, bench: Bench) -> None:
        self.open(bench, 1)
        bench.store.arrive([arrival("g", "t:a")])
        second = Join(root="g2", id="g2", size=1, body=bench.step("body"))
        bench.store.commit(bench.take_one().holder, mode="replaced", status="RETRY", joins=[second])
        bench.store.arrive([arrival("g2", "t:a")])
        assert bench.client.ttl(bench.keys.join("g", "g")) > 0
        assert bench.client.ttl(bench.keys.join("g2", "g2")) == -1
        bench.finish(bench.take_one().holder, results=[("body", meta("body"))])
        assert bench.client.ttl(bench.keys.join("g2", "g2")) > 0
