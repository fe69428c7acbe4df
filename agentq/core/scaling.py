"""How many workers a pool should have. It must not know how they are counted, started or stopped.

The law, from what it owes to what it may:

1. *steady*: the fewest slots with which 95 of 100 steps start within most of the objective at the rate of now
   (Erlang C); the rest is for what the rate does not tell. The rate is the calm one (60 s) as long as the quick one
   (10 s) tells nothing that chance does not explain, else the quick one, led on by its trend to the moment at which a
   worker ordered now is ready. The trend raises, never lowers.
2. *bunches*: where steps come many at once, a worker that is ordered when they come is too late. So many slots stay as
   would have begun 95 of 100 steps of the last ten minutes in time, and as many as begin in time what is known now:
   what waits, runs, or will be asked for next by the agents that run. Nothing is held up beyond that.
3. *backlog*: what waits, falls due, or will be asked for next by the agents that run now, as far as the workers there
   are leave any of it, is to be gone soon after a worker ordered now could begin to help.
4. *panic*: once the oldest step has waited for half the objective, the backlog has half the time, and none goes.
5. *shrink*: never below the largest number asked for within the last window.
6. *zero*: only when idle for the set time, and nothing falls due within the start-up time, nor is expected.
7. *season*: what the weeks before had at this hour is told beside; where it counts it raises, and never lowers.
8. *caps*: the pool's least and most, money per hour, the provider's rate, an open breaker.
"""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from math import ceil, floor, sqrt
from typing import Final, NamedTuple

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from agentq.core.erlang import slots_for
from agentq.core.models import Model
from agentq.core.units import Duration

QUICK_S: Final = 10.0
"""Time constant of the rate that follows a change."""

CALM_S: Final = 60.0
"""Time constant of the rate that does not follow chance."""

QUANTILE: Final = 0.95
"""Of the objective: so many steps are to start within it."""

RESERVE: Final = 0.8
"""Share of the objective that a steady load may use up."""

_CLEARING: Final = 0.7
"""Share of the objective in which a backlog is to be gone. This one and the one above were chosen in simulations, by
seeds that no later comparison uses (docs/autoscaling.md)."""


WINDOWS: Final = (1, 2, 4, 8)
"""Start-up times for which workers without work may be kept."""

_LULLS_TO_LEARN_FROM: Final = 3

_LATENESS: Final = 1.5
"""What steps that come too late during a start-up are worth, in what the start-up costs."""


class Objective(Model):
    """What a pool is to reach, and what it may cost."""

    least: NonNegativeInt = 0
    """Workers that always stay."""
    most: PositiveInt = 8
    slo_wait: Duration = Field(default=timedelta(seconds=10), gt=timedelta(0))
    """95 of 100 steps start within it."""
    idle_after: Duration = Field(default=timedelta(seconds=60), ge=timedelta(0))
    """After so long without a step the last worker goes, if `least` is 0."""
    window: Duration | None = Field(default=None, ge=timedelta(0))
    """Shrink only to the largest number asked for within it; None: by what the pool's own lulls cost, see
    `decide_window`."""
    best_effort: bool = False
    """Whether it may sleep at zero though a worker starts more slowly than the objective allows."""
    usd_per_hour: Decimal | None = Field(default=None, ge=0)
    """The most that all its workers together may cost; None for no such limit."""
    cost_per_hour: Decimal = Field(default=Decimal(0), ge=0)
    """Of one worker."""

    @model_validator(mode="after")
    def _check_ends(self) -> "Objective":
        if self.least > self.most:
            raise ValueError(f"least is {self.least}, but must be at most most ({self.most})")
        return self


