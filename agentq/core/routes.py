"""Which pool a call goes to. Pure: it is told how the pools stand, and reads no clock.

Precedence, the first that is given decides:

1. `queue=` of the call
2. `pool=` of the call
3. `needs=` of the call
4. `queue=` of the step
5. `pool=` of the step
6. `needs=` of the step
7. the default pool

A pool that is asked for by name, or by its queue, is taken whatever the needs, unless its tags contradict them; a pool
without the tag `gpu` contradicts a need for one. Among several pools that
meet the needs the one where the call is expected to start soonest is taken, with what costs less and what the call
prefers weighed in: see `_choose`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from operator import add
from typing import Any, Final, Literal, NamedTuple

from agentq.core.errors import NoPoolFor, UnknownPool
from agentq.core.lanes import PRIORITIES
from agentq.core.models import Needs
from agentq.core.pools import DEFAULT_POOL, Declared, PoolSpec, contradicts, has_tags

Tier = Literal["interactive", "batch"]
"""What a call is worth: interactive ones go where they start soon, batch ones where they cost least."""

OnFull = Literal["raise", "wait"]
"""What a start does when too many wait in its pool already."""

TIERS: Final[tuple[Tier, ...]] = ("interactive", "batch")

SERVICE_S: Final = 1.0
"""How long an attempt is taken to last in a pool of which none was measured yet."""

ALIKE_S: Final = 1.0
"""Two pools that start a call within so long of each other are as good as each other, and the cheaper is taken.

