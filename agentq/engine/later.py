"""Calls that are made by a second thread unless they are called off in time: a guard that costs next to nothing."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from heapq import heappop, heappush
from time import monotonic

logger = logging.getLogger(__name__)


class Later:
    """A call that stands out; ``call_off`` is called by the thread that made it.

    The call is made again after each number of seconds that it returns, and not any more once it returns None.
    """

    def __init__(self, call: Callable[[], float | None]) -> None:
        self._call = call
        self._lock = threading.Lock()
        self._off = False

    def call_off(self) -> None:
        """Have it not be made any more; one that is being made has ended."""
        with self._lock:
            self._off = True

    def make(self) -> float | None:
        """Make the call, in the thread of the clock; return after how many seconds again."""
        with self._lock:
            if self._off:
                return None
            try:
                return self._call()
            except Exception:
                logger.exception("later_failed")
                return None


class _Clock:
    """One thread of a process, which waits for the earliest moment."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Later]] = []
        self._numbers = 0
        self._sooner = threading.Condition()
        threading.Thread(target=self._run, name="agentq-later", daemon=True).start()

    def add(self, later: Later, seconds: float) -> None:
        with self._sooner:
            self._numbers += 1
            heappush(self._queue, (monotonic() + seconds, self._numbers, later))
            # What is called off stays until its moment, so that most calls wake nobody.
            if self._queue[0][2] is later:
                self._sooner.notify()

    def _run(self) -> None:
        while True:
            with self._sooner:
                while not self._queue or self._queue[0][0] > monotonic():
                    self._sooner.wait(self._queue[0][0] - monotonic() if self._queue else None)
                _, _, later = heappop(self._queue)
            again = later.make()
            if again is not None:
                self.add(later, again)


_lock = threading.Lock()
_clock: _Clock | None = None


def after(seconds: float, call: Callable[[], float | None]) -> Later:
    """Have ``call`` be made after so long, in another thread, unless it is called off."""
    global _clock
    with _lock:
        if _clock is None:
            _clock = _Clock()
        clock = _clock
    later = Later(call)
    clock.add(later, seconds)
    return later


def _forget() -> None:
    global _clock, _lock
    # The thread stayed in the parent.
    _lock = threading.Lock()
    _clock = None


os.register_at_fork(after_in_child=_forget)
