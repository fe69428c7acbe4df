"""What a pool had in each hour of the week: each leader's part once, week beside week."""

from __future__ import annotations

from agentq.core.seasons import WEEKS_KEPT, Hour, Verdict
from agentq.store.seasons import HourSums
from tests.store.bench import Bench
from tests.store.test_leading import end_lease, lead


def keep(bench: Bench, fence: int, arrivals: int, *, week: int = 2900, hour: int = 9, name: str = "a") -> bool:
    sums = HourSums("q", fence, week, hour, arrivals, arrivals * 2000, 60_000)
    return bench.store.keep_hours(name, [sums])["q"]


def hours(bench: Bench, hour: int = 9) -> list[Hour]:
    return bench.store.seasons(["q"])["q"][0].get(hour, [])


def test_told_again_with_more_or_with_the_same_it_is_there_once(bench: Bench) -> None:
    fence = lead(bench)
    assert keep(bench, fence, 3)
    assert keep(bench, fence, 5)
    assert keep(bench, fence, 5)
    assert hours(bench) == [Hour(2900, 5, 10.0, 60.0)]


def test_an_hour_has_what_each_of_its_leaders_saw(bench: Bench) -> None:
    first = lead(bench)
    keep(bench, first, 5)
    end_lease(bench, "q")
    second = lead(bench, "b")
    assert keep(bench, second, 2, name="b")
    assert keep(bench, second, 4, name="b")
    assert hours(bench) == [Hour(2900, 9, 18.0, 120.0)]
    assert not keep(bench, first, 50), "who leads no more writes nothing"
    assert hours(bench) == [Hour(2900, 9, 18.0, 120.0)]


def test_the_weeks_stand_beside_each_other_and_the_oldest_go(bench: Bench) -> None:
    fence = lead(bench)
    for week in range(2900, 2900 + WEEKS_KEPT + 3):
        keep(bench, fence, week - 2899, week=week)
    keep(bench, fence, 7, hour=10)
    assert [each.week for each in hours(bench)] == list(range(2902, 2902 + WEEKS_KEPT + 1))
    assert [each.arrivals for each in hours(bench, 10)] == [7]


def test_a_record_is_small_and_has_an_end(bench: Bench) -> None:
    fence = lead(bench)
    for hour in range(168):
        for week in range(2900, 2907):
            sums = HourSums("q", fence, week, hour, 12_345, 98_765_432, 3_600_000)
            assert bench.store.keep_hours("a", [sums])["q"]
    key = bench.keys.of("seasons", "q")
    assert bench.client.memory_usage(key) < 120_000
    assert bench.client.pttl(key) > 0


def test_a_verdict_is_kept_beside_the_hours(bench: Bench) -> None:
    assert bench.store.seasons(["q"])["q"] == ({}, None)
    found = Verdict(days=7, cost=2, share=0.9, forecast_cost=2, forecast_share=0.95, gain=0.05, margin=0.01, at_ms=7)
    bench.store.keep_verdict("q", found)
    keep(bench, lead(bench), 1)
    record, verdict = bench.store.seasons(["q"])["q"]
    assert (list(record), verdict) == ([9], found)
    bench.client.hset(bench.keys.of("seasons", "q"), "verdict", "{}")
    assert bench.store.seasons(["q"])["q"][1] is None, "what a later version wrote is not believed"
