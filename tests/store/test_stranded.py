"""What waits where nobody serves: it is told, it moves on request, and it goes on where it is when somebody comes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agentq.core.pools import Declared, PoolSpec
from agentq.engine.rerouting import Rerouter
from agentq.store.stranded import PAGE, Move, Stranded
from tests.kit.server import PrivateServer
from tests.store.bench import Bench

NEEDS = {"n": {"gpu": "a100"}}
WORDS = "no worker serves far"

FUSED = pytest.mark.parametrize("bench", ["fused"], indirect=True)
"""In split mode claims go by the broker's hints."""


@pytest.fixture(params=["fused", "split"])
def bench(request: pytest.FixtureRequest, clean_server: PrivateServer) -> Iterator[Bench]:
    """A bench in either mode; nobody serves the queue "far"."""
    made = Bench(clean_server, split=request.param == "split")
    made.worker("w1")
    yield made
    clean_server.flush()
    made.store.close()


def stranded(bench: Bench) -> list[Stranded]:
    return bench.store.strand("far", words=WORDS)


def name(step: str) -> str:
    return f"{step}|{step}|1"


def waiting(bench: Bench, queue: str) -> int:
    return sum(bench.store.waiting(queue).values())


class TestStrand:
    def test_what_waits_is_told_with_what_it_needs_and_noted_as_unschedulable(self, bench: Bench) -> None:
        bench.store.offer([bench.step("a", queue="far", needs=NEEDS), bench.step("b", queue="far", lane=0)])
        found = stranded(bench)
        assert [(each.name, each.lane, each.needs) for each in found] == [(name("b"), 0, None), (name("a"), 6, NEEDS)]
        (first, second) = sorted(bench.store.unserved(), key=lambda each: each.step_id)
        assert (first.step_id, first.lacks, first.queue, first.words) == ("a", "worker", "far", WORDS)
        assert second.step_id == "b"

    def test_all_that_is_unschedulable_is_told_and_what_went_on_is_forgotten(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agentq.store.unserved.PAGE", 2)
        bench.store.offer([bench.step(f"s{number}", queue="far") for number in range(5)])
        stranded(bench)
        assert {each.step_id for each in bench.store.unserved()} == {f"s{number}" for number in range(5)}
        assert len(bench.store.unserved(limit=3)) == 3
        for step in ("s0", "s3"):
            bench.client.hset(bench.keys.step(step, step), "s", "d")
        assert {each.step_id for each in bench.store.unserved()} == {"s1", "s2", "s4"}
        assert bench.client.zcard(bench.keys.of("unserved")) == 3

    def test_a_run_is_unschedulable_and_its_history_says_so_once(self, bench: Bench) -> None:
        bench.store.offer([bench.agent("run", queue="far")])
        for _ in range(3):
            stranded(bench)
        run = bench.store.run("run")
        assert run is not None
        assert run.status == "unschedulable"
        assert [event.kind for event in bench.store.events("run")] == ["queued", "unschedulable"]

    def test_the_lines_of_tenants_are_looked_at_too(self, bench: Bench) -> None:
        bench.store.offer([bench.step("a", queue="far", card={"tenant": "acme"})])
        (found,) = stranded(bench)
        assert (found.name, found.tenant) == (name("a"), "acme")


class TestReroute:
    def test_it_moves_to_the_other_queue_and_keeps_its_age(self, bench: Bench) -> None:
        bench.store.offer([bench.step("a", queue="far", needs=NEEDS, lane=3, card={"why": "x", "tenant": "acme"})])
        bench.client.hset(bench.keys.step("a", "a"), "c", 12345)
        (found,) = stranded(bench)
        assert bench.store.reroute("far", [Move(found, "q", "moved")]) == 1
        assert bench.store.reroute("far", [Move(found, "q", "moved")]) == 0, "asked twice"
        record = bench.record("a")
        assert (record["q"], record["s"], record["sq"]) == ("q", "q", "12345")
        assert '"why":"moved"' in record["cd"]
        assert "acme" in record["cd"]
        assert (waiting(bench, "far"), waiting(bench, "q")) == (0, 1)
        assert bench.store.waiting("q")["high"] == 1
        assert bench.store.unserved() == []

    @FUSED
    def test_what_was_taken_meanwhile_stays_with_its_holder(self, bench: Bench) -> None:
        bench.store.offer([bench.step("a", queue="far", needs=NEEDS)])
        (found,) = stranded(bench)
        (taken,) = bench.take("w1", queues=("far",))
        assert bench.store.reroute("far", [Move(found, "q", "moved")]) == 0
        assert bench.record("a")["q"] == "far"
        bench.finish(taken.holder)

    def test_what_is_served_again_is_no_longer_unschedulable(self, bench: Bench) -> None:
        bench.store.offer([bench.step("a", queue="far")])
        stranded(bench)
        assert len(bench.store.unserved()) == 1
        bench.store.reroute("far", [Move(Stranded("a|a|", 0, "", None), "", "")])
        assert bench.store.unserved() == []
        assert waiting(bench, "far") == 1

    def test_what_may_go_is_found_behind_many_that_have_to_stay(self, bench: Bench) -> None:
        tags = {"gpu": "a100"}
        pools = Declared([PoolSpec(name="far", tags=tags), PoolSpec(name="q", tags=tags)])
        bench.store.offer([bench.step(f"s{at}", queue="far") for at in range(2 * PAGE + 10)])
        bench.store.offer([bench.step(f"m{at}", queue="far", needs=NEEDS) for at in range(3)])
        rerouter = Rerouter(bench.store, pools=lambda: pools, queues=lambda: ["far", "q"], after_s=0.0)
        bench.client.delete(bench.keys.of("survey"))
        assert sum(rerouter.look() for _ in range(3)) == 3
        assert (waiting(bench, "far"), waiting(bench, "q")) == (2 * PAGE + 10, 3)
        assert len(bench.store.unserved()) == PAGE, "of so many people need not hear one by one"

    @FUSED
    def test_a_step_that_moved_can_be_taken_and_ended(self, bench: Bench) -> None:
        message = '{"body":"b","headers":{},"properties":{"delivery_info":{"exchange":"","routing_key":"far"}}}'
        bench.store.offer([bench.step("a", queue="far", needs=NEEDS, message=message)])
        (found,) = stranded(bench)
        bench.store.reroute("far", [Move(found, "q", "moved")])
        got = bench.take_one("w1", queues=("q",))
        assert got.message["properties"]["delivery_info"]["routing_key"] == "q", "a retry goes there too"
        bench.finish(got.holder)
