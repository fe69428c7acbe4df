"""The law beside its rivals: each rival tuned for each trace on some seeds, all compared on others.

What a pool costs and how many of its steps begin in time are two ends of one scale, so a rival is not shown at one
default but as a front: its best share for each cost, over its own parameters. It is compared at the parameters that
gave it the best share, on the seeds for tuning, at no more cost than the law's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from math import sqrt
from statistics import mean, stdev
from typing import Any, Final

from agentq.core.scaling import Objective
from agentq.fleet.simulator.policies import (
    BacklogPerWorker,
    CeleryAutoscaler,
    Clairvoyant,
    ConcurrencyTarget,
    CpuTarget,
    Fixed,
    Law,
    QueueDepth,
)
from agentq.fleet.simulator.traces import TRACES, Trace
from agentq.fleet.simulator.world import OBJECTIVE_S, Policy, Pool

TUNING_SEEDS: Final = (101, 102, 103, 104)
HELD_OUT_SEEDS: Final = tuple(range(201, 211))
"""Neither the law's constants nor a rival's parameters were chosen on these."""

LAW: Final = "agentq"
BOUND: Final = "clairvoyant"


def make_law(*, is_foreseeing: bool = True) -> Law:
    """The law as it is shipped, for the simulated pool's objective."""
    objective = Objective(
        most=200,
        slo_wait=timedelta(seconds=OBJECTIVE_S),
        # A worker starts more slowly than the objective: without this the pool never sleeps.
        best_effort=True,
        idle_after=timedelta(seconds=30),
    )
    return Law(objective, is_foreseeing=is_foreseeing)


@dataclass(frozen=True, slots=True)
class Rival:
    """A way to size a pool, with the values to try for each of its parameters."""

    name: str
    make: Callable[..., Policy]
    grid: dict[str, tuple[float, ...]]

    def variants(self) -> Iterator[dict[str, float]]:
        """All combinations."""
        for values in product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