class PoolLoad(Model):
    """What the sensors say of a pool at one moment. Times are in seconds, rates per second."""

    waiting: NonNegativeInt = 0
    """Steps of all lanes that nobody has begun, those that a worker holds too."""
    oldest_wait_s: NonNegativeFloat = 0
    running: NonNegativeInt = 0
    quick_rate: NonNegativeFloat = 0
    """Arrivals, over about ten seconds."""
    calm_rate: NonNegativeFloat = 0
    """Arrivals, over about a minute."""
    forecast_rate: NonNegativeFloat | None = None
    """Arrivals that the weeks before had at this hour, when a worker ordered now is ready; None where none is known."""
    forecast_counts: bool = False
    """Whether the forecast may raise the size: the pool says so, and a backtest shows that it is better with it."""
    bunch_slots: NonNegativeFloat = 0
    """With so many slots the steps of the last minutes would have started in time; 0 where they come one by one."""
    service_s: NonNegativeFloat = 0
    """Mean time of a step; 0 where none has ended yet."""
    variation: NonNegativeFloat = 1
    """Squared coefficient of variation of the service times: variance over the square of the mean."""
    due_soon: NonNegativeInt = 0
    """Timers that fall due within the start-up time."""
    expected: NonNegativeFloat = 0
    """Steps that the agents which run or wait now will ask for next, by the measured branching of each."""
    expected_in_s: NonNegativeFloat = 0
    """When they will ask, on average."""
    startup_s: NonNegativeFloat = 5
    """From the order of a worker to its first step."""
    ready: NonNegativeInt = 0
    """Workers that take steps."""
    starting: NonNegativeInt = 0
    """Workers that were ordered and do not take steps yet."""
    starting_s: NonNegativeFloat = 0
    """How long ago these were ordered, on average."""
    idle_s: NonNegativeFloat = 0
    """Since how long nothing waits and nothing runs."""
    slots: PositiveInt = 1
    """Steps at once in one worker."""
    provider_slots: NonNegativeInt | None = None
    """How many steps at once the provider's rate limit carries; None where none is known."""
    is_breaker_open: bool = False
    window_s: NonNegativeFloat | None = None
    """By `decide_window`; None: the start-up time."""


class Asked(NamedTuple):
    """A number of workers that was asked for, before the window held it up."""

    ago_s: float
    workers: int


class Size(Model):
    """A decision, with all that led to it."""

    workers: NonNegativeInt
    """How many there should be, the starting ones counted."""
    asked: NonNegativeInt
    """What this moment alone asks for, within the caps: what later decisions look back on."""
    why: str
    """In a few words, for people."""
    terms: dict[str, float] = Field(default_factory=dict)
    """The parts of the law, in slots."""
    forecast: NonNegativeInt | None = None
    """Workers that the weeks before would have there be; None where they are not known. It counts only where it may."""


def decide_size(load: PoolLoad, objective: Objective, past: Sequence[Asked] = ()) -> Size:
    """How many workers the pool should have, the law above.

    `past` are the earlier decisions' `asked`, in any order; those older than the window count nothing.
    """
    terms, why = _wanted(load, objective)
    forecast = _foretold(load, objective)
    if _may_sleep(load, objective):
        # Rates fade and are never quite zero: by them alone one worker would stay for ever.
        return Size(workers=0, asked=0, why="idle", terms=terms, forecast=forecast)
    wanted = ceil(round(max(terms.values()) / load.slots, 9))
    if load.forecast_counts and forecast is not None and forecast > wanted:
        wanted, why = forecast, f"the weeks before had {load.forecast_rate:.3g} steps/s at this hour"
    now = load.ready + load.starting
    most, cap = _cap(load, objective)
    asked = min(max(wanted, objective.least), most)
    if wanted > most:
        why = cap
    elif wanted < objective.least:
        why = f"at least {objective.least} worker{'s' if objective.least > 1 else ''}"
    # One stays to ask the breaker: it closes for nobody else.
    frozen = max(now, objective.least, 1)
    if load.is_breaker_open and asked > frozen:
        asked, why = frozen, "a breaker is open: more workers would only wait with the others"
    workers = asked
    if workers < now:
        window = window_of(load, objective)
        held = min(max([workers, *(each.workers for each in past if each.ago_s <= window)]), now)
        if is_panic(load, objective):
            held = now
        held = min(held, most)
        if held > workers:
            workers, why = held, f"held up: so many were asked for within the last {window:g} s"
    if workers == 0 and now > 0:
        workers, why = _slept(load, objective, why)
    return Size(workers=workers, asked=asked, why=why, terms=terms, forecast=forecast)


