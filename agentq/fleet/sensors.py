"""What a pool's load is, by what the store tells of it look by look.

The store has counts that only grow; rates, means and the agents' habits are made of their differences here. It must
not know workers one by one, nor what is decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from agentq.core.rates import Bunches, Mean, Rate
from agentq.core.scaling import CALM_S, QUICK_S
from agentq.core.sizing import Cognition, StepPace
from agentq.store.sensing import Glance, StepSums

MEMORY: Final = 200
"""Attempts: of a step's mean, an agent's branching and the mix of a pool, those before count ever less."""

NOTHING: Final = StepSums(0, 0, 0, 0, 0, 0)


@dataclass
class StepSense:
    """One step, or agent, in one pool; the amounts are of the last `MEMORY` attempts, more or less."""

    known: StepSums = NOTHING
    service: Mean = field(default_factory=lambda: Mean(memory=MEMORY))
    """Seconds."""
    rate: Rate = field(default_factory=lambda: Rate(CALM_S))
    attempts: float = 0.0
    failed: float = 0.0
    ended: float = 0.0
    tokens: float = 0.0

    def see(self, sums: StepSums, seconds: float) -> int:
        """Take in the sums as they are now; gives how many attempts are new."""
        if sums.attempts < self.known.attempts:
            # The server has lost its data, and counts anew.
            self.known = NOTHING
        new = sums.attempts - self.known.attempts
        self.rate.see(new, seconds)
        if new > 0:
            mean = (sums.ms - self.known.ms) / new / 1000
            squares = (sums.squares - self.known.squares) / new / 1e6
            self.service.see_many(new, mean, squares - mean * mean)
            keep = MEMORY / (MEMORY + new)
            for name in ("failed", "ended", "tokens"):
                gained = getattr(sums, name) - getattr(self.known, name)
                setattr(self, name, (getattr(self, name) + gained) * keep)
            self.attempts = (self.attempts + new) * keep
            self.known = sums
        return new

    @property
    def busy_s(self) -> float:
        """Seconds of slots that these attempts took."""
        return self.attempts * self.service.value

    def share(self, amount: float) -> float:
        """So much for each attempt."""
        return amount / self.attempts if self.attempts > 0 else 0.0


@dataclass
class PoolSensor:
    """One pool, look by look."""

    quick: Rate = field(default_factory=lambda: Rate(QUICK_S))
    calm: Rate = field(default_factory=lambda: Rate(CALM_S))
    bunches: Bunches = field(default_factory=Bunches)
    asked: Rate = field(default_factory=lambda: Rate(CALM_S))
    service: Mean = field(default_factory=lambda: Mean(memory=MEMORY))
    steps: dict[str, StepSense] = field(default_factory=dict)
    asks: dict[str, int] = field(default_factory=dict)
    """By agent, how many steps it has asked for here, ever."""
    habits: dict[str, float] = field(default_factory=dict)
    """By agent, of how many it has asked here within the turns that its `StepSense` remembers."""
    count: int = -1
    """For the next question."""
    glance: Glance | None = None
    at_ms: int = 0
    arrived: int = 0
    """Since the look before the last."""
    busy_ms: int = 0
    """When something last waited, ran or came."""
    _ended: int = 0
    _total: int | None = None
    _owed: int = 0

    def see(self, now_ms: int, glance: Glance) -> None:
        """Take in how the pool stands now."""
        seconds = (now_ms - self.at_ms) / 1000 if self.at_ms else 0.0
        self._see_pace(glance, max(seconds, 0.0))
        arrived = self.arrived = self._arrived(glance)
        if seconds > 0:
            self.quick.see(arrived, seconds)
            self.calm.see(arrived, seconds)
            self.bunches.see(arrived, seconds)
        if glance.waiting or glance.held or arrived or not self.at_ms:
            self.busy_ms = now_ms
        # Where the server's clock goes back, the time until it is there again was else no rest.
        self.busy_ms = min(self.busy_ms, now_ms)
        self.glance, self.count, self.at_ms = glance, glance.count, now_ms

    def forget_time(self) -> None:
        """The store was away: what came and ended meanwhile is taken in, but for no rate, and was no time of rest."""
        self.at_ms, self._total = 0, None

    @property
    def ended(self) -> int:
        """Attempts that have ended, ever."""
        return self._ended

    def rest_since(self, at_ms: int) -> None:
        """Somebody who looked before knows that nothing has come since then."""
        self.busy_ms = min(self.busy_ms, at_ms)

    @property
    def idle_s(self) -> float:
        """Since how long nothing waits, runs or comes."""
        return max(0.0, (self.at_ms - self.busy_ms) / 1000)

    @property
    def is_still(self) -> bool:
        """Whether nothing waits, runs or has come of late: all that it could tell is nothing."""
        return self.idle_s > 0 and self.quick.value < 1e-3 and self.calm.value < 1e-3

    def _see_pace(self, glance: Glance, seconds: float) -> None:
        if glance.sums is None or glance.asks is None:
            self.asked.see(0, seconds)
            for step in self.steps.values():
                step.rate.see(0, seconds)
            return
        new, total_ms, squares = 0, 0.0, 0.0
        for name, sums in glance.sums.items():
            step = self.steps.setdefault(name, StepSense())
            before = step.known if sums.attempts >= step.known.attempts else NOTHING
            gained = step.see(sums, seconds)
            new += gained
            total_ms += sums.ms - before.ms if gained else 0
            squares += sums.squares - before.squares if gained else 0
        if new:
            mean = total_ms / new / 1000
            self.service.see_many(new, mean, squares / new / 1e6 - mean * mean)
        self._ended = sum(step.known.attempts for step in self.steps.values())
        asked = 0
        for agent, count in glance.asks.items():
            gained = count - self.asks.get(agent, 0) if count >= self.asks.get(agent, 0) else count
            self.habits[agent] = self.habits.get(agent, 0.0) + gained
            self.asks[agent] = count
            asked += gained
        self.asked.see(asked if self.at_ms else 0, seconds)

    def _arrived(self, glance: Glance) -> int:
        """How many attempts have come since the last look: what is there and what has ended, less what was there.

        No counter of arrivals is needed for that, so that a start costs the server nothing for it. What leaves without
        an end (it waits for a guard, was cancelled) is owed by those that come next.
        """
        total = glance.waiting + glance.held + self._ended
        before, self._total = self._total, total
        if before is None or glance.count < self.count:
            return 0
        gained = total - before + self._owed
        self._owed = min(gained, 0)
        # A flood that is called off must not hide what comes for ever.
        self._owed = max(self._owed, -MEMORY)
        return max(gained, 0)


def habits(sensors: Mapping[str, PoolSensor]) -> dict[str, dict[str, float]]:
    """By agent, of how many steps one of its turns asks each pool, on average; forgets what lies far back."""
    turns: dict[str, float] = {}
    for sensor in sensors.values():
        for name, step in sensor.steps.items():
            turns[name] = turns.get(name, 0.0) + step.attempts
    found: dict[str, dict[str, float]] = {}
    for pool, sensor in sensors.items():
        for agent, asked in sensor.habits.items():
            made = turns.get(agent, 0.0)
            if made > 0:
                # More than the remembered turns could have asked for lies further back than they do.
                found.setdefault(agent, {})[pool] = asked / made
    return found


def fade(sensors: Mapping[str, PoolSensor], before: Mapping[str, float]) -> dict[str, float]:
    """Have what agents asked for fade as fast as the turns that asked; gives the turns known now, for the next call."""
    known: dict[str, float] = {}
    for sensor in sensors.values():
        for name, step in sensor.steps.items():
            known[name] = known.get(name, 0.0) + step.known.attempts
    for sensor in sensors.values():
        for agent in sensor.habits:
            new = known.get(agent, 0.0) - before.get(agent, 0.0)
            if new > 0:
                sensor.habits[agent] *= MEMORY / (MEMORY + new)
    return known


def expected(
    sensors: Mapping[str, PoolSensor], branching: Mapping[str, Mapping[str, float]]
) -> dict[str, tuple[float, float]]:
    """By pool, of how many steps the turns that run now will ask it, and in how many seconds on average.

    Where agents share their pool with other steps its glance says which run; else all that run or wait there are
    agents, and which, is told by the mix of the last ones.
    """
    asks: dict[str, tuple[float, float]] = {}
    for sensor in sensors.values():
        glance = sensor.glance
        total = sum(step.busy_s for step in sensor.steps.values())
        if glance is None or total <= 0:
            continue
        for name, step in sensor.steps.items():
            if glance.names is not None:
                turns = float(glance.names.get(name, 0))
            else:
                turns = (glance.held + glance.waiting) * step.busy_s / total
            for pool, each in branching.get(name, {}).items():
                many, seconds = asks.get(pool, (0.0, 0.0))
                asks[pool] = (many + turns * each, seconds + turns * each * step.service.value)
    return {pool: (many, seconds / many) for pool, (many, seconds) in asks.items() if many > 0}


def is_mixed(sensor: PoolSensor, branching: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether agents that ask for steps share the pool with what asks for none."""
    asking = [name in branching for name, step in sensor.steps.items() if step.attempts > 0]
    return any(asking) and not all(asking)


