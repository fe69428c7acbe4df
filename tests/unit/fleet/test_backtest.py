"""A backtest: what repeats helps, what does not is said to be no help, and no day knows what came after it."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest

from agentq.core.scaling import Objective
from agentq.core.seasons import HOUR_S, Hour, decide_forecast, record_of
from agentq.fleet.backtest import DAY_S, MOST_STEPS, _days, _recorded_days, backtest, begin_of, steps_of

MONDAY_S = 4 * DAY_S + 2900 * 7 * DAY_S
OBJECTIVE = Objective(most=40, slo_wait=timedelta(seconds=5), best_effort=True)


def rushes(weeks: float, *, hour: float, steps: int = 300, seed: int = 1) -> list[tuple[float, float]]:
    """Each day a rush of an hour, and nothing else."""
    random = Random(seed)
    days = range(int(weeks * 7))
    return sorted(
        (MONDAY_S + day * DAY_S + hour * HOUR_S + random.uniform(0, 3600), 2.0) for day in days for _ in range(steps)
    )


def test_what_comes_every_week_at_the_same_hour_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentq.fleet.backtest.EVERY_S", 30.0)
    found = backtest(rushes(3, hour=9), OBJECTIVE, startup_s=60, begins_s=MONDAY_S)
    assert len(found.days) == found.verdict.days == 7
    assert found.verdict.forecast_share > found.verdict.share


def test_two_weeks_alone_are_no_backtest() -> None:
    assert backtest(rushes(2, hour=9), OBJECTIVE, startup_s=60, begins_s=MONDAY_S).days == ()
    assert backtest([], OBJECTIVE, startup_s=60).days == ()


def test_a_week_that_began_before_its_record_is_not_whole() -> None:
    assert backtest(rushes(3, hour=9), OBJECTIVE, startup_s=60).days == ()


def test_what_nobody_saw_is_not_taken_for_quiet() -> None:
    record = {9: [Hour(2900, 0, 0.0, seen_s=60), Hour(2901, 9, 9.0), Hour(2902, 9, 9.0)]}
    assert begin_of(record) == MONDAY_S + 9 * HOUR_S
    (day,) = _days([(MONDAY_S + 14 * DAY_S + 9.2 * HOUR_S, 1.0)], OBJECTIVE, 60, MONDAY_S, record)
    assert decide_forecast(day.record, day.begin_s + 9.5 * HOUR_S) is None


def test_no_day_knows_what_came_after_it() -> None:
    steps = rushes(3, hour=9)
    for day in _days(steps, OBJECTIVE, 60, MONDAY_S):
        before = [each for each in steps if each[0] < MONDAY_S + 14 * DAY_S]
        at = day.begin_s + 9.5 * HOUR_S
        assert decide_forecast(day.record, at) == decide_forecast(record_of(before), at)


def test_of_a_crowded_day_a_part_stands_for_all() -> None:
    crowd = [(MONDAY_S + day * DAY_S + 10, 1.0) for day in range(0, 21, 7) for _ in range(2 * MOST_STEPS)]
    (day,) = _days(crowd, OBJECTIVE, 60)
    assert day.trace.steps == MOST_STEPS
    assert day.record[0][0].arrivals == MOST_STEPS


def test_a_record_makes_steps_as_many_as_its_hours_had() -> None:
    record = {9: [Hour(2900, 100, 300.0), Hour(2901, 10, 30.0, seen_s=1800)], 10: [Hour(2900, 5, 5.0, seen_s=10)]}
    steps = steps_of(record, MONDAY_S)
    assert len(steps) == 100
    assert steps == sorted(steps)
    assert record_of(steps)[9][0].arrivals == 100
    assert len(steps_of(record, MONDAY_S + 7 * DAY_S)) == 20
    assert steps_of(record, MONDAY_S + DAY_S) == []


def test_a_recorded_day_is_tried_as_its_steps_would_be() -> None:
    record = record_of(rushes(3, hour=9))
    days, same = _recorded_days(record, OBJECTIVE, 60), _days(rushes(3, hour=9), OBJECTIVE, 60, MONDAY_S)
    assert [day.begin_s for day in days] == [day.begin_s for day in same]
    assert [day.trace.steps for day in days] == [day.trace.steps for day in same]
    assert [day.record for day in days] == [record] * 7


def test_the_days_of_a_busy_pool_are_not_all_there_at_once() -> None:
    record = {hour: [Hour(week, 40_000_000, 4e7) for week in (2900, 2901, 2902)] for hour in range(168)}
    days = _recorded_days(record, OBJECTIVE, 60)
    assert len(days) == 7
    assert all(day.arrivals is None for day in days)
    assert MOST_STEPS * 0.99 <= days[0].trace.steps <= MOST_STEPS + 24
