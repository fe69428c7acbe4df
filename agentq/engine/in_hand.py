"""What a thread of a worker has in hand: short steps that one commit has taken together, and a commit on its way.

A thread that waits for the server at each step is put to sleep and woken at each, and takes turns with the others of
its process. Where many short steps wait it takes some at once, and while it runs one of them the answer to the commit
of the one before may come. Each is committed as soon as it has ended, by its own call; nothing that has ended waits for
what runs.

A step in hand waits behind the others for some milliseconds at most: where one of those turns out long, the rest is
given back by another thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

from celery.utils.log import get_logger

from agentq.core.errors import CalledOff, StaleHolder, Unavailable
from agentq.engine import later
from agentq.engine.outcome import keep_trying
from agentq.engine.slots import Taker
from agentq.store.refs import Taken
from agentq.store.steps import CommitUnderWay

logger = get_logger(__name__)

MOST: Final = 8
"""Steps that are taken at once: with more, the wait for the server is no longer what they cost."""

TOGETHER_S: Final = 0.004
"""So long all that are taken at once may take, as far as is known: another worker could have begun them meanwhile."""

LONG_S: Final = 0.05
"""After so long a step takes long: what stands behind it is given back."""

AGAIN_S: Final = 1.0
"""So long after the server was away it is asked again."""


def how_many(longest_s: float) -> int:
    """Return how many steps may be taken at once where each is known to take so long at most."""
    return max(1, min(MOST, int(TOGETHER_S / max(longest_s, 1e-6))))


class Hand:
    """What one thread has in hand; but for the clock's thread nobody else touches it.

    Attributes:
        has_several: what was taken last waited for one another, or waits.

    Args:
        taker: under whose id the thread takes.
    """

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._worker = taker.id
        self._steps: deque[Taken] = deque()
        self._left: tuple[CommitUnderWay, int, Callable[[], None]] | None = None
        self._lock = threading.Lock()
        self._guard: later.Later | None = None
        self._drew = monotonic()
        self.has_several = False

    def __bool__(self) -> bool:
        return bool(self._steps)

    def put(self, taken: Sequence[Taken]) -> None:
        """Have what a commit has taken be run next, in its order."""
        takes = [each.take for each in taken]
        # First of all: what the worker holds and nobody here knows of is handed back.
        self._taker.in_hand.update(takes)
        self._taker.saw(*takes)
        self._drew = monotonic()
        self._steps.extend(taken)
        self.has_several = len(taken) > 1
        if len(taken) > 1 and self._guard is None:
            self._guard = later.after(LONG_S, self._look)

    def draw(self) -> Taken | None:
        """Return the next step, which is begun now; None when there is none. ``ended`` tells of its end."""
        self._drew = monotonic()
        try:
            return self._steps.popleft()
        except IndexError:
            return None

    def ended(self, take: int) -> None:
        """Note that a step which was drawn is no longer here, unless only the answer to its commit is missing."""
        left = self._left
        if left is None or left[1] != take:
            self._taker.in_hand.discard(take)

    def leave(self, under_way: CommitUnderWay, take: int, revoke: Callable[[], None]) -> None:
        """Read the answer to a commit later; ``revoke`` commits that the step was called off, if it was."""
        self.settle()
        self._taker.in_hand.add(take)
        self._left = (under_way, take, revoke)

    def settle(self) -> None:
        """Return when the commit that was left is known to stand, or not to."""
        if self._left is not None:
            with self._lock:
                self._conclude(keep_trying)

    def close(self) -> None:
        """Give back what was not drawn, once all else has come to its end."""
        if self._guard is not None:
            self._guard.call_off()
        self.settle()
        self._give_back()

    def _conclude(self, patiently: Callable[[Callable[[], object]], object]) -> None:
        if self._left is None:
            return
        under_way, take, revoke = self._left
        try:
            patiently(under_way.result)
        except Unavailable:
            raise
        except StaleHolder as stale:
            logger.warning("attempt_dropped: %s", stale)
        except CalledOff:
            with suppress(StaleHolder):
                revoke()
        except Exception:
            # Held, and known to nobody: the next reconcile gives it back.
            logger.exception("commit_failed take=%d", take)
        self._left = None
        self._taker.in_hand.discard(take)

    def _look(self) -> float | None:
        """See, in the clock's thread, to what stands behind a step that takes long."""
        passed = monotonic() - self._drew
        if passed < LONG_S:
            return LONG_S - passed
        # First: the connection on which its answer comes is then free for what is given back.
        is_known = self._concluded_at_once()
        self._give_back()
        return LONG_S if is_known else AGAIN_S

    def _concluded_at_once(self) -> bool:
        # Whoever has it waits for the server already; the clock serves others too.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._conclude(lambda call: call())
        except Unavailable:
            return False
        finally:
            self._lock.release()
        return True

    def _give_back(self) -> None:
        # From the last: each goes in front of its lane.
        while self._steps:
            try:
                taken = self._steps.pop()
            except IndexError:
                return
            logger.info("handed_back take=%d: a step before it takes long", taken.take)
            # What cannot be given back now is known to nobody, and so is given back by the next reconcile.
            self._taker.in_hand.discard(taken.take)
            try:
                self._taker.store.requeue(self._worker, taken.take)
            except Unavailable:
                pass
            except Exception:
                # The others behind it are not held any longer for it.
                logger.exception("hand_back_failed take=%d", taken.take)
