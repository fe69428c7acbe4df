"""Ends a computation that goes on for too long: from a second thread, in the midst of whatever it does.

Works on Python code alone: a call into C that does not return is the keeper's matter.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

T = TypeVar("T")

_AWAKE_S: Final = 1.0
"""After a computation the watchdog looks once more so much later: the next ones, soon after one another, need not wake
it each."""

_AGAIN_S: Final = 1.0
"""Whoever catches the exception gets it again after so long, until he gives up."""


class Overran(BaseException):
    """Raised in the midst of the code that took too long; no ``except Exception`` holds it up."""


class _Watch:
    """One computation, in the thread that opened it.

    Attributes:
        closing: set by that thread; nothing is sent to it any more.
        sending: set by the watchdog from before it looks at ``closing`` until it has sent.
        sent: whether something was sent.
    """

    __slots__ = ("closing", "deadline", "sending", "sent", "thread")

    def __init__(self, seconds: float) -> None:
        self.deadline = time.monotonic() + seconds
        self.thread = threading.get_ident()
        self.closing = False
        self.sending = False
        self.sent = False

    def interrupt(self) -> None:
        """Raise Overran in the thread, unless it is through."""
        self.sending = True
        if not self.closing:
            self.sent = True
            _send(self.thread, Overran)
        self.sending = False

    def close(self) -> None:
        """Have nothing arrive in this thread from now on.

        Without a lock: the exception might come between taking it and the block that gives it back. Whatever was sent
        a moment ago and has not arrived yet would be raised in code that has done nothing wrong, so it is taken back.
        """
        self.closing = True
        while self.sending:
            time.sleep(0)
        if self.sent:
            _send(self.thread, None)


class _Watchdog:
    """A thread that waits for the earliest deadline.

    The threads that it watches touch no lock of it: the exception might come between taking one and giving it back.
    """

    def __init__(self) -> None:
        self._watches: set[_Watch] = set()
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._next = float("inf")
        threading.Thread(target=self._run, name="agentq-watchdog", daemon=True).start()

    def open(self, watch: _Watch) -> None:
        self._watches.add(watch)
        # It looks at all of them when it wakes; most deadlines are later than the one that it sleeps for.
        if watch.deadline < self._next:
            self._wakes.put(None)

    def close(self, watch: _Watch) -> None:
        self._watches.discard(watch)
        watch.close()

    def _run(self) -> None:
        woken = False
        while True:
            # Before it looks: who comes in between wakes it.
            self._next = float("inf")
            now = time.monotonic()
            for watch in list(self._watches):
                if watch.deadline <= now:
                    watch.interrupt()
                    watch.deadline = now + _AGAIN_S
            earliest = min((each.deadline for each in list(self._watches)), default=None)
            if earliest is None and woken:
                earliest = now + _AWAKE_S
            if earliest is not None:
                self._next = earliest
            try:
                self._wakes.get(timeout=None if earliest is None else max(0.0, earliest - time.monotonic()))
                woken = True
            except Empty:
                woken = False


def _send(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)


_lock = threading.Lock()
_watchdog: _Watchdog | None = None


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return ``call()``, in which Overran is raised once it has run for so long.

    No context manager: the exception might come as its exit begins, before anything in there could catch it.
    """
    watch = _Watch(seconds)
    watchdog = _watchdog if _watchdog is not None else _this_process()
    try:
        watchdog.open(watch)
        return call()
    finally:
        try:
            watchdog.close(watch)
        except Overran:
            # It came as the call ended by itself.
            watchdog.close(watch)


def _this_process() -> _Watchdog:
    global _watchdog
    with _lock:
        if _watchdog is None:
            _watchdog = _Watchdog()
        return _watchdog


def _forget() -> None:
    global _watchdog, _lock
    _lock = threading.Lock()
    _watchdog = None


os.register_at_fork(after_in_child=_forget)
