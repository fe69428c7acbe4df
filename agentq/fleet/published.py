"""What the leading controllers have published, for whoever serves it: read seldom, and never told when it is old."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, NamedTuple

from agentq.core.errors import Unavailable
from agentq.core.sizing import Decision

FRESH_S: Final = 15.0
"""A leader publishes at least every five seconds; one that has died is followed within another five."""

KEPT_S: Final = 0.5
"""However many ask, the store is asked so seldom."""


class NoController(Exception):
    """Nobody stands behind the last decision any more."""


class Known(NamedTuple):
    """The last decision of each pool, and the server's clock when they were read."""

    now_ms: int
    decisions: Mapping[str, Decision]

    def is_fresh(self, decision: Decision) -> bool:
        """Whether a controller stands behind it still."""
        return self.now_ms - decision.at_ms <= FRESH_S * 1000

    def decision_of(self, pool: str) -> Decision:
        """The decision that a platform may act on.

        Raises KeyError where none was ever made, and NoController where it is too old; both say what to do.
        """
        decision = self.decisions.get(pool)
        if decision is None:
            decided = ", ".join(self.decisions) or "none"
            raise KeyError(f'nothing was decided for a pool "{pool}"; pools with a decision: {decided}')
        if not self.is_fresh(decision):
            age = (self.now_ms - decision.at_ms) / 1000
            raise NoController(f"no controller is at work: the last decision is {age:.0f} s old; run agentq autoscale")
        return decision


class Published:
    """The decisions as they stand; any thread may ask.

    Args:
        read: them, from the store; raises Unavailable.
    """

    def __init__(self, read: Callable[[], Known]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._known: Known | Unavailable | None = None
        self._known_at = float("-inf")

    def now(self) -> Known:
        """The decisions, at most half a second old; raises Unavailable."""
        with self._lock:
            if monotonic() - self._known_at >= KEPT_S:
                try:
                    self._known = self._read()
                except Unavailable as error:
                    # Kept as well: all who ask meanwhile would each wait for the same time-out.
                    self._known = error
                self._known_at = monotonic()
            known = self._known
        if isinstance(known, Unavailable):
            raise known
        assert known is not None
        return known
