"""The cheapest mix of machine sizes that meets an objective on a load: estimated for many, simulated for the best.

The rules are `agentq.core.planning`'s; here they meet the simulator, where the law of production sizes the mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from statistics import mean
from typing import Final

from agentq.core.planning import (
    Estimate,
    Mix,
    Need,
    Shape,
    Window,
    decide_candidates,
    estimate,
    needs_of,
    neighbours,
)
from agentq.core.rates import Mean
from agentq.core.scaling import QUANTILE, Objective
from agentq.fleet.simulator.policies import Fixed, Law
from agentq.fleet.simulator.traces import Arrival, Trace
from agentq.fleet.simulator.world import Kind, Policy, Pool

WINDOW_S: Final = 60.0
"""Over so many seconds a load is taken as steady by the estimate."""

_GRID: Final = 5
"""Numbers of each pair of shapes that are simulated before the search goes on around the best."""

_FAR: Final = 2.5
"""A mix whose estimate is so many times the least is not simulated, unless it is one shape alone."""

_ROUNDS: Final = 4

_SPARE: Final = 2
"""Slots that may be there at once, in those that the busiest window needs: every pool has its `max`."""

_LEAST_MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Tried:
    """A mix that was simulated; means over the traces.

    Attributes:
        cost: of an hour.
        share: of the steps that began within the objective.
        p95: seconds.
        most: instances that came and went, at once.
    """

    mix: Mix
    cost: float
    share: float
    p95: float
    most: int

    @property
    def meets(self) -> bool:
        """Whether it reaches the objective."""
        return self.share >= QUANTILE


@dataclass(frozen=True, slots=True)
class Plan:
    """What came of a search.

    Attributes:
        needs: what the load needs for how long, by the estimate.
        candidates: all mixes with their estimates, the cheapest first.
        tried: those that were simulated, in no order.
        chosen: the cheapest that meets the objective; None where none does.
        checked: the chosen mix on loads that it was not chosen by; None where there were none.
    """

    slo_s: float
    needs: tuple[Need, ...]
    candidates: tuple[Estimate, ...]
    tried: tuple[Tried, ...]
    chosen: Tried | None
    checked: Tried | None = None

    @property
    def of_each_pair(self) -> list[Tried]:
        """For each pair of shapes its cheapest mix that meets the objective, else the one that comes nearest."""
        pairs: dict[tuple[str, str], Tried] = {}
        for each in self.tried:
            key = pair_of(each.mix)
            if key not in pairs or _rank(each) < _rank(pairs[key]):
                pairs[key] = each
        return sorted(pairs.values(), key=_rank)

    def alone(self, shape: Shape) -> Tried | None:
        """The best mix of this shape alone: always running, as needed, or both."""
        found = [each for each in self.tried if {mix_shape.name for mix_shape in shapes_of(each.mix)} == {shape.name}]
        return min(found, key=_rank, default=None)


def plan(
    traces: Sequence[Trace],
    shapes: Sequence[Shape],
    *,
    slo_s: float,
    check: Sequence[Trace] = (),
    processes: int = 1,
    say: Callable[[str], None] = lambda words: None,
) -> Plan:
    """The cheapest mix of these shapes with which 95 of 100 steps of the traces start within `slo_s` seconds.

    `check` are loads on which the chosen one is simulated once more. The same arguments give the same plan.
    """
    needs = needs_of((window for trace in traces for window in windows_of(trace)), slo_s)
    candidates = decide_candidates(shapes, needs)
    tried: dict[Mix, Tried] = {}
    most = max(_LEAST_MOST, _SPARE * needs[-1].slots) if needs else _LEAST_MOST
    with _Simulations(traces, slo_s, most, processes) as simulations:
        wave = _first_wave(candidates)
        for _ in range(_ROUNDS):
            say(f"{len(wave)} mixes on {len(traces)} load{'s' if len(traces) > 1 else ''}")
            tried |= {each.mix: each for each in simulations.of(wave)}
            best = min(tried.values(), key=_rank)
            wave = _next_wave(best, tried, needs)
            if not wave:
                break
    chosen = best if best.meets else None
    checked = None
    if chosen is not None and check:
        with _Simulations(check, slo_s, most, processes) as simulations:
            checked = next(iter(simulations.of([chosen.mix])))
    return Plan(slo_s, needs, tuple(candidates), tuple(tried.values()), chosen, checked)


def windows_of(trace: Trace, seconds: float = WINDOW_S) -> Iterator[Window]:
    """The load minute by minute; what a step asks for counts when the one before would end if nothing waited."""
    counts: dict[int, Mean] = {}
    for at, service in _flat(trace.arrivals, 0.0):
        counts.setdefault(int(at / seconds), Mean(memory=1_000_000)).see(service)
    for number in range(max(counts, default=-1) + 1):
        found = counts.get(number)
        if found is None:
            yield Window(seconds, 0.0, 0.0, 1.0)
        else:
            yield Window(seconds, found.count / seconds, found.value, found.variation)


def simulate_mix(trace: Trace, mix: Mix, slo_s: float, *, most: int, seed: int = 1) -> Tried:
    """The mix on one trace, its workers all on one queue, and those that come and go sized by the law.

    `most` slots may be there at once.
    """
    elastic = mix.elastic
    fixed = [] if mix.base is None else [_kind(mix.base)] * mix.number
    pool = Pool(trace, seed=seed, objective_s=slo_s, kind=None if elastic is None else _kind(elastic), fixed=fixed)
    outcome = pool.run(Fixed(0, every=1.0) if elastic is None else _law(slo_s, max(most, mix.fixed_slots)))
    hours = max(pool.now, 1.0) / 3600
    return Tried(mix, outcome.spent / hours, outcome.share, outcome.p95, outcome.largest - len(fixed))


def pair_of(mix: Mix) -> tuple[str, str]:
    """The names of the shapes of a mix: what always runs, and what comes and goes."""
    return "" if mix.base is None else mix.base.name, "" if mix.elastic is None else mix.elastic.name


def shapes_of(mix: Mix) -> list[Shape]:
    """Its shapes, one or two."""
    return [shape for shape in (mix.base, mix.elastic) if shape is not None]


class _Simulations:
    """Simulates mixes on the same traces, in several processes."""

    def __init__(self, traces: Sequence[Trace], slo_s: float, most: int, processes: int) -> None:
        self._traces, self._terms = traces, (slo_s, most)
        self._pool = (
            ProcessPoolExecutor(processes, initializer=_keep, initargs=(tuple(traces),)) if processes > 1 else None
        )

    def __enter__(self) -> _Simulations:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def of(self, mixes: Sequence[Mix]) -> list[Tried]:
        """One for each mix, in their order: the means over the traces."""
        asked = [(number, mix, *self._terms) for mix in mixes for number in range(len(self._traces))]
        if self._pool is None:
            found = [
                simulate_mix(self._traces[number], mix, slo_s, most=most, seed=number)
                for number, mix, slo_s, most in asked
            ]
        else:
            found = list(self._pool.map(_simulate_kept, asked))
        rows = [found[at : at + len(self._traces)] for at in range(0, len(found), len(self._traces))]
        return [_mean(row) for row in rows]


_kept: tuple[Trace, ...] = ()


def _keep(traces: tuple[Trace, ...]) -> None:
    global _kept
    _kept = traces


def _simulate_kept(asked: tuple[int, Mix, float, int]) -> Tried:
    number, mix, slo_s, most = asked
    return simulate_mix(_kept[number], mix, slo_s, most=most, seed=number)


def _mean(row: Sequence[Tried]) -> Tried:
    return Tried(
        row[0].mix,
        mean(each.cost for each in row),
        mean(each.share for each in row),
        mean(each.p95 for each in row),
        max(each.most for each in row),
    )


def _rank(tried: Tried) -> tuple[bool, float, float]:
    # Of those that meet the objective the cheapest, else the one that comes nearest to it.
    return not tried.meets, tried.cost if tried.meets else -tried.share, tried.cost


def _first_wave(candidates: Sequence[Estimate]) -> list[Mix]:
    pairs: dict[tuple[str, str], list[Estimate]] = {}
    for each in candidates:
        pairs.setdefault(pair_of(each.mix), []).append(each)
    least = min(each.cost for each in candidates)
    chosen: list[Mix] = []
    for found in pairs.values():
        by_number = sorted(found, key=lambda each: each.mix.number)
        spread = {by_number[round(at * (len(by_number) - 1) / (_GRID - 1))] for at in range(_GRID)}
        spread.add(min(found, key=lambda each: each.cost))
        is_alone = len({shape.name for shape in shapes_of(found[0].mix)}) == 1
        chosen += [each.mix for each in by_number if each in spread and (is_alone or each.cost <= least * _FAR)]
    return chosen


def _next_wave(best: Tried, tried: dict[Mix, Tried], needs: Sequence[Need]) -> list[Mix]:
    """What lies around the best, and around each other pair's best that could still be cheaper."""
    around: dict[Mix, None] = {}
    pairs = Plan(0.0, (), (), tuple(tried.values()), None).of_each_pair
    for each in pairs:
        is_near = each.cost <= best.cost * 1.25 or not best.meets
        around |= dict.fromkeys(neighbours(each.mix) if is_near else [])
    fresh = [mix for mix in around if mix not in tried]
    # The estimate is below what comes of it: what is dearer already need not be simulated.
    return [mix for mix in fresh if not best.meets or estimate(mix, needs) < best.cost]


def _kind(shape: Shape) -> Kind:
    return Kind(slots=shape.slots, startup_s=shape.startup_s, cost=shape.cost_per_hour / 3600)


def _law(slo_s: float, most: int) -> Policy:
    # Whatever a worker's start-up time: whether to sleep at zero is part of what is compared.
    return Law(Objective(most=most, slo_wait=timedelta(seconds=slo_s), best_effort=True))


def _flat(arrivals: Iterable[Arrival], begin: float) -> Iterator[tuple[float, float]]:
    for arrival in arrivals:
        at = begin + arrival.at
        yield at, arrival.service
        yield from _flat(arrival.children, at + arrival.service)
