"""What the weeks before say of an hour, and when a backtest is believed."""

import pytest

from agentq.core.scaling import Objective, PoolLoad, decide_size
from agentq.core.seasons import HOUR_S, Hour, Verdict, decide_forecast, decide_verdict, hour_of, record_of

MONDAY_S = 4 * 86_400 + 2900 * 7 * 86_400
WEEK_S = 7 * 86_400


def verdict(**more: float) -> Verdict:
    fields = {"days": 7, "cost": 2.0, "share": 0.9, "forecast_cost": 2.02, "forecast_share": 0.93, "gain": 0.03}
    return Verdict.model_validate({**fields, "margin": 0.01, **more})


def test_a_week_begins_on_monday_at_midnight_utc() -> None:
    assert hour_of(MONDAY_S) == (2900, 0)
    assert hour_of(MONDAY_S - 1) == (2899, 167)
    assert hour_of(MONDAY_S + 25.5 * 3600) == (2900, 25)


def test_a_forecast_is_the_median_of_the_weeks_before_between_the_middles_of_hours() -> None:
    weeks = (2897, 2898, 2899)
    record = {
        9: [Hour(week, count, count * 2) for week, count in zip(weeks, (360, 720, 36_000), strict=True)],
        10: [Hour(week, 1440, 1440) for week in weeks],
    }
    at = MONDAY_S + 9.5 * HOUR_S
    assert decide_forecast(record, at) == pytest.approx((0.2, 2.0))
    between = decide_forecast(record, at + HOUR_S / 2)
    assert between is not None
    assert between.rate == pytest.approx(0.3)


def test_one_week_is_no_habit_and_neither_is_this_one_or_what_was_hardly_seen() -> None:
    at = MONDAY_S + 9.5 * HOUR_S
    this_week, last, before = Hour(2900, 99, 99), Hour(2899, 360, 720), Hour(2898, 360, 720)

    def forecast(*hours: Hour) -> object:
        return decide_forecast({9: hours, 10: hours}, at)

    assert forecast(this_week, last) is None
    assert forecast(last, before._replace(seen_s=60)) is None
    assert forecast(last, before._replace(week=2890)) is None
    assert forecast(last, before) is not None


def test_an_hour_that_was_seen_in_part_counts_by_its_rate() -> None:
    hours = [Hour(2899, 90, 90, seen_s=1800), Hour(2898, 180, 180)]
    found = decide_forecast({9: hours, 10: hours}, MONDAY_S + 9.5 * HOUR_S)
    assert found is not None
    assert found.rate == pytest.approx(0.05)


def test_a_record_of_steps_knows_the_empty_hours_too() -> None:
    record = record_of([(MONDAY_S + 10, 2.0), (MONDAY_S + 20, 3.0), (MONDAY_S + WEEK_S + 10, 1.0)])
    assert record[0] == [Hour(2900, 2, 5.0), Hour(2901, 1, 1.0)]
    assert record[5] == [Hour(2900, 0, 0.0), Hour(2901, 0, 0.0)]
    assert record_of([]) == {}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "is better than"),
        ({"gain": 0.005}, "is not better"),
        ({"gain": -0.02, "margin": 0.0}, "is not better"),
        ({"forecast_cost": 2.2}, "too dear"),
        ({"days": 1}, "too little"),
    ],
)
def test_a_forecast_is_better_only_by_more_than_chance_and_for_about_the_same_money(
    more: dict[str, float], words: str
) -> None:
    assert words in verdict(**more).words
    assert verdict(**more).is_better == (not more)


def test_a_verdict_compares_the_same_days() -> None:
    plain = [(2.0, 0.5), (2.0, 0.9), (2.0, 0.7), (2.0, 0.8)]
    found = decide_verdict(plain, [(2.0, share + 0.05) for _, share in plain])
    assert found.gain == pytest.approx(0.05)
    assert found.margin == pytest.approx(0, abs=1e-9)
    assert found.is_better
    assert not decide_verdict([], []).is_better


class TestInTheLaw:
    objective = Objective(most=20, best_effort=True)

    def load(self, **more: object) -> PoolLoad:
        fields = {"calm_rate": 1.0, "quick_rate": 1.0, "service_s": 2.0, "ready": 3, "forecast_rate": 4.0}
        return PoolLoad.model_validate({**fields, **more})

    def test_it_is_only_told_until_it_counts(self) -> None:
        told = decide_size(self.load(), self.objective)
        counted = decide_size(self.load(forecast_counts=True), self.objective)
        foretold = decide_size(self.load(calm_rate=4.0, quick_rate=4.0, ready=12), self.objective).asked
        assert told.workers == decide_size(self.load(forecast_rate=None), self.objective).workers < foretold
        assert told.forecast == counted.workers == foretold
        assert counted.why == "the weeks before had 4 steps/s at this hour"

    def test_it_never_lowers_and_knows_the_caps(self) -> None:
        busy = self.load(calm_rate=8.0, quick_rate=8.0, forecast_rate=0.1, forecast_counts=True)
        assert decide_size(busy, self.objective) == decide_size(
            busy.model_copy(update={"forecast_counts": False}), self.objective
        )
        assert decide_size(self.load(forecast_rate=500.0, forecast_counts=True), self.objective).workers == 20

    def test_it_keeps_a_pool_awake_only_for_a_step_that_comes_before_a_worker_could(self) -> None:
        idle = {"calm_rate": 0.0, "quick_rate": 0.0, "idle_s": 600, "startup_s": 10, "forecast_counts": True}
        assert decide_size(self.load(**idle, forecast_rate=0.05), self.objective).workers == 0
        assert decide_size(self.load(**idle, forecast_rate=1.0), self.objective).workers > 0
        assert decide_size(self.load(**{**idle, "forecast_counts": False}), self.objective).workers == 0
