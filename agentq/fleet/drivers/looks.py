"""Looks at pools one by one, for at most some seconds of a round: a platform that is slow holds nobody up for long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from time import monotonic
from typing import Final

from agentq.fleet.drivers import Observed

LOOKS_S: Final = 2.0
"""All looks of a round, the last one's own time left out: meanwhile nothing else of the controller goes on."""

STALE_S: Final = 15.0
"""An older look tells nothing of now."""

_SLOW: Final = "the platform answers so slowly that not every pool is looked at in time"


class Looks:
    """What was seen of each pool last, and when it is looked at again: first whom nobody has looked at for longest.

    Args:
        look: at one pool; what it raises ends the round's looks.
        fresh_s: how old a look at a pool may be before it is repeated.
        a_second: so many pools are looked at in a second at most: of many, a look may be older.
        clock: seconds, on any clock that does not jump.
    """

    def __init__(
        self,
        look: Callable[[str], Observed],
        *,
        fresh_s: float,
        a_second: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._look, self._clock = look, clock
        self._fresh_s, self._a_second = fresh_s, a_second
        self._seen: dict[str, tuple[float, Observed]] = {}
        self._is_slow = False

    def at(self, pools: Sequence[str]) -> Mapping[str, Observed]:
        """What there is of each pool; one that there was no time for is as it was seen last, or unknown after a while.

        That the platform is slow is told of all pools until all are looked at in time again: of one by one as its turn
        comes and goes, it would be news each time.
        """
        began = self._clock()
        fresh_s = max(self._fresh_s, len(pools) / self._a_second)
        due = sorted((pool for pool in pools if began - self._at(pool) >= fresh_s), key=self._at)
        looked = 0
        while looked < len(due) and (not looked or self._clock() - began < LOOKS_S):
            pool = due[looked]
            # By its beginning: what it tells is no younger.
            self._seen[pool] = (self._clock(), self._look(pool))
            looked += 1
        oldest = self._clock() - max(STALE_S, 3 * fresh_s)
        unknown = {pool for pool in due[looked:] if self._at(pool) < oldest}
        self._is_slow = bool(unknown) or (self._is_slow and looked < len(due))
        return {pool: self._observed(pool, is_known=pool not in unknown) for pool in pools}

    def forget(self, pool: str) -> None:
        """Look at it again in the next round: it was changed."""
        self._seen.pop(pool, None)

    def _at(self, pool: str) -> float:
        return self._seen[pool][0] if pool in self._seen else -inf

    def _observed(self, pool: str, *, is_known: bool) -> Observed:
        if not is_known:
            return Observed(None, trouble=_SLOW, is_unknown=True)
        found = self._seen[pool][1]
        return replace(found, trouble=_SLOW) if self._is_slow and found.trouble is None else found