def decide_window(lulls: Sequence[float], startup_s: float) -> float:
    """For how many seconds workers that nobody needs are to stay, by what the last lulls would have cost.

    A lull that is waited out costs its own length; one that is not costs the wait, a start-up, and steps that come
    too late meanwhile. Of one, two, four and eight start-up times the cheapest is taken, the shortest of equal ones.
    Waiting for one start-up time never costs more than twice what one who knew the future would pay
    (https://en.wikipedia.org/wiki/Ski_rental_problem); it is also the answer as long as there is little to learn from.
    """
    if len(lulls) < _LULLS_TO_LEARN_FROM:
        return startup_s
    again = startup_s * (1 + _LATENESS)

    def cost(window: float) -> float:
        return sum(lull if lull <= window else window + again for lull in lulls)

    return min((startup_s * times for times in WINDOWS), key=cost)


def window_of(load: PoolLoad, objective: Objective) -> float:
    """Seconds that decisions look back."""
    if objective.window is not None:
        return objective.window.total_seconds()
    if load.bunch_slots:
        # What the next bunch will need is known by then: the peak of the last one need not be kept for it.
        return 0.0
    return load.startup_s if load.window_s is None else load.window_s


def patience_of(objective: Objective) -> float:
    """Seconds of the objective that what is expected may use up."""
    return objective.slo_wait.total_seconds() * RESERVE


def is_panic(load: PoolLoad, objective: Objective) -> bool:
    """Whether the oldest step has waited for more than half the objective."""
    return load.waiting > 0 and load.oldest_wait_s > objective.slo_wait.total_seconds() / 2


def decide_rate(load: PoolLoad) -> tuple[float, float]:
    """The arrivals per second to reckon with now, and those at the moment at which a worker ordered now is ready.

    A count of random arrivals has its own root as deviation, so an average over T seconds strays by
    sqrt(rate / 2T); within two deviations the two averages say the same.
    """
    strays = 2 * sqrt(max(load.quick_rate, load.calm_rate) / (2 * QUICK_S))
    gap = load.quick_rate - load.calm_rate
    if abs(gap) <= strays:
        return load.calm_rate, load.calm_rate
    if gap < 0:
        return load.quick_rate, load.quick_rate
    # On a ramp each average lags by its own time constant: their gap tells the slope.
    slope = gap / (CALM_S - QUICK_S)
    return load.quick_rate, load.quick_rate + slope * (QUICK_S + load.startup_s)


def _wanted(load: PoolLoad, objective: Objective) -> tuple[dict[str, float], str]:
    service, slo = load.service_s, objective.slo_wait.total_seconds()
    rate, soon = decide_rate(load)
    if service == 0:
        # Nothing has ended yet: one slot for each that waits is the only thing known to be enough.
        return {"steady": 0.0, "backlog": float(load.waiting + load.running)}, "no step has ended here yet"
    # Arrivals are as random as their rate is: only the service times' own variation is measured.
    variation = (1 + load.variation) / 2
    steady = slots_for(
        slo * RESERVE,
        quantile=QUANTILE,
        rate=soon,
        service_s=service,
        variation=variation,
        most=_countable(load, objective),
    )
    backlog, foreseen = _left_over(load, rate)
    patience = slo * _CLEARING * (0.5 if is_panic(load, objective) else 1)
    clearing = service * (rate + backlog / patience) if backlog else 0.0
    bunches = _for_bunches(load, slo)
    terms = {"steady": float(steady), "bunches": bunches, "backlog": clearing}
    if bunches > max(steady, clearing):
        return terms, f"steps come in bunches: {load.bunch_slots:.0f} slots began those of the last minutes in time"
    if clearing <= steady:
        return terms, f"{soon:.3g} steps/s of {service:.3g} s each"
    said = f"{load.waiting} waiting"
    if load.due_soon:
        said += f", {load.due_soon} due"
    if foreseen >= 1:
        said += f", {foreseen:.0f} expected"
    return terms, ("panic: " if is_panic(load, objective) else "") + said


