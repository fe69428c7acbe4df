"""How many workers a pool asked for of late: a pool shrinks only to the largest number of its window.

It knows no rule and no worker: numbers with their times, by the server's clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentq.core.scaling import Asked
from agentq.core.sizing import KEPT_PEAKS


class Peaks:
    """Of one pool. Of two numbers the later one is looked back on for longer, so that a smaller one before it goes."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int]] = []
        """Time and number; the times rise and the numbers fall."""

    def __bool__(self) -> bool:
        return bool(self._entries)

    def clear(self) -> None:
        """Nothing was asked for."""
        self._entries.clear()

    def note(self, now_ms: int, workers: int) -> None:
        """So many are asked for now."""
        while self._entries and self._entries[-1][1] <= workers:
            self._entries.pop()
        self._entries.append((now_ms, workers))

    def take_over(self, kept: Sequence[tuple[int, int]], now_ms: int) -> None:
        """Go on with what another has kept."""
        for at_ms, workers in sorted(kept):
            self.note(min(at_ms, now_ms), workers)

    def leave_out(self, now_ms: int) -> None:
        """Since the last number nobody could look: that time counts to no window."""
        if self._entries:
            gap_ms = max(0, now_ms - self._entries[-1][0])
            self._entries = [(at_ms + gap_ms, workers) for at_ms, workers in self._entries]

    def within(self, now_ms: int, window_s: float) -> list[Asked]:
        """Those of the window; older ones are forgotten."""
        # Where the server's clock has gone back, what was asked for later than now was asked for now: it would else
        # be held until the clock is there again.
        self._entries = [
            (min(at_ms, now_ms), workers) for at_ms, workers in self._entries if now_ms - at_ms <= window_s * 1000
        ]
        return [Asked((now_ms - at_ms) / 1000, workers) for at_ms, workers in self._entries]

    @property
    def kept(self) -> tuple[tuple[int, int], ...]:
        """What another needs to go on: where they are many, neighbours are one, the larger at the later time."""
        each = -(-len(self._entries) // KEPT_PEAKS)
        parts = [self._entries[at : at + each] for at in range(0, len(self._entries), each)] if each else []
        return tuple((part[-1][0], part[0][1]) for part in parts)
