"""A controller counts the hours of its pools, keeps them now and then, and looks up the weeks before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentq.core.pools import PoolSpec
from agentq.core.seasons import Hour, Verdict
from agentq.fleet.control import PoolControl
from agentq.fleet.seasons import WRITE_S, Seasons
from agentq.store.seasons import HourSums

MONDAY_MS = (4 * 86_400 + 2900 * 7 * 86_400) * 1000
NINE_MS = MONDAY_MS + 9 * 3_600_000
RECORD = {hour: [Hour(week, 720, 1440) for week in (2898, 2899)] for hour in range(168)}


class FakeStore:
    def __init__(self, verdict: Verdict | None = None) -> None:
        self.kept: list[HourSums] = []
        self.calls = 0
        self.reads: list[list[str]] = []
        self.verdict = verdict

    def keep_hours(self, controller: str, hours: Sequence[HourSums]) -> dict[str, bool]:
        self.kept += hours
        self.calls += bool(hours)
        return {each.pool: True for each in hours}

    def seasons(self, pools: Sequence[str]) -> dict[str, Any]:
        if pools:
            self.reads.append(list(pools))
        return dict.fromkeys(pools, (RECORD, self.verdict))


def control(fence: int = 7, **more: Any) -> PoolControl:
    made = PoolControl(PoolSpec(name="tools", max=4, **more), 1)
    made.is_led, made.fence = True, fence
    made.sensor.service.see(2.0)
    return made


def tend(
    seasons: Seasons, pool: PoolControl, begin_ms: int, seconds: int, arrived: int = 1, keeps: bool = True
) -> None:
    for second in range(seconds):
        pool.sensor.arrived = arrived
        seasons.tend(begin_ms + second * 1000, [pool], keeps=keeps)


def test_an_hour_is_written_every_few_minutes_with_all_that_it_had() -> None:
    store, pool = FakeStore(), control()
    tend(Seasons(store, "me"), pool, NINE_MS, int(2 * WRITE_S) + 1)  # type: ignore[arg-type]  # a fake
    assert store.calls == 2
    last = store.kept[-1]
    assert last == HourSums("tools", 7, 2900, 9, int(2 * WRITE_S), int(2 * WRITE_S) * 2000, int(2 * WRITE_S) * 1000)
    assert len(store.reads) == 1


def test_an_hour_that_ends_is_written_whole_and_the_next_begins_at_nothing() -> None:
    store, pool = FakeStore(), control()
    tend(Seasons(store, "me"), pool, NINE_MS + 3_590_000, 20)  # type: ignore[arg-type]  # a fake
    assert [(each.hour, each.arrivals) for each in store.kept] == [(9, 9)]
    assert len(store.reads) == 2


def test_empty_hours_are_written_too_and_an_outage_is_not_seen() -> None:
    store, pool = FakeStore(), control()
    seasons = Seasons(store, "me")  # type: ignore[arg-type]  # a fake
    tend(seasons, pool, NINE_MS, 10, arrived=0)
    tend(seasons, pool, NINE_MS + 1_000_000, 2, arrived=50)
    assert store.kept[-1].arrivals == 0
    assert store.kept[-1].seen_ms == 9_000


def test_who_only_looks_writes_nothing() -> None:
    store, pool = FakeStore(), control(fence=0)
    tend(Seasons(store, "me"), pool, NINE_MS, 700, keeps=False)  # type: ignore[arg-type]  # a fake
    assert store.calls == 0


def test_the_forecast_counts_only_where_the_pool_says_so_and_a_fresh_backtest_does() -> None:
    good = Verdict(
        days=7, cost=2, share=0.9, forecast_cost=2, forecast_share=0.95, gain=0.05, margin=0.01, at_ms=NINE_MS
    )
    old, bad = good.model_copy(update={"at_ms": MONDAY_MS - 30 * 86_400_000}), good.model_copy(update={"gain": 0.0})
    for verdict, said, counts in (
        (good, "count", True),
        (good, "report", False),
        (bad, "count", False),
        (old, "count", False),
        (None, "count", False),
    ):
        seasons, pool = Seasons(FakeStore(verdict), "me"), control(forecast=said)  # type: ignore[arg-type]  # a fake
        tend(seasons, pool, NINE_MS, 2)
        forecast, does_count = seasons.forecast(pool, NINE_MS + 60_000)
        assert forecast is not None
        assert forecast.rate == 0.2
        assert does_count == counts
