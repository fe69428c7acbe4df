"""Which machines to buy for a load: mixes of large and small ones, and what each would cost about.

A mix is some instances that always run and others that come and go. The estimate here knows how many slots each minute
needs (the same formula by which a pool is sized) and no start-up times, so that it orders the mixes; whoever decides
simulates the cheapest of them. It must not know traces, pools or platforms.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import Final, NamedTuple

from pydantic import Field, PositiveInt

from agentq.core.erlang import slots_for
from agentq.core.models import Model
from agentq.core.scaling import QUANTILE, RESERVE

_COUNTS: Final = 40
"""So many numbers of instances that always run are tried for each shape at most."""


class Shape(Model):
    """One size of machine."""

    name: str = Field(pattern=r"^[^\s,=:]{1,100}$")
    slots: PositiveInt = Field(le=10_000)
    """Steps at once in one instance."""
    cost_per_hour: float = Field(ge=0, allow_inf_nan=False)
    """Of one instance, in any unit that all shapes share."""
    startup_s: float = Field(default=15.0, ge=0, le=86_400)
    """From its order to its first step."""

    @property
    def cost_of_slot(self) -> float:
        """For an hour."""
        return self.cost_per_hour / self.slots


class Window(NamedTuple):
    """Some seconds of a load: arrivals per second, mean seconds of a step, and how much these vary (squared)."""

    seconds: float
    rate: float
    service_s: float
    variation: float


class Need(NamedTuple):
    """For so many seconds in all so many slots are needed."""

    slots: int
    seconds: float


class Mix(NamedTuple):
    """So many instances of one shape always, and instances of another as they are needed.

    `base` is None where none always runs, `elastic` where none comes and goes.
    """

    base: Shape | None
    number: int
    elastic: Shape | None

    @property
    def fixed_slots(self) -> int:
        """Of what always runs."""
        return self.number * self.base.slots if self.base is not None else 0

    @property
    def largest(self) -> Shape:
        """The shape of which one instance is the most to lose at once."""
        shapes = [shape for shape in (self.base, self.elastic) if shape is not None]
        return max(shapes, key=lambda shape: shape.slots)

    def __str__(self) -> str:
        """In words: `2 large, and small as needed`."""
        if self.base is None:
            return f"{self.elastic.name if self.elastic is not None else 'nothing'} as needed"
        fixed = f"{self.number} {self.base.name}"
        return fixed if self.elastic is None else f"{fixed}, and {self.elastic.name} as needed"


class Estimate(NamedTuple):
    """What a mix would cost in an hour if instances came and went at once."""

    mix: Mix
    cost: float


def needs_of(windows: Iterable[Window], slo_s: float) -> tuple[Need, ...]:
    """How many slots the load needs for how long, fewest first, so that 95 of 100 steps start within `slo_s`."""
    seconds: dict[int, float] = {}
    for window in windows:
        slots = slots_for(
            slo_s * RESERVE,
            quantile=QUANTILE,
            rate=window.rate,
            service_s=window.service_s,
            variation=(1 + window.variation) / 2,
        )
        seconds[slots] = seconds.get(slots, 0.0) + window.seconds
    return tuple(Need(slots, seconds[slots]) for slots in sorted(seconds))


def needed_at(share: float, needs: Sequence[Need]) -> int:
    """The slots that are enough for this share of the time."""
    whole, passed = sum(need.seconds for need in needs), 0.0
    for need in needs:
        passed += need.seconds
        if passed >= share * whole:
            return need.slots
    return needs[-1].slots if needs else 0


def estimate(mix: Mix, needs: Sequence[Need]) -> float:
    """What the mix would cost in an hour; whether it meets an objective is not asked."""
    fixed, whole = mix.fixed_slots, sum(need.seconds for need in needs)
    cost = mix.number * mix.base.cost_per_hour if mix.base is not None else 0.0
    if mix.elastic is None:
        return cost
    extra = sum(ceil(max(0, need.slots - fixed) / mix.elastic.slots) * need.seconds for need in needs)
    return cost + mix.elastic.cost_per_hour * extra / whole if whole else cost


def decide_candidates(shapes: Sequence[Shape], needs: Sequence[Need]) -> list[Estimate]:
    """All mixes worth a thought, the cheapest by the estimate first.

    Each shape alone, fixed or as needed, and each shape as what always runs with each as what comes and goes. Where
    what always runs is meant to carry everything, one instance more than the busiest window needs is tried too.
    """
    peak = needs[-1].slots if needs else 0
    mixes = [Mix(None, 0, shape) for shape in shapes]
    for base in shapes:
        most = ceil(peak / base.slots) + 1
        step = max(1, ceil(most / _COUNTS))
        for number in range(1, most + 1, step):
            mixes += [Mix(base, number, shape) for shape in shapes if number * base.slots < peak]
        # Too few for the busiest window may still be enough for 95 of 100 steps.
        least = max(1, needed_at(0.75, needs) // base.slots)
        mixes += [Mix(base, number, None) for number in range(least, most + 1, max(1, (most - least) // _COUNTS))]
    found = [Estimate(mix, estimate(mix, needs)) for mix in mixes]
    return sorted(found, key=lambda each: (each.cost, each.mix.fixed_slots, str(each.mix)))


def neighbours(mix: Mix) -> list[Mix]:
    """The mixes with one and two instances fewer and more of what always runs."""
    if mix.base is None:
        return []
    numbers = [mix.number + change for change in (-2, -1, 1, 2)]
    return [mix._replace(number=number) for number in numbers if number >= 1]
