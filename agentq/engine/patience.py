"""Whether a slot that has become free waits a moment for what comes next: by how its last waits have ended."""

from __future__ import annotations

from time import monotonic
from typing import Final

SHORTEST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.6
"""So long nobody waits for a next step after a wait in vain, and after several: each is a call of the server."""


class Patience:
    """Whether it pays to wait for a next step: after each wait in vain it is left for twice as long.

    The first one behind a step that came counts for nothing: a caller may be late once.
    """

    def __init__(self) -> None:
        self._pause = SHORTEST_PAUSE_S
        self._until = 0.0
        self._came = False

    def may_wait(self, now: float) -> bool:
        """Tell whether to try it."""
        return now >= self._until

    def note(self, came: bool) -> None:
        """Note how a wait has ended."""
        before, self._came = self._came, came
        if came:
            self._pause = SHORTEST_PAUSE_S
        elif not before:
            self._until = monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
