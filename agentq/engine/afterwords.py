"""What a worker's main process has to say of an attempt that cannot speak any more: written in order, by one thread.

Celery calls for it in its event loop, which must not wait for a server that is away: it serves all other steps.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue

from agentq.engine import slots

logger = logging.getLogger(__name__)


class Afterwords:
    """One thread of a process, started when there is something to say first."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="agentq-afterwords", daemon=True)
        self._thread.start()

    def say(self, call: Callable[[], None]) -> None:
        """Make the call soon, after those before."""
        self._calls.put(call)

    def finish(self, timeout_s: float) -> bool:
        """Return once all that was said by now is written; False when that takes longer."""
        written = threading.Event()
        self._calls.put(written.set)
        return written.wait(timeout_s)

    def _serve(self) -> None:
        while True:
            call = self._calls.get()
            try:
                call()
            except Exception:
                logger.exception("afterword_failed")


_lock = threading.Lock()
_current: Afterwords | None = None


def say(call: Callable[[], None]) -> None:
    """Make the call: in a worker's main thread soon and elsewhere, in any other at once."""
    if slots.current() is None or threading.current_thread() is not threading.main_thread():
        call()
        return
    global _current
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = Afterwords()
        _current.say(call)


def finish(timeout_s: float) -> bool:
    """Return once all that this process has said is written; False when that takes longer."""
    with _lock:
        found = _current if _current is not None and _current.pid == os.getpid() else None
    return found is None or found.finish(timeout_s)


def _forget() -> None:
    global _current, _lock
    _lock = threading.Lock()
    _current = None


os.register_at_fork(after_in_child=_forget)
