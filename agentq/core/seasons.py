"""What a pool's load was in each hour of the week, and what that says of the hour to come.

A week has 168 hours, from Monday 00:00 UTC. What this hour was in the weeks before is a forecast, no more: it says
nothing until two weeks are known. It must not know where records are kept, nor what a forecast is used for.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from statistics import mean, median, stdev
from typing import Final, NamedTuple

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from agentq.core.models import Model

HOURS: Final = 168
"""Of a week."""

HOUR_S: Final = 3600.0

WEEKS_KEPT: Final = 6
"""Of each hour: more would answer a change of habits too slowly."""

WEEKS_NEEDED: Final = 2
"""One week is no habit."""

_MONDAY_S: Final = 4 * 86_400
"""The first Monday of Unix time."""

SEEN_S: Final = 900.0
"""Of an hour of which less was seen nothing is known."""

VERDICT_DAYS: Final = 28
"""A backtest that is older says nothing of the load of now."""

DEARER: Final = 1.05
"""What is in time for more than this, in the reactive law's cost, could be bought by a stricter objective as well."""


class Hour(NamedTuple):
    """What one hour of one week had: steps that came, the seconds that they take, and how much of it was seen."""

    week: int
    arrivals: float
    busy_s: float
    seen_s: float = HOUR_S


Record = Mapping[int, Sequence[Hour]]
"""By hour of the week, what it was in the last weeks, in any order."""


class Forecast(NamedTuple):
    """What is expected at a moment: arrivals per second, and the mean seconds of a step."""

    rate: float
    service_s: float


class Verdict(Model):
    """What a backtest has found: the reactive law with the forecast beside the same law without, on the same days."""

    at_ms: NonNegativeInt = 0
    days: NonNegativeInt
    cost: NonNegativeFloat
    """Of the reactive law: seconds of workers for each second of work."""
    share: float = Field(ge=0, le=1)
    """Of the steps that begin in time, with the reactive law."""
    forecast_cost: NonNegativeFloat
    forecast_share: float = Field(ge=0, le=1)
    gain: float
    """Mean over the days of what the forecast adds to the share."""
    margin: NonNegativeFloat
    """Half the width of the 95 % confidence interval of the gain."""

    @property
    def is_better(self) -> bool:
        """Whether the forecast begins more steps in time than chance explains, for about the same money."""
        return self.days >= 2 and self.gain > self.margin and self.forecast_cost <= self.cost * DEARER

    @property
    def words(self) -> str:
        """In a sentence."""
        change = f"{self.gain * 100:+.2f} ± {self.margin * 100:.2f} points in time, {self._dearer:+.1%} cost"
        if self.is_better:
            return f"The forecast is better than the reactive law: {change}, over {self.days} days."
        if self.days < 2:
            return "There is too little to tell."
        if self.gain <= self.margin:
            return f"The forecast is not better than the reactive law: {change}, over {self.days} days."
        return f"The forecast is in time more often, but too dear for that: {change}, over {self.days} days."

    @property
    def _dearer(self) -> float:
        return self.forecast_cost / self.cost - 1 if self.cost else 0.0


def hour_of(at_s: float) -> tuple[int, int]:
    """The week and the hour of the week (0 to 167) of a moment in seconds of Unix time."""
    return divmod(int((at_s - _MONDAY_S) // HOUR_S), HOURS)


def decide_forecast(record: Record, at_s: float) -> Forecast | None:
    """What the weeks before say of that moment, between the middles of its two nearest hours; None where they are few.

    The median over the weeks: one odd week is not the next one's forecast.
    """
    middle = (at_s - _MONDAY_S) / HOUR_S - 0.5
    first = int(middle // 1)
    share = middle - first
    week = hour_of(at_s)[0]
    found = [_usual(record.get(hour % HOURS, ()), week) for hour in (first, first + 1)]
    before, after = found
    if before is None or after is None:
        return None
    rate = before.rate * (1 - share) + after.rate * share
    works = before.rate * before.service_s * (1 - share) + after.rate * after.service_s * share
    return Forecast(rate, works / rate if rate > 0 else 0.0)


def decide_verdict(plain: Sequence[tuple[float, float]], seasonal: Sequence[tuple[float, float]]) -> Verdict:
    """What so many days say, of each its cost and share without the forecast and with it, in the same order."""
    gains = [ours[1] - theirs[1] for ours, theirs in zip(seasonal, plain, strict=True)]
    # Student's t at 95 %: https://en.wikipedia.org/wiki/Student%27s_t-distribution
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45}.get(len(gains), 2.36 if len(gains) < 12 else 2.2)
    return Verdict(
        days=len(gains),
        cost=mean(cost for cost, _ in plain) if plain else 0.0,
        share=mean(share for _, share in plain) if plain else 0.0,
        forecast_cost=mean(cost for cost, _ in seasonal) if seasonal else 0.0,
        forecast_share=mean(share for _, share in seasonal) if seasonal else 0.0,
        gain=mean(gains) if gains else 0.0,
        margin=t * stdev(gains) / sqrt(len(gains)) if len(gains) > 1 else 0.0,
    )


def record_of(steps: Iterable[tuple[float, float]]) -> dict[int, list[Hour]]:
    """The record that a controller would have kept of these steps, each a Unix time and the seconds that it takes."""
    sums: dict[tuple[int, int], tuple[float, float]] = {}
    for at_s, service_s in steps:
        key = hour_of(at_s)
        count, busy = sums.get(key, (0.0, 0.0))
        sums[key] = (count + 1, busy + service_s)
    if not sums:
        return {}
    weeks = sorted({week for week, _ in sums})
    record: dict[int, list[Hour]] = {}
    # An hour in which nothing came is as much a part of the habit.
    for week in range(weeks[0], weeks[-1] + 1):
        for hour in range(HOURS):
            count, busy = sums.get((week, hour), (0.0, 0.0))
            record.setdefault(hour, []).append(Hour(week, count, busy))
    return record


def _usual(hours: Sequence[Hour], week: int) -> Forecast | None:
    past = [each for each in hours if week - WEEKS_KEPT <= each.week < week and each.seen_s >= SEEN_S]
    if len(past) < WEEKS_NEEDED:
        return None
    came, busy = sum(each.arrivals for each in past), sum(each.busy_s for each in past)
    return Forecast(median(each.arrivals / each.seen_s for each in past), busy / came if came else 0.0)
