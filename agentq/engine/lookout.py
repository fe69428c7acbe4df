"""How the pools stand, as this process has last seen it: read in the background, never in the call that asks.

A thread reads while somebody asks, about once a second, and ends when nobody has asked for a while. Owns when; what is
read is the store's, what follows from it is ``core.routes``'.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

from agentq.core.errors import Unavailable
from agentq.core.routes import Outlook
from agentq.store.survey import Standing, load_of

logger = logging.getLogger(__name__)

REFRESH_S: Final = 1.0
"""How old what is known may be: a call's own wait is told in seconds as well."""
IDLE_S: Final = 10.0
"""A process in which nothing was routed for so long stops reading."""
STALE_S: Final = 5.0
"""What is older says nothing of now: who asks then waits for a fresh look, once, as at the very first."""
FIRST_S: Final = 0.5
"""How long that look is waited for at most; without it the call goes where it would go without any knowledge."""
SHARED_MS: Final = 500
"""What another process has found within this time is good enough."""


class Lookout:
    """One process's view of the pools.

    Args:
        survey: reads how the queues stand.
    """

    def __init__(self, survey: Callable[[], Mapping[str, Standing]]) -> None:
        self._survey = survey
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._outlook: Outlook | None = None
        self._at = self._asked = self._failed_at = float("-inf")
        self._lock = threading.Lock()
        self._looked = threading.Event()
        self._thread: threading.Thread | None = None

    def outlook(self) -> Outlook | None:
        """Return what is known; None where nothing is, because the server cannot be reached."""
        if self._pid != os.getpid():
            # A fork has inherited no thread, and perhaps a lock that nobody will open.
            self._begin()
        now = monotonic()
        self._asked = now
        if self._thread is None:
            self._start()
        if now - self._at > STALE_S and now - self._failed_at > STALE_S:
            self._looked.wait(FIRST_S)
        return self._outlook

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._looked.clear()
                self._thread = threading.Thread(target=self._run, name="agentq-lookout", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self._look()
            pause.wait(REFRESH_S)
            with self._lock:
                if monotonic() - self._asked > IDLE_S:
                    # Under the lock: who asks from now on starts another.
                    self._thread = None
                    return

    def _look(self) -> None:
        try:
            self._outlook = Outlook({name: load_of(standing) for name, standing in self._survey().items()})
            self._at = monotonic()
        except Unavailable:
            self._failed_at = monotonic()
        except Exception:
            # Whatever it is, calls are routed without; the next look may find better.
            self._failed_at = monotonic()
            logger.exception("pools_not_seen")
        finally:
            self._looked.set()