def _foretold(load: PoolLoad, objective: Objective) -> int | None:
    """Workers for the steady load that the weeks before had, within the pool's most."""
    if load.forecast_rate is None or load.service_s == 0:
        return None
    if load.forecast_rate * load.startup_s < 1:
        # Who may sleep is not kept awake by less than a step.
        return 0
    variation = (1 + load.variation) / 2
    slots = slots_for(
        patience_of(objective),
        quantile=QUANTILE,
        rate=load.forecast_rate,
        service_s=load.service_s,
        variation=variation,
        most=_countable(load, objective),
    )
    return min(ceil(slots / load.slots), _cap(load, objective)[0])


def _countable(load: PoolLoad, objective: Objective) -> int:
    """Slots that are worth counting: one more than there may be says that there are too few."""
    return objective.most * load.slots + 1


def _for_bunches(load: PoolLoad, slo: float) -> float:
    if not load.bunch_slots:
        return 0.0
    known = load.waiting + load.running + load.expected
    return max(load.bunch_slots, known * load.service_s / (slo * _CLEARING + load.service_s))


def _left_over(load: PoolLoad, rate: float) -> tuple[float, float]:
    """What will wait when a worker ordered now is ready, and how much of it was only foreseen."""
    # Of what the agents will ask for next, the rate knows the usual share already.
    foreseen = max(0.0, load.expected - rate * load.expected_in_s)
    there = load.waiting + load.due_soon + foreseen
    # What those that start already will have done by then is as much as they were ordered earlier.
    worked_s = (load.ready * load.startup_s + load.starting * min(load.starting_s, load.startup_s)) * load.slots
    return max(0.0, there + rate * load.startup_s - worked_s / load.service_s), foreseen


def _cap(load: PoolLoad, objective: Objective) -> tuple[int, str]:
    """The most workers that there may be, and what says so."""
    caps = [(objective.most, f"at most {objective.most} workers")]
    if objective.usd_per_hour is not None and objective.cost_per_hour > 0:
        affordable = floor(objective.usd_per_hour / objective.cost_per_hour)
        caps.append((affordable, f"at most {objective.usd_per_hour} USD per hour"))
    if load.provider_slots is not None:
        caps.append((max(1, ceil(load.provider_slots / load.slots)), "the provider's rate limit carries no more"))
    most, why = min(caps)
    return max(most, objective.least), why


def _may_sleep(load: PoolLoad, objective: Objective) -> bool:
    """Whether the pool has been idle for its time, and may be without a worker."""
    is_quiet = not (load.waiting or load.running or load.due_soon or _is_expected(load))
    return (
        objective.least == 0
        and is_quiet
        and load.idle_s > 0
        and load.idle_s >= objective.idle_after.total_seconds()
        and not _is_too_slow(load, objective)
        and not (load.forecast_counts and _foretold(load, objective))
    )


def _is_expected(load: PoolLoad) -> bool:
    """Whether the agents that run now will rather ask for a step than for none."""
    return load.expected >= 0.5


def _is_too_slow(load: PoolLoad, objective: Objective) -> bool:
    """Whether who comes first would wait for a worker for longer than the objective, and that is not accepted."""
    return load.startup_s > objective.slo_wait.total_seconds() and not objective.best_effort


def _slept(load: PoolLoad, objective: Objective, why: str) -> tuple[int, str]:
    idle_after = objective.idle_after.total_seconds()
    if load.waiting or load.running or load.due_soon:
        return 1, "something runs or falls due before another worker could be ready"
    if _is_expected(load):
        return 1, f"{load.expected:.2g} expected of agents that run"
    if load.idle_s < idle_after:
        return 1, f"idle for {load.idle_s:.0f} s of {idle_after:g} s"
    if _is_too_slow(load, objective):
        return 1, f"a worker starts in {load.startup_s:.1f} s, slower than the objective: it does not sleep at zero"
    return 0, "idle"
