"""Whether the weeks before tell of the next one: recorded load, once by the reactive law alone, once with the forecast.

It walks forward: each day is simulated with what the weeks before it had, and nothing later. Days are compared in
pairs, so that a busy one weighs on both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

from agentq.core.scaling import Objective
from agentq.core.seasons import (
    HOUR_S,
    HOURS,
    SEEN_S,
    WEEKS_NEEDED,
    Hour,
    Record,
    Verdict,
    decide_verdict,
    hour_of,
    record_of,
)
from agentq.fleet.simulator.policies import Law
from agentq.fleet.simulator.traces import Arrival, Trace, service
from agentq.fleet.simulator.world import Pool

DAY_S: Final = 86_400.0

_MONDAY_S: Final = 4 * DAY_S
"""The first Monday of Unix time."""

MOST_STEPS: Final = 100_000
"""Of a day that is simulated; of a busier one every second, third, … step is left out."""

EVERY_S: Final = 5.0
"""Between two decisions: as good as each second over whole days, and five times as quick."""


@dataclass(frozen=True, slots=True)
class Backtest:
    """What was tried.

    Attributes:
        verdict: over all days.
        days: of each, its beginning in Unix time, and cost and share without and with the forecast.
    """

    verdict: Verdict
    days: tuple[tuple[float, tuple[float, float], tuple[float, float]], ...]


@dataclass(frozen=True, slots=True)
class _Day:
    """One day to be tried; `arrivals` is None where its steps are made of the record, by whoever tries it."""

    begin_s: float
    arrivals: tuple[Arrival, ...] | None
    record: Record
    objective: Objective
    startup_s: float

    @property
    def trace(self) -> Trace:
        """Its load, made anew at each call: all days of a busy pool together need more memory than there is."""
        arrivals = self.arrivals
        if arrivals is None:
            steps = steps_of(self.record, self.begin_s)
            arrivals = tuple(Arrival(moment - self.begin_s, seconds) for moment, seconds in steps)
        return Trace("day", DAY_S, arrivals)


def backtest(
    steps: Sequence[tuple[float, float]] | None,
    objective: Objective,
    *,
    startup_s: float,
    begins_s: float | None = None,
    record: Record | None = None,
    processes: int = 1,
    say: Callable[[str], None] = lambda words: None,
) -> Backtest:
    """Try the days of these steps, each a Unix time and the seconds that it takes, in order of time.

    A day counts once two whole weeks lie before it; a load that is shorter gives none. `begins_s`: since when steps are
    told of, None: since the first of them. `record`: what the weeks before are read from; None: the steps. Where no
    steps are given, they are made of the record, day by day.
    """
    if steps is None:
        days = _recorded_days(record or {}, objective, startup_s)
    else:
        days = _days(steps, objective, startup_s, begins_s, record)
    say(f"{len(days)} days, each with the weeks before it and without")
    if processes > 1 and len(days) > 1:
        with ProcessPoolExecutor(processes) as pool:
            found = list(pool.map(_try, days))
    else:
        found = [_try(day) for day in days]
    tried = tuple((day.begin_s, plain, seasonal) for day, (plain, seasonal) in zip(days, found, strict=True))
    return Backtest(decide_verdict([plain for _, plain, _ in tried], [seasonal for _, _, seasonal in tried]), tried)


def steps_of(record: Record, day_s: float, seed: int = 1) -> list[tuple[float, float]]:
    """Steps of a day as the record of a pool's hours had them: as many in each hour, at random times within it.

    What happened within an hour the record does not know: a load that jumps on the minute jumps less here.
    """
    random = Random(f"record{seed}-{day_s:.0f}")
    found: list[tuple[float, float]] = []
    for begin, each in _hours(record, day_s):
        mean = max(each.busy_s / each.arrivals, 0.001)
        found.extend((begin + random.uniform(0, HOUR_S), service(random, mean)) for _ in range(_steps_in(each)))
    return sorted(found)


def _hours(record: Record, day_s: float) -> list[tuple[float, Hour]]:
    """The hours of the day in which steps came, as far as they were seen, each with its beginning."""
    week, first = hour_of(day_s)
    return [
        (day_s + (hour - first) * HOUR_S, each)
        for hour in range(first, first + 24)
        for each in record.get(hour, ())
        if each.week == week and each.seen_s >= SEEN_S and each.arrivals
    ]


def _steps_in(hour: Hour) -> int:
    return round(hour.arrivals * HOUR_S / hour.seen_s)


def begin_of(record: Record) -> float | None:
    """Since when the record tells of the pool, in Unix time; None where it is empty."""
    return min(
        (_MONDAY_S + (each.week * HOURS + hour) * HOUR_S for hour, kept in record.items() for each in kept),
        default=None,
    )


def _days(
    steps: Sequence[tuple[float, float]],
    objective: Objective,
    startup_s: float,
    begins_s: float | None = None,
    record: Record | None = None,
) -> list[_Day]:
    if not steps:
        return []
    whole = record_of(steps) if record is None else record
    # A week counts that is there from its Monday on, give or take an hour.
    begins_s = steps[0][0] if begins_s is None else begins_s
    first = hour_of(begins_s - HOUR_S)[0] + 1
    whole = {hour: [each for each in kept if each.week >= first] for hour, kept in whole.items()}
    begin = _MONDAY_S + (first + WEEKS_NEEDED) * 7 * DAY_S
    edges = [begin + number * DAY_S for number in range(int(max(0.0, steps[-1][0] - begin) / DAY_S) + 2)]
    found, at = [], 0
    for day, end in pairwise(edges):
        while at < len(steps) and steps[at][0] < day:
            at += 1
        upto = at
        while upto < len(steps) and steps[upto][0] < end:
            upto += 1
        of_day, at = steps[at:upto], upto
        if of_day:
            every = -(-len(of_day) // MOST_STEPS)
            arrivals = tuple(Arrival(moment - day, seconds) for moment, seconds in of_day[::every])
            thinned = whole if every == 1 else _thinned(whole, every)
            found.append(_Day(day, arrivals, thinned, objective, startup_s))
    return found


def _recorded_days(record: Record, objective: Objective, startup_s: float) -> list[_Day]:
    begins_s = begin_of(record)
    if begins_s is None:
        return []
    first = hour_of(begins_s - HOUR_S)[0] + 1
    last = max(each.week for kept in record.values() for each in kept)
    whole = {hour: [each for each in kept if each.week >= first] for hour, kept in record.items()}
    begin = _MONDAY_S + (first + WEEKS_NEEDED) * 7 * DAY_S
    found = []
    for number in range(max(0, last + 1 - first - WEEKS_NEEDED) * 7):
        day_s = begin + number * DAY_S
        came = sum(_steps_in(each) for _, each in _hours(whole, day_s))
        if came:
            every = -(-came // MOST_STEPS)
            found.append(_Day(day_s, None, whole if every == 1 else _thinned(whole, every), objective, startup_s))
    return found


def _thinned(record: Record, every: int) -> Record:
    return {
        hour: [each._replace(arrivals=each.arrivals / every, busy_s=each.busy_s / every) for each in kept]
        for hour, kept in record.items()
    }


def _service_before(day: _Day) -> float:
    """Mean seconds of a step in the weeks before: a controller knows it when the day begins."""
    week = hour_of(day.begin_s)[0]
    past = [each for kept in day.record.values() for each in kept if each.week < week]
    came = sum(each.arrivals for each in past)
    return sum(each.busy_s for each in past) / came if came else 0.0


def _try(day: _Day) -> tuple[tuple[float, float], tuple[float, float]]:
    found = []
    trace = day.trace
    for record in (None, day.record):
        law = Law(day.objective, every=EVERY_S, record=record, begins_s=day.begin_s, service_s=_service_before(day))
        outcome = Pool(trace, seed=1, objective_s=day.objective.slo_wait.total_seconds(), startup_s=day.startup_s).run(
            law
        )
        found.append((outcome.worker_s / trace.work, outcome.share))
    return found[0], found[1]
