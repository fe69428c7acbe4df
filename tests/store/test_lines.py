"""Lanes and tenants in fused mode: who is next, what the lower lanes have, and that lines and turns end when empty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agentq.store.refs import Offer
from agentq.store.runner import Patience, Weights
from tests.kit.server import PrivateServer
from tests.store.bench import Bench, Got


def of(bench: Bench, tenant: str, *ids: str, **options: Any) -> list[Offer]:
    """Return steps of a tenant; '' is none."""
    card = {"tenant": tenant} if tenant else {}
    return [bench.step(step_id, card=card, **options) for step_id in ids]


def order(taken: list[Got]) -> str:
    """Return the ids of what was taken, one behind the other."""
    return " ".join(got.holder.id or got.message["body"] for got in taken)


@pytest.fixture
def bench(clean_server: PrivateServer) -> Iterator[Bench]:
    """A store with one worker; nothing of lines and turns is left at the end."""
    made = Bench(clean_server, weights=Weights({"big": 3}))
    made.worker("w1")
    yield made
    assert made.look().misled() == []
    made.drain()
    assert [made.look().parts(kind) for kind in ("line", "turns", "shared")] == [[], [], []]
    made.store.close()


class TestTurns:
    def test_tenants_are_served_in_turn_whatever_each_has_queued(self, bench: Bench) -> None:
        bench.store.offer([*of(bench, "a", *(f"a{n}" for n in range(9))), *of(bench, "b", "b0", "b1")])
        assert order(bench.take(slots=6)) == "a0 b0 a1 b1 a2 a3"

    def test_a_single_step_waits_for_one_round_behind_thousands(self, bench: Bench) -> None:
        bench.store.offer(of(bench, "a", *(f"a{n}" for n in range(300))))
        bench.take(slots=20)
        bench.store.offer(of(bench, "b", "b0"))
        assert "b0" in order(bench.take(slots=2))

    def test_what_has_no_tenant_is_one_more_in_the_turns(self, bench: Bench) -> None:
        bench.store.ring("q", 6, '{"body":"p0"}')
        bench.store.offer([*of(bench, "", "n0"), *of(bench, "a", "a0", "a1", "a2")])
        bench.store.ring("q", 6, '{"body":"p1"}')
        taken = bench.take(slots=9)
        assert order(taken) == "p0 a0 n0 a1 p1 a2"
        for got in taken:
            if not got.holder.id:
                bench.store.drop("w1", got.holder.take)

    def test_a_tenant_has_as_many_in_its_turn_as_it_weighs(self, bench: Bench) -> None:
        bench.store.offer(
            [*of(bench, "big", *(f"b{n}" for n in range(7))), *of(bench, "a", *(f"a{n}" for n in range(4)))]
        )
        assert order(bench.take(slots=4)) == "b0 b1 b2 a0"
        assert order(bench.take(slots=2)) == "b3 b4", "a turn goes on in the next take"
        assert order(bench.take(slots=9)) == "b5 a1 b6 a2 a3"

    def test_lanes_go_before_tenants(self, bench: Bench) -> None:
        bench.store.offer([*of(bench, "a", "a0", "a1"), *of(bench, "b", "b0", lane=3), *of(bench, "b", "b1", lane=9)])
        assert order(bench.take(slots=9)) == "b0 a0 a1 b1"

    def test_a_handed_back_step_is_the_next_one(self, bench: Bench) -> None:
        bench.store.offer([*of(bench, "a", "a0", "a1"), *of(bench, "b", "b0")])
        (first,) = bench.take()
        bench.store.requeue("w1", first.holder.take)
        taken = order(bench.take(slots=9))
        assert sorted(taken.split()) == ["a0", "a1", "b0"]
        assert taken.index("a0") < taken.index("a1")

    def test_the_only_one_of_a_tenant_is_handed_back_to_the_front(self, bench: Bench) -> None:
        bench.store.offer([*of(bench, "b", "b0"), *of(bench, "a", "a0", "a1")])
        (first,) = bench.take()
        assert first.holder.id == "b0"
        bench.store.requeue("w1", first.holder.take)
        assert order(bench.take(slots=1)) == "b0"

    def test_a_retry_stays_its_tenants(self, bench: Bench) -> None:
        bench.store.offer([*of(bench, "a", "a0", "a1"), *of(bench, "b", "b0", "b1")])
        (first,) = bench.take()
        bench.again(first.holder)
        assert order(bench.take(slots=9)) == "b0 a1 b1 a0"

    def test_who_looks_and_does_not_take_passes_nobody_over(self, bench: Bench) -> None:
        bench.store.offer(of(bench, "a", *(f"a{n}" for n in range(4)), name="long"))
        bench.store.offer(of(bench, "b", *(f"b{n}" for n in range(4))))
        got: Got | None = bench.take_one()
        seen = []
        while got is not None:
            seen.append(got.holder.id)
            got = bench.go_on(got.holder) or next(iter(bench.take()), None)
        assert " ".join(seen) == "a0 b0 a1 b1 a2 b2 a3 b3"

    def test_names_are_any_text(self, bench: Bench) -> None:
        names = ["a|b", "a:b", "{x}", "0|", "é\n", "x" * 200]
        bench.store.offer([offer for at, name in enumerate(names) for offer in of(bench, name, f"s{at}", f"t{at}")])
        taken = order(bench.take(slots=20)).split()
        assert taken == [f"s{at}" for at in range(6)] + [f"t{at}" for at in range(6)]

    def test_a_line_that_somebody_deleted_is_passed_over(self, bench: Bench) -> None:
        bench.store.offer([*of(bench, "a", "a0"), *of(bench, "b", "b0")])
        line = bench.keys.line("fused", "q", 6, b"a")
        lost = bench.client.lindex(line, 0)
        bench.client.delete(line)
        assert order(bench.take(slots=9)) == "b0"
        bench.client.lpush(bench.keys.lane("q", 6), lost)

    def test_waiting_counts_all_and_each_tenants(self, bench: Bench) -> None:
        bench.store.offer([*of(bench, "a", "a0", "a1"), *of(bench, "", "n0"), *of(bench, "a", "a2", lane=0)])
        assert bench.store.waiting("q") == {"critical": 1, "high": 0, "normal": 3, "low": 0}
        assert bench.store.waiting_of("a", ["q", "other"]) == 3
        assert bench.store.tenants("q") == {"a": 3}
        bench.take(slots=9)
        assert bench.store.waiting("q") == dict.fromkeys(("critical", "high", "normal", "low"), 0)
        assert bench.store.tenants("q") == {}


class TestShare:
    def test_what_has_waited_too_long_goes_before_the_lowest(self, clean_server: PrivateServer) -> None:
        bench = Bench(clean_server, patience=Patience(age_ms=60_000))
        bench.worker("w1")
        bench.store.offer([bench.step(f"c{n}", lane=0) for n in range(6)])
        bench.store.offer([bench.step("old", lane=6), bench.step("new", lane=6), bench.step("low", lane=9)])
        waits(bench, "old", 61_000)
        assert [bench.take_one(low_share=2).holder.id for _ in range(6)] == ["c0", "old", "c1", "low", "c2", "new"]
        bench.drain()
        bench.store.close()

    def test_the_age_counts_from_the_last_queueing(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s", lane=6)])
        waits(bench, "s", 120_000)
        bench.again(bench.take_one().holder)
        bench.store.offer([bench.step("c0", lane=0), bench.step("low", lane=9)])
        assert order(bench.take(low_share=2)) == "low", "the second one of this worker"

    def test_tenants_in_the_lower_lanes_have_their_share(self, bench: Bench) -> None:
        bench.store.offer([*of(bench, "a", "c0", "c1", "c2", lane=0), *of(bench, "b", "low", lane=9)])
        bench.store.offer([*of(bench, "a", "a0", "a1"), *of(bench, "", "n0")])
        waits(bench, "n0", 61_000)
        assert order([bench.take_one(low_share=2) for _ in range(4)]) == "c0 n0 c1 low"

    def test_of_a_large_batch_the_share_is_taken_and_no_more(self, bench: Bench) -> None:
        bench.store.offer(
            [bench.step(f"c{n}", lane=0) for n in range(20)] + [bench.step(f"l{n}", lane=9) for n in range(20)]
        )
        taken = order(bench.take(slots=16, low_share=8))
        assert taken.count("l") == 2

    def test_a_take_that_finds_nothing_uses_up_no_share(self, bench: Bench) -> None:
        for _ in range(3):
            bench.take(low_share=4)
        bench.store.offer([bench.step(f"c{n}", lane=0) for n in range(4)] + [bench.step("low", lane=9)])
        assert order([bench.take_one(low_share=4) for _ in range(4)]) == "c0 c1 c2 low"

    def test_slots_of_the_share_that_the_lower_lanes_do_not_fill_are_filled(self, bench: Bench) -> None:
        bench.store.offer([bench.step(f"c{n}", lane=0) for n in range(4)])
        assert len(bench.take(slots=4, low_share=2)) == 4


def waits(bench: Bench, step_id: str, ms: int) -> None:
    """Have a step look as if it had waited for so long."""
    record = bench.keys.step(step_id, step_id)
    bench.client.hset(record, "c", int(bench.client.hget(record, "c")) - ms)
