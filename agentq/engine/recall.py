"""Stops what runs for nothing: steps whose run or call was cancelled, and attempts whose step another worker owns.

Owns the list of the attempts that run in this process, and a thread of the worker's main process that asks the store.
How a request is stopped is ``request``'s.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from agentq.core.errors import Unavailable
from agentq.store import Store
from agentq.store.refs import Holder

if TYPE_CHECKING:
    from agentq.engine.attempt import Attempt

logger = logging.getLogger(__name__)

_running: dict[Holder, Attempt] = {}


class listed:
    """Has ``stop_here`` find the attempt within the block."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        _running[self._attempt.holder] = self._attempt

    def __exit__(self, *_error: object) -> None:
        _running.pop(self._attempt.holder, None)


def stop_here(holder: Holder, *, hand_over: bool = False) -> bool:
    """Cancel the coroutine of an attempt of this process; False when it runs elsewhere, or not any more.

    A plain function in a thread goes on to its end, which counts for nothing. ``hand_over``: the step is then given
    back instead of ended.
    """
    attempt = _running.get(holder)
    if attempt is None:
        return False
    attempt.handed_over = hand_over
    attempt.stop.order()
    return True


class Recaller:
    """A thread that asks the store which running steps are to stop.

    Args:
        store: with a client of its own.
        running: the requests that run and were not told to stop yet, each with its ``holder``.
        stop: called in this thread with a request that is to stop.
        look: called in this thread every so often while something runs.
        every_s: time between two looks; every second one asks the store as well.
    """

    def __init__(
        self,
        store: Store,
        *,
        running: Callable[[], Sequence[Any]],
        stop: Callable[[Any], None],
        look: Callable[[], None],
        every_s: float,
    ) -> None:
        self._store = store
        self._running = running
        self._stop_request = stop
        self._look = look
        self._rounds = 0
        self._doubtful: set[Holder] = set()
        self._every_s = every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentq-recall", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._store.close()

    def _run(self) -> None:
        while not self._end.wait(self._every_s):
            try:
                self._ask()
            except Unavailable:
                # Whoever cancels cannot reach the server either; the lease says that it is away.
                continue
            except Exception:
                logger.exception("recall_failed")

    def _ask(self) -> None:
        requests = [(request, request.holder) for request in self._running() if request.holder is not None]
        if not requests:
            return
        self._look()
        self._rounds += 1
        if self._rounds % 2:
            return
        verdicts = self._store.recalled([holder for _, holder in requests], [request.seat for request, _ in requests])
        # A turn that has just parked may be held by its next take before this process hears of its end. Its child is
        # free then, or runs something else, which the signal would strike. A child goes on for a moment only: what it
        # is found with twice is its last.
        doubtful, self._doubtful = self._doubtful, set()
        current = {request.holder for request in self._running()}
        for (request, holder), verdict in zip(requests, verdicts, strict=True):
            if verdict == "go on" or holder not in current:
                continue
            if verdict in ("another's", "next not wanted") and holder not in doubtful:
                self._doubtful.add(holder)
                continue
            logger.warning("step_recalled id=%s take=%d why=%s", holder.id, holder.take, verdict)
            self._stop_request(request)
