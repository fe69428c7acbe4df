"""The controller: looks at all pools, decides how many workers each is to have, and has a driver see to it.

Any number of controllers may run; of each pool one leads, by a lease in the store, and the others wait for its end.
How many is `decide_size`'s to say, the same that the simulator asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from agentq.core.errors import DriverFailed, StoreUnavailable, Superseded
from agentq.core.models import GateSummary
from agentq.core.policy import decide_restart_wait
from agentq.core.pools import PoolSpec
from agentq.core.sizing import Decision
from agentq.fleet import sensors
from agentq.fleet.bounds import Gate, bound_of
from agentq.fleet.control import Orders, PoolControl
from agentq.fleet.drivers import Driver
from agentq.fleet.driving import Driving
from agentq.fleet.leading import Leading
from agentq.fleet.seasons import Seasons
from agentq.store import Store
from agentq.store.sensing import Question

logger = logging.getLogger(__name__)

LEASE_S: Final = 3.0
"""A leader that has not been heard of for so long is followed by another."""

ROUND_S: Final = 1.0
"""Between two looks: as often as the simulated law."""

PUBLISH_S: Final = 5.0
"""At least so often it is told how a pool stands in which nothing changes."""

TICK_S: Final = 0.4
"""Between two ticks where no worker lives that would let time pass. After a gap of more than a second between ticks
nobody is marked dead for a while."""

ORDERS_S: Final = 3.0
"""Orders of a round that a slow platform takes no longer over, the last one's own time left out: the next round decides
by what is known then."""

GATES_S: Final = 2.0
"""Between two looks at breakers and limits."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a controller works.

    Attributes:
        pools: those that are scaled, as they are declared now: asked each round.
        slots: how many slots a worker of the pool is expected to have, before one has said so.
        gates: the guards of steps, by the step's name.
        worker_lease_s: a worker that was not heard of for so long is dead.
        is_dry: whether it only says what it would do; it leads nothing then, and may run beside one that does.
        is_once: whether it decides once and ends: it goes by what was seen before it, since it sees too little itself.
    """

    pools: Callable[[], Mapping[str, PoolSpec]]
    slots: Callable[[PoolSpec], int] = field(default=lambda spec: 1 if spec.concurrency == "auto" else spec.concurrency)
    gates: Mapping[str, tuple[Gate, ...]] = field(default_factory=dict)
    is_dry: bool = False
    is_once: bool = False
    lease_s: float = LEASE_S
    worker_lease_s: float = 3.0


class Controller:
    """One controller; all its calls come from one thread, `round` about once a second."""

    def __init__(self, store: Store, driver: Driver, terms: Terms) -> None:
        self.controls: dict[str, PoolControl] = {}
        self.leading = Leading(store, self.controls, lease_s=terms.lease_s, is_dry=terms.is_dry, is_once=terms.is_once)
        self._store = store
        self.driver = driver
        self._driving = Driving(driver)
        self._terms = terms
        self._seasons = Seasons(store, self.leading.id)
        self._turns: dict[str, float] = {}
        self._gates: list[GateSummary] = []
        self._gates_at = float("-inf")
        self._is_deserted = False
        self._tick_at = float("-inf")
        self._left: set[str] = set()
        """Pools that could not be decided on in the last round."""

    def round(self) -> list[Decision]:
        """Look, decide and act, once; gives what was decided of the pools that this one leads.

        Raises StoreUnavailable when the store cannot be reached: nothing was changed then, and the workers go on.
        """
        try:
            return self._round()
        except StoreUnavailable:
            for control in self.controls.values():
                control.lose_sight()
            raise

    def let_time_pass(self) -> None:
        """What keepers do where workers live, between rounds: call it several times a second.

        Without it nothing would go on that waits in a gate's line, or in the hands of the last worker, that is lost.

        Raises StoreUnavailable when the store cannot be reached.
        """
        if not self._is_deserted or monotonic() < self._tick_at:
            return
        self._tick_at = monotonic() + TICK_S
        if self._store.tick(int(self._terms.worker_lease_s * 1000)).behind:
            self._tick_at = monotonic()

    def _round(self) -> list[Decision]:
        led = self._lead()
        if not led:
            self._is_deserted = False
            return []
        self._observe(led)
        now_ms = self._sense(led)
        self._is_deserted = not self._terms.is_dry and not any(control.has_workers for control in led)
        self.let_time_pass()
        self._seasons.tend(now_ms, led, keeps=not self._terms.is_dry)
        decided = self._decide(now_ms, led)
        if not self._terms.is_dry:
            self._publish(now_ms, decided)
            self._act(now_ms, decided)
        for control, decision, _ in decided:
            control.last = decision
        return [decision for _, decision, _ in decided]

    @property
    def troubles(self) -> dict[str, str]:
        """By pool that is led, what its platform could not do."""
        return {name: each.trouble for name, each in self.controls.items() if each.is_led and each.trouble is not None}

    def look(self) -> None:
        """Only look, so that the next round knows what has come since."""
        led = self._lead()
        if led:
            self._observe(led)
            self._sense(led)

    def close(self, *, keep: bool) -> None:
        """Lead nothing any more; `keep`: the workers go on without a controller."""
        led = {control.spec.name: control.fence for control in self.leading.led}
        ends = not keep and bool(led)
        try:
            if led and not self._terms.is_dry:
                ends = self._give_back(led) and ends
        finally:
            # Who leads nothing has workers to end no more: another controller goes on with them.
            self.driver.close(keep=not ends)

    def _give_back(self, led: Mapping[str, int]) -> bool:
        """Lead nothing any more, and have the driver know what was led to the end; false where that is nothing.

        Whoever stood still is told here first that another leads since, whose workers are not to be ended.
        """
        given = self.leading.give_back(list(led))
        for name in led:
            self.controls[name].end()
        still = [name for name, fence in led.items() if given.get(name) == fence]
        if not still or len(still) == len(led):
            return bool(still)
        try:
            self._driving.observe(still)
        except DriverFailed as error:
            # What was led by whom is not told apart then: workers that stay are found by the next leader.
            logger.warning("driver_failed: %s", error)
            return False
        return True

    def _lead(self) -> list[PoolControl]:
        specs = self._terms.pools()
        for name in [name for name in self.controls if name not in specs]:
            if self.controls.pop(name).is_led:
                self.leading.give_back([name])
        for name, spec in specs.items():
            if name in self.controls:
                self.controls[name].spec = spec
            else:
                self.controls[name] = PoolControl(spec, self._terms.slots(spec))
        self.leading.renew()
        return self.leading.led

    # -- looking

    def _observe(self, led: Sequence[PoolControl]) -> None:
        names = [control.spec.name for control in led]
        try:
            with self.leading.hold():
                found = self._driving.observe(names)
        except DriverFailed as error:
            for control in led:
                if control.trouble != str(error):
                    logger.warning("driver_failed pool=%s: %s", control.spec.name, error)
                control.trouble, control.is_blind = str(error), True
        else:
            for control in led:
                control.find(found.get(control.spec.name))
        # The driver may have waited for its platform for longer than the lease is held.
        self.leading.make_sure()

    def _sense(self, led: Sequence[PoolControl]) -> int:
        questions = {control.spec.name: control.question() for control in led}
        now_ms, glances = self._store.sense(list(questions.values()))
        unclear: list[Question] = [
            questions[control.spec.name]._replace(listed=True)
            for control in led
            if control.needs_listing(glances[control.spec.name], questions[control.spec.name])
        ]
        if unclear:
            now_ms, more = self._store.sense(unclear)
            glances.update(more)
        listed = {each.queue for each in (*questions.values(), *unclear) if each.listed}
        for control in led:
            control.see(now_ms, glances[control.spec.name], listed=control.spec.name in listed)
        if self._terms.gates and monotonic() - self._gates_at >= GATES_S:
            self._gates_at = monotonic()
            self._gates = self._store.gates()
        return now_ms

    # -- deciding

    def _decide(self, now_ms: int, led: Sequence[PoolControl]) -> list[tuple[PoolControl, Decision, Orders]]:
        all_sensors = {control.spec.name: control.sensor for control in led}
        self._turns = sensors.fade(all_sensors, self._turns)
        branching = sensors.habits(all_sensors)
        foreseen = sensors.expected(all_sensors, branching)
        decided: list[tuple[PoolControl, Decision]] = []
        for control in led:
            control.is_mixed = sensors.is_mixed(control.sensor, branching)
            ahead = foreseen.get(control.spec.name, (0.0, 0.0))
            try:
                decided.append((control, self._decide_pool(control, now_ms, ahead, branching)))
            except StoreUnavailable:
                raise
            except Exception as error:
                self._leave(control, error)
            else:
                self._left.discard(control.spec.name)
        self._call_rolls([control for control, decision in decided if self._is_to_list(control, decision)])
        chooses = self.driver.chooses
        return [(control, decision, control.orders(now_ms, decision, chooses=chooses)) for control, decision in decided]

    def _decide_pool(
        self,
        control: PoolControl,
        now_ms: int,
        ahead: tuple[float, float],
        branching: Mapping[str, Mapping[str, float]],
    ) -> Decision:
        bound = bound_of(control.sensor, self._terms.gates, self._gates, now_ms)
        steps = sensors.paces(control.sensor, branching)
        return control.decide(
            now_ms,
            control.load(now_ms, ahead, bound, self._seasons.forecast(control, now_ms + control.startup_s * 1000)),
            sensors.cognition(control.sensor, steps, ahead[0]),
            steps,
            leader=self.leading.label,
            driver=self.driver.name,
            mode="dry" if self._terms.is_dry else "acts" if self.driver.acts else "pulled",
            bound=bound,
        )

    def _leave(self, control: PoolControl, error: Exception) -> None:
        """One pool that cannot be decided on stays as it is, and the others are served: they are none of its fault."""
        control.trouble = f"it cannot be decided on ({type(error).__name__}) and stays as it is; the log has the rest"
        if control.spec.name not in self._left:
            logger.error("pool_left pool=%s", control.spec.name, exc_info=error)
            self._left.add(control.spec.name)

    def _is_to_list(self, control: PoolControl, decision: Decision) -> bool:
        return control.is_to_list(decision, chooses=self.driver.chooses)

    def _call_rolls(self, shrinking: Sequence[PoolControl]) -> None:
        if shrinking:
            asked = [control.question()._replace(listed=True) for control in shrinking]
            now_ms, glances = self._store.sense(asked)
            for control in shrinking:
                control.call_roll(now_ms, glances[control.spec.name])

    # -- acting

    def _publish(self, now_ms: int, decided: list[tuple[PoolControl, Decision, Orders]]) -> None:
        """All that changes something is told with the fence, and what another leads by now is left to it."""
        told = []
        for control, decision, orders in decided:
            news = control.is_news(decision, orders)
            stale = now_ms - control.published_ms >= PUBLISH_S * 1000 or now_ms < control.published_ms
            if news or orders.is_any or stale or _differs(control.last, decision):
                told.append((control, decision, orders, news))
        if not told:
            return
        self.leading.make_sure()
        newest = self._store.decide(
            self.leading.id,
            [(decision, news) for _, decision, _, news in told],
            drains={decision.pool: orders.drains for _, decision, orders, _ in told if orders.drains},
            undrains={decision.pool: orders.undrains for _, decision, orders, _ in told if orders.undrains},
        )
        for control, decision, orders, news in told:
            if newest[decision.pool] != decision.fence:
                logger.warning("decision_refused: %s", _superseded(decision, newest[decision.pool]))
                control.end()
                continue
            control.published_ms = now_ms
            control.marked(orders)
            if news:
                logger.info(
                    "pool_sized pool=%s workers=%d had=%d: %s",
                    decision.pool,
                    decision.desired,
                    decision.had,
                    decision.why,
                )

    def _act(self, now_ms: int, decided: list[tuple[PoolControl, Decision, Orders]]) -> None:
        if not self.driver.acts:
            for control, decision, _ in decided:
                control.published(now_ms, decision)
            return
        asked = []
        for each in decided:
            control, _, orders = each
            if orders.instances is not None or orders.ends:
                asked.append(each)
            elif monotonic() >= control.retry_at:
                # What failed is not asked for any more.
                control.failures = 0
        if asked:
            with self.leading.hold():
                self._order(now_ms, asked)

    def _order(self, now_ms: int, asked: list[tuple[PoolControl, Decision, Orders]]) -> None:
        began = monotonic()
        # Whose turn is longest ago comes first.
        for control, decision, orders in sorted(asked, key=lambda each: each[0].ordered_at):
            if monotonic() - began >= ORDERS_S:
                return
            self.leading.make_sure()
            if not control.is_led or control.fence != decision.fence or monotonic() < control.retry_at:
                continue
            control.ordered_at = monotonic()
            try:
                if orders.ends:
                    self._driving.drain(decision.pool, orders.ends, fence=decision.fence)
                if orders.instances is not None:
                    self._driving.apply(decision.pool, orders.instances, fence=decision.fence)
            except Superseded as error:
                logger.warning("order_refused: %s", error)
                control.end()
            except DriverFailed as error:
                control.failures += 1
                control.retry_at = monotonic() + decide_restart_wait(control.failures).total_seconds()
                control.trouble = str(error)
                logger.warning("driver_failed: %s", error)
            else:
                control.failures, control.trouble = 0, None
                control.ordered(now_ms, orders)


def _superseded(decision: Decision, newest: int) -> Superseded:
    return Superseded(pool=decision.pool, fence=decision.fence, newest=newest)


def _differs(last: Decision | None, decision: Decision) -> bool:
    """Whether somebody who watches would see something else."""
    if last is None:
        return True
    before, now = last.load, decision.load
    return (before.waiting, before.running, before.ready, before.starting, last.draining, last.resting) != (
        now.waiting,
        now.running,
        now.ready,
        now.starting,
        decision.draining,
        decision.resting,
    )


__all__ = ["Controller", "StoreUnavailable", "Terms"]