RIVALS: Final = (
    Rival("fixed", Fixed, {"workers": (4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 18, 22, 26, 30, 36)}),
    Rival("celery", CeleryAutoscaler, {"most": (5, 8, 10, 12, 15, 20, 25, 30, 40, 60), "keepalive": (10, 30, 60, 120)}),
    Rival("hpa cpu", CpuTarget, {"target": (0.4, 0.5, 0.6, 0.7, 0.8, 0.9), "window": (0, 60, 300)}),
    Rival(
        "keda depth",
        QueueDepth,
        {"threshold": (0.1, 0.25, 0.5, 1, 2, 5), "window": (0, 60, 300), "cooldown": (30, 300), "every": (5, 15)},
    ),
    Rival(
        "sqs backlog",
        BacklogPerWorker,
        {"target": (0.5, 0.75, 1, 1.5, 2.5, 4), "shrink_after": (60, 300), "every": (10, 60)},
    ),
    Rival(
        "knative",
        ConcurrencyTarget,
        {
            "target": (0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
            "window": (10, 20, 60),
            "panic_threshold": (1.5, 2, 10),
            "grace": (30,),
        },
    ),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One policy with its parameters on one trace: cost and share for each seed, in the seeds' order.

    Costs are worker seconds for each second of work, so that seeds can be averaged.
    """

    policy: str
    parameters: dict[str, float]
    costs: tuple[float, ...]
    shares: tuple[float, ...]
    p95s: tuple[float, ...]

    @property
    def cost(self) -> float:
        """The mean over the seeds."""
        return mean(self.costs)

    @property
    def share(self) -> float:
        """The mean over the seeds."""
        return mean(self.shares)


@dataclass(frozen=True, slots=True)
class Duel:
    """The law beside one rival on the held-out seeds of one trace.

    Attributes:
        rival: at its best parameters for no more than the law's cost; None where none of them is as cheap.
        gain: mean difference of the shares, the law's less the rival's.
        margin: half the width of the 95 % confidence interval of the gain.
    """

    rival: Point | None
    name: str
    gain: float
    margin: float


@dataclass(frozen=True, slots=True)
class Contest:
    """All of one trace.

    Attributes:
        law, blind, bound: on the held-out seeds; blind is the law without the agents' expected steps.
        fronts: each rival's points on the tuning seeds that no other of its points beats in both cost and share.
        duels: one for each rival.
    """

    trace: str
    law: Point
    blind: Point
    bound: Point
    fronts: dict[str, tuple[Point, ...]]
    duels: tuple[Duel, ...]

    @property
    def best(self) -> Duel | None:
        """The rival with the best share at no more than the law's cost."""
        able = [duel for duel in self.duels if duel.rival is not None]
        return max(able, key=lambda duel: duel.rival.share if duel.rival else 0.0, default=None)


def hold(
    name: str,
    *,
    tuning: Sequence[int] = TUNING_SEEDS,
    held_out: Sequence[int] = HELD_OUT_SEEDS,
    make: Callable[[int], Trace] | None = None,
    processes: int = 1,
    say: Callable[[str], None] = lambda words: None,
) -> Contest:
    """The contest on one trace; `say` hears of the progress. The same seeds give the same result."""
    trials = [(rival.name, variant) for rival in RIVALS for variant in rival.variants()]
    with _Runner(name, make, processes) as run:
        say(f"{name}: the law on {len(tuning)} seeds")
        tuned_law = run.points([(LAW, {})], tuning)[0]
        say(f"{name}: {len(trials)} variants of {len(RIVALS)} rivals on {len(tuning)} seeds")
        tuned = run.points(trials, tuning)
        chosen = {
            rival.name: _best([point for point in tuned if point.policy == rival.name], tuned_law.cost)
            for rival in RIVALS
        }
        say(f"{name}: {len(held_out)} seeds that nobody was tuned on")
        law, blind, bound = run.points([(LAW, {}), (LAW, {"is_foreseeing": 0}), (BOUND, {})], held_out)
        finals = [(rival, point.parameters) for rival, point in chosen.items() if point is not None]
        shown = {point.policy: point for point in run.points(finals, held_out)}
    duels = tuple(_duel(law, rival.name, shown.get(rival.name)) for rival in RIVALS)
    fronts = {rival.name: _front([point for point in tuned if point.policy == rival.name]) for rival in RIVALS}
    return Contest(trace=name, law=law, blind=blind, bound=bound, fronts=fronts, duels=duels)


def simulate(trace: Trace, policy: str, parameters: dict[str, float], seed: int) -> tuple[float, float, float]:
    """Cost (worker seconds for each second of work), share in time, and p95 of the waits, in seconds."""
    outcome = Pool(trace, seed=seed).run(_make(policy, parameters))
    return outcome.worker_s / trace.work, outcome.share, outcome.p95


class _Runner:
    """Simulates in several processes; a trace travels as its name and seed where it can."""

    def __init__(self, name: str, make: Callable[[int], Trace] | None, processes: int) -> None:
        self._name, self._make = name, make
        self._pool = ProcessPoolExecutor(processes) if processes > 1 and make is None else None

    def __enter__(self) -> _Runner:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def points(self, trials: Sequence[tuple[str, dict[str, float]]], seeds: Sequence[int]) -> list[Point]:
        """One point for each trial, in their order."""
        asked = [(self._name, policy, parameters, seed) for seed in seeds for policy, parameters in trials]
        if self._pool is None:
            make = self._make or TRACES[self._name]
            traces = {seed: make(seed) for seed in seeds}
            found = [simulate(traces[seed], policy, parameters, seed) for _, policy, parameters, seed in asked]
        else:
            found = list(self._pool.map(_simulate_named, asked, chunksize=8))
        by_seed = [found[at : at + len(trials)] for at in range(0, len(found), len(trials))]
        return [
            Point(
                policy=policy,
                parameters=parameters,
                costs=tuple(row[at][0] for row in by_seed),
                shares=tuple(row[at][1] for row in by_seed),
                p95s=tuple(row[at][2] for row in by_seed),
            )
            for at, (policy, parameters) in enumerate(trials)
        ]


_made: dict[tuple[str, int], Trace] = {}


def _simulate_named(asked: tuple[str, str, dict[str, float], int]) -> tuple[float, float, float]:
    name, policy, parameters, seed = asked
    if (name, seed) not in _made:
        _made.clear()
        _made[name, seed] = TRACES[name](seed)
    return simulate(_made[name, seed], policy, parameters, seed)


def _make(policy: str, parameters: dict[str, float]) -> Policy:
    if policy == LAW:
        return make_law(is_foreseeing=bool(parameters.get("is_foreseeing", 1)))
    if policy == BOUND:
        return Clairvoyant()
    given: dict[str, Any] = dict(parameters)
    for name in ("workers", "most"):
        if name in given:
            given[name] = int(given[name])
    return next(rival for rival in RIVALS if rival.name == policy).make(**given)


def _best(points: Sequence[Point], cost: float) -> Point | None:
    able = [point for point in points if point.cost <= cost]
    return max(able, key=lambda point: point.share, default=None)


def _front(points: Sequence[Point]) -> tuple[Point, ...]:
    front: list[Point] = []
    for point in sorted(points, key=lambda each: (each.cost, -each.share)):
        if not front or point.share > front[-1].share:
            front.append(point)
    return tuple(front)


def _duel(law: Point, name: str, rival: Point | None) -> Duel:
    if rival is None:
        return Duel(rival=None, name=name, gain=law.share, margin=0.0)
    gains = [ours - theirs for ours, theirs in zip(law.shares, rival.shares, strict=True)]
    # Student's t at 95 % for the usual numbers of seeds; https://en.wikipedia.org/wiki/Student%27s_t-distribution
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}.get(len(gains), 2.0)
    margin = t * stdev(gains) / sqrt(len(gains)) if len(gains) > 1 else float("inf")
    return Duel(rival=rival, name=name, gain=mean(gains), margin=margin)
