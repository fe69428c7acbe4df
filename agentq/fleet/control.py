"""What a controller remembers of one pool, and what it has done for it now: loads in, decisions and orders out.

It asks and changes nothing itself: the controller does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final, Literal

from agentq.core.pools import PoolSpec
from agentq.core.rates import Lulls
from agentq.core.scaling import (
    QUANTILE,
    WINDOWS,
    Objective,
    PoolLoad,
    Size,
    decide_size,
    decide_window,
    patience_of,
    window_of,
)
from agentq.core.seasons import Forecast
from agentq.core.sizing import Cognition, Decision, StepPace
from agentq.fleet.bounds import Bound
from agentq.fleet.drivers import Observed
from agentq.fleet.peaks import Peaks
from agentq.fleet.roster import Roster, make_roster, who_goes, who_stays, workers_of
from agentq.fleet.sensors import PoolSensor
from agentq.fleet.startups import Startups
from agentq.store.sensing import Glance, Question

Mode = Literal["acts", "dry", "pulled"]

STUCK_S: Final = 60.0
"""An instance that has not come up after so long, and after five usual start-ups, is told."""

RETURN_S: Final = 5.0
"""After the store was away: by then every worker that lives has said so again, and nobody else counts as gone."""

SAY_AGAIN_S: Final = 10.0
"""So long a platform may take to begin with the end of an instance, before it is told again."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What is to be done for a pool.

    Attributes:
        instances: so many are to be there in all; None: as it is.
        drains, undrains: ids of workers that are to take nothing more, and of those that may again.
        ends: names of instances that are done.
    """

    instances: int | None = None
    drains: tuple[str, ...] = ()
    undrains: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()

    @property
    def is_any(self) -> bool:
        """Whether there is something to do."""
        return self.instances is not None or bool(self.drains or self.undrains or self.ends)


@dataclass
class PoolControl:
    """One pool under control."""

    spec: PoolSpec
    slots: int
    """Of one worker, as long as none has said its own."""
    sensor: PoolSensor = field(default_factory=PoolSensor)
    fence: int = 0
    is_led: bool = False
    observed: Observed = field(default_factory=lambda: Observed(wanted=None))
    roster: Roster = field(default_factory=Roster)
    last: Decision | None = None
    """What was decided last."""
    published_ms: int = 0
    trouble: str | None = None
    """What the driver could not do."""
    retry_at: float = 0.0
    ordered_at: float = float("-inf")
    """When the driver was told something last."""
    failures: int = 0
    is_mixed: bool = False
    """Whether agents and what asks for nothing share the pool, so that it matters which of them run."""
    is_blind: bool = False
    """Whether the platform does not say what there is."""
    _startups: Startups = field(default_factory=Startups)
    _past: Peaks = field(default_factory=Peaks)
    _lulls: Lulls = field(default_factory=lambda: Lulls(most_s=0.0))
    _seen: tuple[object, ...] = ()
    _told: dict[str, int] = field(default_factory=dict)
    _before: Decision | None = None
    _goes_on: bool = False
    _is_back: bool = False
    _settles_ms: int = 0
    _known_objective: tuple[PoolSpec, int, Objective] | None = None

    # -- looking

    def begin(self, fence: int, before: Decision | None, *, goes_on: bool = False) -> None:
        """The pool is led from now on; `before` is what its last leader has left.

        `goes_on`: whoever looks once in a while has seen nothing itself, and goes by what that one saw.
        """
        self.is_led, self.fence, self.last, self._before = True, fence, None, before
        self._goes_on = goes_on and before is not None
        self._seen = ()
        self._past.clear()
        if before is not None:
            self._startups.learn(before.load.startup_s)

    def end(self) -> None:
        """Another leads it, or nobody."""
        self.is_led = False
        self.sensor = PoolSensor()

    @property
    def has_workers(self) -> bool:
        """Whether one lives, as it was seen last."""
        glance = self.sensor.glance
        return glance is not None and glance.workers + glance.resting > 0

    def lose_sight(self) -> None:
        """The store is away: what is not seen meanwhile must not pass for a load that has gone."""
        self.sensor.forget_time()
        self._is_back = True

    @property
    def startup_s(self) -> float:
        """From the order of a worker to its enrolment, as measured; else what is assumed."""
        return self._startups.seconds

    def find(self, observed: Observed | None) -> None:
        """Take in what the platform has; None, and what is unknown, leave what was known before."""
        self.is_blind = observed is None or observed.is_unknown
        if observed is not None:
            self.observed = replace(self.observed, trouble=observed.trouble) if observed.is_unknown else observed
        self.trouble = self.trouble if self.failures else None

    def question(self) -> Question:
        """What to ask of it at the next look."""
        roster, names = self.roster, self._names()
        # Who is who matters while somebody comes or goes; else it is known.
        moves = bool(roster.starting or roster.draining or roster.leaving) or names != self._seen[:1]
        return Question(
            self.spec.name,
            int(self.startup_s * 1000),
            self.sensor.count,
            listed=moves and self.observed.instances is not None,
            named=self.is_mixed,
        )

    def needs_listing(self, glance: Glance, question: Question) -> bool:
        """Whether the look shows that others take work than those that are known."""
        known = self._seen[1:] == (glance.workers, glance.resting)
        return self.observed.instances is not None and not question.listed and not known

    def see(self, now_ms: int, glance: Glance, *, listed: bool) -> None:
        """Take in how it stands."""
        if self._is_back:
            self._settles_ms = now_ms + int(RETURN_S * 1000)
        self.sensor.see(now_ms, glance)
        if self._goes_on:
            self._go_on(now_ms, glance)
        if glance.workers:
            self.slots = max(1, round(glance.slots / glance.workers))
        if self.observed.instances is None and not self._is_settling(now_ms):
            self._startups.count(glance.workers + glance.resting, now_ms)
        if listed or self.observed.instances is None:
            self.call_roll(now_ms, glance)

    def _go_on(self, now_ms: int, glance: Glance) -> None:
        """Take over what the last look of another saw: what it asked for, and since when the pool rests."""
        before, self._goes_on = self._before, False
        assert before is not None, "there is something to go on with"
        self._past.take_over(before.past, now_ms)
        # One look's number may be chance: the pool shrinks when a second one asks for no more. Who works stays.
        busy = -(-glance.held // self.slots)
        self._past.note(now_ms, min(max(before.size.asked, busy), self._objective().most))
        rested = not (before.load.waiting or before.load.running or glance.waiting or glance.held)
        if rested and self.sensor.ended == before.ended:
            self.sensor.rest_since(max(0, before.at_ms - int(before.load.idle_s * 1000)))

    def call_roll(self, now_ms: int, glance: Glance) -> None:
        """Know who is who; the glance has the workers listed, where the platform lists instances."""
        observed = self.observed
        if observed.wanted is None and observed.instances is None:
            # A platform that tells nothing has what it was told last, or will have.
            observed = replace(observed, wanted=self._startups.wanted)
        self.roster = make_roster(observed, glance)
        self._seen = (*self._names(), glance.workers, glance.resting)
        self._startups.call_roll(self.roster, now_ms)
        there = {each.name for each in self.observed.instances or ()}
        self._told = {name: at for name, at in self._told.items() if name in there}

    def is_to_list(self, decision: Decision, *, chooses: bool) -> bool:
        """Whether somebody is to go: who that is depends on what each does now."""
        return chooses and self.observed.instances is not None and decision.desired < decision.had

    def _names(self) -> tuple[object, ...]:
        listed = self.observed.instances
        return (None if listed is None else frozenset((each.name, each.is_leaving) for each in listed),)

    # -- deciding

    def load(
        self,
        now_ms: int,
        foreseen: tuple[float, float],
        bound: Bound,
        season: tuple[Forecast | None, bool] = (None, False),
    ) -> PoolLoad:
        """What the law goes by."""
        forecast, counts = season
        sensor, roster = self.sensor, self.roster
        glance = sensor.glance
        assert glance is not None, "a pool is looked at before it is decided on"
        ages = self._startups.ages(roster, now_ms)
        return PoolLoad(
            waiting=glance.waiting,
            oldest_wait_s=round(max(0.0, glance.oldest_s), 3),
            running=glance.held,
            quick_rate=round(sensor.quick.value, 5),
            calm_rate=round(sensor.calm.value, 5),
            forecast_rate=None if forecast is None else round(forecast.rate, 5),
            forecast_counts=counts,
            bunch_slots=round(sensor.bunches.slots(sensor.service.value, patience_of(self._objective()), QUANTILE), 1),
            service_s=round(sensor.service.value, 4),
            variation=round(sensor.service.variation, 4),
            due_soon=glance.due_soon,
            expected=round(foreseen[0], 3),
            expected_in_s=round(foreseen[1], 3),
            startup_s=round(self.startup_s, 3),
            ready=roster.taking,
            starting=roster.coming,
            starting_s=round(sum(ages) / len(ages), 2) if ages else 0.0,
            idle_s=round(sensor.idle_s, 1),
            slots=self.slots,
            provider_slots=bound.slots,
            is_breaker_open=bound.breaker is not None,
            window_s=decide_window(self._lulls.seconds, self.startup_s),
        )

    def decide(
        self,
        now_ms: int,
        load: PoolLoad,
        cognition: Cognition,
        steps: dict[str, StepPace],
        *,
        leader: str,
        driver: str,
        mode: Mode,
        bound: Bound,
    ) -> Decision:
        """How many workers there should be, by the law."""
        objective = self._objective()
        now = load.ready + load.starting
        resting = len(self.roster.resting) + self.roster.unlisted_resting
        kept = resting
        if self._is_closed:
            # All of them rest, and run what they have: a platform that pulls must not send them away.
            now, kept = now + resting, 0
            size = Size(workers=now, asked=now, why="a person has drained the pool")
        else:
            if self.last is None and not self._past:
                # One who has just begun knows nothing of the last minutes: who is there was asked for.
                self._past.note(now_ms, min(now, objective.most))
            if self._is_back:
                # A window is time in which the load was looked at.
                self._past.leave_out(now_ms)
            self._is_back = False
            size = decide_size(load, objective, self._past.within(now_ms, window_of(load, objective)))
            self._past.note(now_ms, size.asked)
            self._lulls.most_s = self.startup_s * WINDOWS[-1]
            self._lulls.see(now_ms / 1000, size.asked)
            if bound.breaker is not None and size.why.startswith("a breaker"):
                size = size.model_copy(update={"why": f"breaker {bound.breaker} is open: more would only wait"})
        return Decision(
            pool=self.spec.name,
            at_ms=now_ms,
            fence=self.fence,
            leader=leader,
            driver=driver,
            had=now,
            desired=size.workers,
            instances=self.roster.instances,
            draining=len(self.roster.draining) + len(self.roster.leaving),
            resting=resting,
            kept=min(kept, max(0, (self.spec.max or 0) - size.workers)),
            mode=mode,
            trouble=self._all_trouble(),
            load=load,
            size=size,
            cognition=cognition,
            steps=steps,
            past=self._past.kept,
            ended=self.sensor.ended,
        )

    def _objective(self) -> Objective:
        if self._known_objective is None or self._known_objective[:2] != (self.spec, self.slots):
            self._known_objective = (self.spec, self.slots, objective_of(self.spec, self.slots))
        return self._known_objective[2]

    def orders(self, now_ms: int, decision: Decision, *, chooses: bool) -> Orders:
        """What is to be done, so that there come to be as many workers as were decided."""
        if self.is_blind or self._is_closed or self._is_settling(now_ms):
            return Orders()
        roster = self.roster
        wanted = max(0, decision.desired - roster.strangers)
        ends = [
            post.instance.name
            for post in roster.draining
            if post.is_done and not 0 <= now_ms - self._told.get(post.instance.name, 0) < SAY_AGAIN_S * 1000
        ]
        if wanted > roster.ours:
            back = [post for post in who_stays(roster, wanted - roster.ours) if post.instance.name not in self._told]
            # What is done but was not told to end yet takes work again as well.
            ends = [name for name in ends if name not in {post.instance.name for post in back}]
            rest = len(roster.resting) + roster.unlisted_resting
            room = (self.spec.max or 0) - roster.strangers - roster.ours - len(back) - rest
            more = min(wanted - roster.ours - len(back), max(room, 0))
            total = roster.ours + len(roster.draining) + rest + more if more > 0 else None
            return Orders(instances=total, undrains=tuple(workers_of(back)), ends=tuple(ends))
        if wanted < roster.ours and not chooses:
            return Orders(instances=wanted + len(roster.resting) + roster.unlisted_resting)
        goes = who_goes(roster, roster.ours - wanted) if wanted < roster.ours else ()
        return Orders(drains=tuple(workers_of(goes)), ends=tuple(ends))

    @property
    def _is_closed(self) -> bool:
        """Whether a person has drained the pool."""
        return self.sensor.glance is not None and self.sensor.glance.is_closed

    def _is_settling(self, now_ms: int) -> bool:
        return 0 < self._settles_ms - now_ms <= RETURN_S * 1000

    def marked(self, orders: Orders) -> None:
        """Remember who was told to take nothing more: it is known at the next look, before they have heard of it."""
        if orders.drains or orders.undrains:
            self._seen = ()

    def ordered(self, now_ms: int, orders: Orders) -> None:
        """Remember what the driver was told."""
        for name in orders.ends:
            self._told[name] = now_ms
        if orders.instances is not None:
            self._startups.order(orders.instances, now_ms, is_listed=self.observed.instances is not None)

    def published(self, now_ms: int, decision: Decision) -> None:
        """Remember what a platform that pulls has read, or will have: start-up times are measured from there."""
        if not self._is_settling(now_ms) and not self._is_closed:
            self.ordered(now_ms, Orders(instances=decision.replicas))

    def is_news(self, decision: Decision, orders: Orders) -> bool:
        """Whether the decision is worth keeping: it changes something, or something else hinders it."""
        # Who leads is told by the decision itself: controllers that take turns must not fill a week's events with it.
        last = self.last if self.last is not None else self._before
        return (
            last is None
            or last.desired != decision.desired
            or last.trouble != decision.trouble
            or bool(orders.drains or orders.undrains or orders.ends)
        )

    def _all_trouble(self) -> str | None:
        patience = max(STUCK_S, 5 * self.startup_s)
        stuck = [each for each in self.roster.starting if each.age_s > patience]
        words = [self.trouble, self.observed.trouble]
        if stuck:
            # In whole half minutes: each new word is an event.
            oldest = int(max(each.age_s for each in stuck) // 30) * 30
            words.append(f"{stuck[0].name} has not come up in {oldest} s")
        return "; ".join(word for word in words if word) or None


def objective_of(spec: PoolSpec, slots: int) -> Objective:
    """What the pool is to reach, of workers with so many slots."""
    assert spec.max is not None, "a pool without a maximum is not scaled"
    return Objective(
        least=spec.min,
        most=spec.max,
        slo_wait=spec.slo_wait,
        idle_after=spec.idle_to_zero,
        window=spec.shrink_after,
        best_effort=spec.best_effort,
        usd_per_hour=spec.max_cost_per_hour,
        cost_per_hour=_cost(spec, slots),
    )


def _cost(spec: PoolSpec, slots: int) -> Decimal:
    return Decimal(repr(spec.cost_per_hour if spec.cost_per_hour is not None else 0.0)) * slots