Less for attempts that last less: one that takes 10 ms is not to wait for a second."""


class Route(NamedTuple):
    """Where a call goes. `pool` is None where a queue was named; `why` tells what decided, for people.

    `needs` is what chose the pool, None where it was named; `fits` how many pools meet that. `most` is how many may
    wait there, None for no bound.
    """

    queue: str
    pool: str | None
    why: str
    needs: dict[str, str] | None = None
    fits: int = 1
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """How one pool stood when it was last looked at.

    Attributes:
        workers: that take from it now; those that are full of trouble, or leave, do not count.
        slots, busy: of these workers.
        waiting: steps in each lane, from critical to low.
        service_s: how long an attempt holds a slot there, lately; None where none was measured.
    """

    workers: int = 0
    slots: int = 0
    busy: int = 0
    waiting: tuple[int, ...] = (0, 0, 0, 0)
    service_s: float | None = None

    @property
    def each_s(self) -> float:
        """By how much one that stands before it delays a newcomer; infinite without a slot."""
        return self.lasts_s / self.slots if self.slots else inf

    @property
    def lasts_s(self) -> float:
        """How long an attempt is taken to last."""
        return SERVICE_S if self.service_s is None else self.service_s

    def lead(self, lane: int) -> int:
        """How many attempts must end before a newcomer in the lane (its number) starts; 0 or less: it starts at once.

        Those of its own lane and of the lanes above go before it.
        """
        return sum(self.waiting[: lane // 3 + 1]) - (self.slots - self.busy) + 1

    def wait_s(self, lane: int) -> float:
        """How long a call in the lane is expected to wait; infinite without a slot."""
        return max(self.lead(lane), 0) * self.each_s if self.slots else inf


class Chances(NamedTuple):
    """The pools that fit and have a worker, in the order in which they are taken where nothing tells them apart.

    By columns, since all of them are looked at at every call.
    """

    pools: list[str]
    leads: list[int]
    each_s: list[float]
    lasts_s: list[float]
    penalties_s: list[float]
    costs: list[float]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a process knows of the pools: how they stood, and what it has sent there since itself.

    Without the second, all that one process sends within a second would go to the pool that was best at its beginning.
    """

    loads: Mapping[str, Load]
    sent: dict[str, int] = field(default_factory=dict)
    chances: dict[Any, Chances] = field(default_factory=dict)
    """By what was asked: the same is asked again and again, and only `sent` changes meanwhile."""

    def note(self, pool: str) -> None:
        """One more call was sent there."""
        self.sent[pool] = self.sent.get(pool, 0) + 1


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a call would like of its pool, where several meet its needs.

    Attributes:
        prefer: tags that it had rather, for which it waits up to `patience_s` longer.
        tier: None for interactive.
        deadline_s: it shall end within so long: the pool that ends it soonest is taken, whatever it costs.
        lane: number of its lane.
    """

    prefer: Needs | None = None
    tier: Tier | None = None
    deadline_s: float | None = None
    lane: int = PRIORITIES["normal"]
    patience_s: float = 5.0


NO_WISHES: Final = Wishes()


def decide_route(
    pools: Mapping[str, PoolSpec],
    *,
    step: str,
    call_queue: str | None = None,
    call_pool: str | None = None,
    call_needs: Needs | None = None,
    step_queue: str | None = None,
    step_pool: str | None = None,
    step_needs: Needs | None = None,
    default_pool: str = DEFAULT_POOL,
    wishes: Wishes = NO_WISHES,
    outlook: Outlook | None = None,
) -> Route:
    """Where a call of the step goes, by the precedence above. Any pool may be named where none is declared.

    `outlook` is None where nothing is known of the workers: then the step's own pool goes first, then the one with the
    fewest tags (the special machines stay free for what needs them), then the first by name.

    Raises:
        UnknownPool: the pool is not declared, while others are.
        NoPoolFor: no declared pool meets the needs, or the named one contradicts them.
    """
    needs = step_needs if call_needs is None else call_needs
    if call_queue is not None:
        _check(pools, step, call_queue, needs)
        return Route(call_queue, None, f"the call names queue {call_queue}")
    if call_pool is not None:
        return _named(pools, step, call_pool, needs, f"the call names pool {call_pool}")
    if call_needs is not None and (wanted := call_needs.as_tags()):
        return _needed(pools, step, wanted, step_pool, wishes, outlook)
    if step_queue is not None:
        _check(pools, step, step_queue, step_needs)
        return Route(step_queue, None, f"the step names queue {step_queue}")
    if step_pool is not None:
        return _named(pools, step, step_pool, step_needs, f"the step names pool {step_pool}")
    if step_needs is not None and (wanted := step_needs.as_tags()):
        return _needed(pools, step, wanted, None, wishes, outlook)
    most = pools[default_pool].max_waiting if default_pool in pools else None
    return Route(default_pool, default_pool, "the default pool", most=most)


def decide_move(
    pools: Mapping[str, PoolSpec], wanted: Mapping[str, str], *, away_from: str, lane: int, outlook: Outlook
) -> Route | None:
    """Where a step goes whose pool has no worker; None while no other pool that meets its needs has one either."""
    found = []
    for spec in fitting(pools, wanted):
        load = outlook.loads.get(spec.name)
        if load is not None and load.slots and spec.name != away_from:
            before = max(load.lead(lane) + outlook.sent.get(spec.name, 0), 0)
            found.append((before * load.each_s, len(spec.tags), spec.name))
    if not found:
        return None
    _, _, pool = min(found)
    why = f"needs {_words(wanted)}: moved from {away_from}, which has no worker, to {pool}"
    return Route(pool, pool, why, dict(wanted))


def fitting(pools: Mapping[str, PoolSpec], wanted: Mapping[str, str]) -> Sequence[PoolSpec]:
    """The pools that have all of these tags, in the order of their declaration."""
    if isinstance(pools, Declared):
        return pools.fitting(wanted)
    return [spec for spec in pools.values() if has_tags(spec.tags, wanted)]


def _named(pools: Mapping[str, PoolSpec], step: str, pool: str, needs: Needs | None, why: str) -> Route:
    if pool not in pools and pools:
        raise UnknownPool(name=pool, known=pools)
    _check(pools, step, pool, needs)
    return Route(pool, pool, why, most=pools[pool].max_waiting if pool in pools else None)


def _check(pools: Mapping[str, PoolSpec], step: str, pool: str, needs: Needs | None) -> None:
    if pool in pools and needs is not None and contradicts(pools[pool].tags, needs):
        raise NoPoolFor(step=step, needs=needs.as_tags(), pools=_tags(pools), pool=pool)


def _needed(
    pools: Mapping[str, PoolSpec],
    step: str,
    wanted: dict[str, str],
    own: str | None,
    wishes: Wishes,
    outlook: Outlook | None,
) -> Route:
    fit = fitting(pools, wanted)
    if not fit:
        raise NoPoolFor(step=step, needs=wanted, pools=_tags(pools))
    why = f"needs {_words(wanted)}"
    if len(fit) == 1:
        return Route(fit[0].name, fit[0].name, why, wanted, 1, fit[0].max_waiting)
    liked = _liked(pools, fit, own, wishes)
    pool, reason = _choose(fit, wanted, own, liked, wishes, outlook)
    return Route(pool, pool, f"{why}: {pool} of {len(fit)}, {reason}", wanted, len(fit), pools[pool].max_waiting)


def _liked(
    pools: Mapping[str, PoolSpec], fit: Sequence[PoolSpec], own: str | None, wishes: Wishes
) -> Collection[str] | None:
    """The pools that the call had rather; None where it does not mind."""
    if wishes.prefer is not None:
        wanted = wishes.prefer.as_tags()
        if isinstance(pools, Declared):
            return pools.names_fitting(wanted)
        return tuple(spec.name for spec in fit if has_tags(spec.tags, wanted))
    return (own,) if own is not None and any(spec.name == own for spec in fit) else None


def _choose(
    fit: Sequence[PoolSpec],
    wanted: Mapping[str, str],
    own: str | None,
    liked: Collection[str] | None,
    wishes: Wishes,
    outlook: Outlook | None,
) -> tuple[str, str]:
    """Which of several pools, and in a few words why.

    A pool without a worker is taken only if none of them has one. A pool with a GPU is taken for what needs none only
    if no other has a worker. A pool that is not preferred counts as one that starts the call `patience_s` later; the
    step's own pool is preferred if the call says nothing else. Then the tier decides: batch takes the cheapest, a
    deadline the pool that ends the call soonest, interactive the one that starts it soonest and of those alike the
    cheapest.
    """
    if outlook is None:
        return min(fit, key=lambda spec: _plain_order(spec, own)).name, "nothing is known of the workers yet"
    asked = (tuple(wanted.items()), liked, wishes.lane, wishes.patience_s)
    chances = outlook.chances.get(asked)
    if chances is None:
        chances = outlook.chances[asked] = _chances(fit, wanted, own, liked, wishes, outlook)
    if not chances.pools:
        return min(fit, key=lambda spec: _plain_order(spec, own)).name, "none of them has a worker"
    more = outlook.sent.get
    columns = zip(chances.pools, chances.leads, chances.each_s, strict=True)
    waits = [before * each if (before := lead + more(pool, 0)) > 0 else 0.0 for pool, lead, each in columns]
    if wishes.deadline_s is not None:
        return _soonest_done(chances, waits, wishes.deadline_s)
    lates = list(map(add, waits, chances.penalties_s))
    if wishes.tier == "batch":
        least = min(chances.costs)
        cheapest = [at for at, cost in enumerate(chances.costs) if cost == least]
        at = min(cheapest, key=lates.__getitem__)
        return chances.pools[at], f"the cheapest with a worker, wait {_seconds(waits[at])}"
    soonest = min(lates)
    enough = soonest + min(ALIKE_S, chances.lasts_s[lates.index(soonest)])
    alike = [at for at, late in enumerate(lates) if late <= enough]
    least = min(chances.penalties_s[at] for at in alike) if liked is not None else 0.0
    at = min((at for at in alike if chances.penalties_s[at] <= least), key=chances.costs.__getitem__)
    return chances.pools[at], _why_soonest(at, chances, waits, lates)


def _chances(
    fit: Sequence[PoolSpec],
    wanted: Mapping[str, str],
    own: str | None,
    liked: Collection[str] | None,
    wishes: Wishes,
    outlook: Outlook,
) -> Chances:
    served = [spec for spec in fit if (load := outlook.loads.get(spec.name)) is not None and load.slots]
    if "gpu" not in wanted:
        served = [spec for spec in served if "gpu" not in spec.tags] or served
    served.sort(key=lambda spec: _plain_order(spec, own))
    loads = [outlook.loads[spec.name] for spec in served]
    return Chances(
        pools=[spec.name for spec in served],
        leads=[load.lead(wishes.lane) for load in loads],
        each_s=[load.each_s for load in loads],
        lasts_s=[load.lasts_s for load in loads],
        penalties_s=[0.0 if liked is None or spec.name in liked else wishes.patience_s for spec in served],
        costs=[0.0 if spec.cost_per_hour is None else spec.cost_per_hour for spec in served],
    )


def _soonest_done(chances: Chances, waits: Sequence[float], deadline_s: float) -> tuple[str, str]:
    done = list(map(add, waits, chances.lasts_s))
    first = min(done)
    late = f", after the deadline of {_seconds(deadline_s)}" if first > deadline_s else ""
    return chances.pools[done.index(first)], f"expected to end there first, in {_seconds(first)}{late}"


def _why_soonest(at: int, chances: Chances, waits: Sequence[float], lates: list[float]) -> str:
    if len(lates) == 1:
        return "the only one with a worker"
    # The best of the others: what was passed over although it starts sooner tells why by its cost or its place.
    taken, lates[at] = lates[at], inf
    other = lates.index(min(lates))
    lates[at] = taken
    return f"wait {_seconds(waits[at])}; {chances.pools[other]} {_seconds(waits[other])}"


def _plain_order(spec: PoolSpec, own: str | None) -> tuple[bool, int, str]:
    return spec.name != own, len(spec.tags), spec.name


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _words(wanted: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in wanted.items())


def _tags(pools: Mapping[str, PoolSpec]) -> dict[str, dict[str, str]]:
    return {name: spec.tags for name, spec in pools.items()}
