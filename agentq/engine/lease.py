"""Keeps a worker alive in the store's eyes: a thread that renews its lease and lets time pass.

Owns one thread. Must not know Celery: what happens when the worker was given up is the caller's function.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from time import monotonic

from agentq.core.errors import Unavailable
from agentq.store import Store

logger = logging.getLogger(__name__)

LONGEST_PAUSE_S = 1.0
"""Between attempts while the server is away: a lease is short, and the first to come back renews at once."""


class Lease:
    """A worker's lease in the store, renewed from a thread.

    Args:
        store: with a client of its own, whose time-out is well below the lease: a connection that hangs must
        not
            cost the lease.
        worker: id of an enrolled worker.
        lease_s: length of the lease.
        renew_s: time between renewals.
        tick_s: mean time between ticks; each worker ticks at random moments around it, so that many of them
        do not
            come at once.
        queues: what the worker consumes now.
        on_lost: called once, in the thread, when the store says that the worker was given up.
    """

    def __init__(
        self,
        store: Store,
        worker: str,
        *,
        lease_s: float,
        renew_s: float,
        tick_s: float,
        queues: Callable[[], tuple[str, ...]],
        on_lost: Callable[[], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._lease_ms = int(lease_s * 1000)
        self._renew_s = renew_s
        self._tick_s = tick_s
        self._queues = queues
        self._listed = queues()
        self._on_lost = on_lost
        self._stop = threading.Event()
        self._random = random.Random(worker)
        self._thread = threading.Thread(target=self._run, name="agentq-lease", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the lease runs out unless the worker leaves."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)
        self._store.close()

    def _run(self) -> None:
        renew_at = tick_at = monotonic()
        failures = 0
        while not self._stop.is_set():
            now = monotonic()
            try:
                if now >= renew_at:
                    if not self._renew():
                        self._on_lost()
                        return
                    renew_at = now + self._renew_s
                if now >= tick_at:
                    self._store.tick(self._lease_ms)
                    tick_at = now + self._tick_s * self._random.uniform(0.5, 1.5)
                if failures:
                    logger.info("store_reachable_again worker=%s", self._worker)
                failures = 0
                pause = min(renew_at, tick_at) - monotonic()
            except Unavailable as error:
                if not failures:
                    logger.warning("store_unreachable worker=%s: %s", self._worker, error)
                pause = self._pause(failures)
                failures += 1
            except Exception:
                # A thread that ends by a surprise would cost the lease, and with it everything that runs
                # here.
                logger.exception("lease_failed worker=%s", self._worker)
                pause = self._pause(failures)
                failures += 1
            self._stop.wait(max(pause, 0.001))

    def _renew(self) -> bool:
        queues = self._queues()
        changed = queues if queues != self._listed else None
        standing = self._store.renew(self._worker, self._lease_ms, queues=changed)
        self._listed = queues
        return standing == "alive"

    def _pause(self, failures: int) -> float:
        longest = min(LONGEST_PAUSE_S, self._renew_s)
        return min(longest, 0.05 * 2.0 ** min(failures, 10)) * self._random.uniform(0.5, 1.0)
