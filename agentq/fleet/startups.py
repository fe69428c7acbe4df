"""How long the workers of a pool take from their order to their enrolment, as measured; it orders nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from agentq.core.rates import Mean
from agentq.core.scaling import PoolLoad
from agentq.fleet.roster import Roster, startups

STARTUPS: Final = 20
"""The last ones make the mean."""

LAPSE: Final = 5
"""What was not filled in so many usual start-up times is not about to start: the platform has not heard it, as an HPA
does not hear a change below a tenth."""

LAPSE_AT_LEAST_S: Final = 30.0
"""Platforms look no more often than every fifteen seconds."""

LONGEST_S: Final = 1800.0
"""No worker takes so long: whoever comes then was started for another reason."""

ASSUMED_S: Final = PoolLoad().startup_s
"""Before a start was measured."""


@dataclass
class Startups:
    """Of one pool."""

    wanted: int | None = None
    """How many instances the platform was told to have; None before it was told anything."""
    _measured: Mean = field(default_factory=lambda: Mean(memory=STARTUPS))
    _awaited: set[str] = field(default_factory=set)
    _ordered: deque[int] = field(default_factory=deque)
    _there: int = 0

    @property
    def seconds(self) -> float:
        """From the order of a worker to its enrolment, as measured; else what is assumed."""
        return self._measured.value if self._measured.count else ASSUMED_S

    def learn(self, seconds: float) -> None:
        """Take over what an earlier leader has measured, where nothing is measured yet."""
        if not self._measured.count:
            self._measured.see(seconds)

    def call_roll(self, roster: Roster, now_ms: int) -> None:
        """Take in who has come, of a platform that lists its instances."""
        for seconds in startups(roster, self._awaited, now_ms):
            self._measured.see(seconds)
        # Only who was seen to start is measured: a worker that begins anew is younger than its instance.
        self._awaited = {each.name for each in roster.starting}

    def count(self, there: int, now_ms: int) -> None:
        """Take in how many workers there are, of a platform that lists none."""
        for _ in range(self._there, there):
            seconds = _since(self._ordered.popleft(), now_ms) if self._ordered else LONGEST_S
            if seconds < LONGEST_S:
                self._measured.see(seconds)
        self._there = there

    def order(self, instances: int, now_ms: int, *, is_listed: bool) -> None:
        """Remember that so many were ordered in all."""
        self.wanted = instances
        if is_listed:
            return
        more = max(0, instances - self._there)
        if len(self._ordered) < more:
            # Only the greater number is heard, if any: what is started now is not as old as the order before.
            lapse_ms = max(LAPSE * self.seconds, LAPSE_AT_LEAST_S) * 1000
            fresh = [at for at in self._ordered if now_ms - at <= lapse_ms]
            self._ordered = deque([*fresh, *[now_ms] * (len(self._ordered) - len(fresh))])
        while len(self._ordered) < more:
            self._ordered.append(now_ms)
        while len(self._ordered) > more:
            self._ordered.pop()

    def ages(self, roster: Roster, now_ms: int) -> list[float]:
        """Seconds since each of those that start was ordered, of whom that is known."""
        unlisted = list(self._ordered)[: roster.unlisted_starting]
        return [max(0.0, each.age_s) for each in roster.starting] + [_since(at, now_ms) for at in unlisted]


def _since(at_ms: int, now_ms: int) -> float:
    # The server's clock may have gone back meanwhile.
    return max(0.0, (now_ms - at_ms) / 1000)
