"""Who leads a pool, and whose decisions count."""

from __future__ import annotations

from agentq.core.scaling import PoolLoad, Size
from agentq.core.sizing import Decision
from tests.store.bench import Bench

LEASE_MS = 3_600_000


def end_lease(bench: Bench, pool: str) -> None:
    """Rewrite the end of a lease as if it were long over."""
    key = bench.keys.of("leaders")
    fence, _, holder, label = bench.client.hget(key, pool).decode().split("|", 3)
    bench.client.hset(key, pool, f"{fence}|1|{holder}|{label}")


def lead(bench: Bench, name: str = "a") -> int:
    found = bench.store.lead(name, name, ["q"], lease_ms=LEASE_MS)["q"]
    assert found.is_mine
    return found.fence


def decision(fence: int, *, desired: int = 3, pool: str = "q") -> Decision:
    size = Size(workers=desired, asked=desired, why="3 waiting", terms={"steady": 1.5})
    return Decision(pool=pool, at_ms=7, fence=fence, had=1, desired=desired, load=PoolLoad(waiting=3), size=size)


class TestLease:
    def test_the_first_leads_and_the_others_hear_who_does(self, bench: Bench) -> None:
        first = bench.store.lead("a", "a@host|x", ["q", "other"], lease_ms=LEASE_MS)
        assert [lead.is_mine for lead in first.values()] == [True, True]
        second = bench.store.lead("b", "b@host", ["q"], lease_ms=LEASE_MS)["q"]
        assert (second.is_mine, second.fence, second.leader) == (False, first["q"].fence, "a@host|x")
        assert 0 < second.left_ms <= LEASE_MS

    def test_asked_again_it_goes_on_under_the_same_fence(self, bench: Bench) -> None:
        fence = lead(bench)
        end_lease(bench, "q")
        again = bench.store.lead("a", "a", ["q"], lease_ms=LEASE_MS)["q"]
        assert (again.is_mine, again.fence) == (True, fence), "nobody else has led meanwhile"

    def test_after_its_end_another_leads_under_a_greater_fence(self, bench: Bench) -> None:
        fence = lead(bench)
        end_lease(bench, "q")
        assert lead(bench, "b") > fence
        assert not bench.store.lead("a", "a", ["q"], lease_ms=LEASE_MS)["q"].is_mine

    def test_one_that_is_given_back_goes_to_the_next_at_once(self, bench: Bench) -> None:
        bench.store.lead("a", "a", ["q"], lease_ms=LEASE_MS)
        assert bench.store.yield_lead("b", ["q"]) == {}
        assert not bench.store.lead("b", "b", ["q"], lease_ms=LEASE_MS)["q"].is_mine, "it was not b's to give back"
        fence = bench.store.leaders()["q"].fence
        assert bench.store.yield_lead("a", ["q"]) == {"q": fence}
        assert bench.store.lead("b", "b", ["q"], lease_ms=LEASE_MS)["q"].is_mine
        assert bench.store.yield_lead("a", ["q"]) == {}

    def test_a_lease_from_before_the_clock_was_set_back_is_over(self, bench: Bench) -> None:
        bench.store.lead("a", "a", ["q"], lease_ms=LEASE_MS)
        assert bench.store.lead("b", "b", ["q"], lease_ms=1000)["q"].is_mine


class TestDecisions:
    def test_the_leaders_are_there_for_all_and_events_are_kept(self, bench: Bench) -> None:
        fence = lead(bench)
        said = decision(fence)
        assert bench.store.decide("a", [(said, True)]) == {"q": fence}
        assert bench.store.decide("a", [(decision(fence, desired=4), False)]) == {"q": fence}
        assert bench.store.decisions()["q"].desired == 4
        assert bench.store.decision_history("q") == [said]

    def test_a_repeat_is_kept_once(self, bench: Bench) -> None:
        fence = lead(bench)
        for _ in range(2):
            bench.store.decide("a", [(decision(fence), True)])
        assert len(bench.store.decision_history("q")) == 1

    def test_of_one_who_was_followed_nothing_is_written(self, bench: Bench) -> None:
        old = lead(bench)
        end_lease(bench, "q")
        new = lead(bench, "b")
        assert bench.store.decide("a", [(decision(old), True)]) == {"q": new}
        assert bench.store.decide("a", [(decision(new), True)])["q"] != new, "the fence is b's"
        assert bench.store.decisions() == {}

    def test_after_the_end_of_ones_own_lease_nothing_is_written(self, bench: Bench) -> None:
        fence = lead(bench)
        end_lease(bench, "q")
        assert bench.store.decide("a", [(decision(fence), True)])["q"] != fence
        assert bench.store.decisions() == {}

    def test_workers_are_drained_with_the_decision_or_not_at_all(self, bench: Bench) -> None:
        fence = lead(bench)
        bench.store.decide("a", [(decision(fence), True)], drains={"q": ["w1", "w2"]})
        assert set(bench.store.drains()) == {"worker|w1", "worker|w2"}
        assert bench.store.drains()["worker|w1"]["by"] == "autoscale"
        bench.store.drain("worker|w2", by="a person")
        bench.store.decide("a", [(decision(fence), False)], undrains={"q": ["w1", "w2"]})
        assert set(bench.store.drains()) == {"worker|w2"}, "what a person has drained stays so"
        bench.store.yield_lead("a", ["q"])
        lead(bench, "b")
        bench.store.decide("a", [(decision(fence), True)], drains={"q": ["w1"]})
        assert set(bench.store.drains()) == {"worker|w2"}