def paces(sensor: PoolSensor, branching: Mapping[str, Mapping[str, float]]) -> dict[str, StepPace]:
    """How each step of the pool fares."""
    return {
        name: StepPace(
            per_second=round(step.rate.value, 4),
            service_s=round(step.service.value, 4),
            variation=round(step.service.variation, 3),
            failed=min(1.0, step.share(step.failed)),
            asks=round(sum(branching.get(name, {}).values()), 3),
            depth=round(step.attempts / step.ended, 2) if name in branching and step.ended >= 0.5 else 0.0,
        )
        for name, step in sensor.steps.items()
        if step.attempts > 0
    }


def cognition(sensor: PoolSensor, steps: Mapping[str, StepPace], foreseen: float) -> Cognition:
    """What the pool's agents do."""
    attempts = sum(step.attempts for step in sensor.steps.values())
    failed = sum(step.failed for step in sensor.steps.values())
    deep = [(sensor.steps[name].attempts, pace.depth) for name, pace in steps.items() if pace.depth]
    turns = sum(many for many, _ in deep)
    return Cognition(
        depth=round(sum(many * depth for many, depth in deep) / turns, 2) if turns > 0 else 0.0,
        calls_per_second=round(sensor.asked.value, 4),
        failed=min(1.0, failed / attempts) if attempts > 0 else 0.0,
        tokens_per_second=round(sum(step.rate.value * step.share(step.tokens) for step in sensor.steps.values()), 2),
        expected=round(foreseen, 2),
    )
