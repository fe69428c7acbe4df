"""Grows and shrinks the prefork pool of one worker by what waits in its queues: Celery's ``worker_autoscaler``.

Celery's own counts the requests that a worker holds. Ours holds none that it cannot run, so that it would never grow;
and ``Pool.shrink`` ends a child that has just been sent a step, since it counts as busy only once it has answered.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from math import ceil
from time import monotonic
from typing import Any, Final, NamedTuple

from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.autoscale import AUTOSCALE_KEEPALIVE, Autoscaler

from agentq.core.scaling import Asked, Objective, PoolLoad, Size, decide_size
from agentq.engine.background import Background
from agentq.engine.devices.pinning import forks, is_pinned
from agentq.engine.keeper.board import Board
from agentq.engine.lookout import SHARED_MS
from agentq.engine.request import has_children
from agentq.engine.worker_view import queues_of
from agentq.store import Store

logger = get_logger(__name__)

KEEPALIVE: Final = "AUTOSCALE_KEEPALIVE"
"""Celery's variable: seconds for which a child that was needed stays."""

LOOK_S: Final = 1.0
"""Between two looks at the queues, and two decisions."""

FORK_S: Final = 0.2
"""From the order of a child to its first step."""

SLO_WAIT: Final = timedelta(seconds=1)
"""A child is there at once: what waits longer than this has waited for want of one."""


class Queues(NamedTuple):
    """How the worker's queues stood: its share of what waits there, and how long an attempt lasts."""

    waiting: int = 0
    service_s: float = 0.0


class Outlook(Background):
    """Looks at the queues in a thread of its own: the event loop waits for no server."""

    def __init__(self, store: Store, queues: Callable[[], Sequence[str]]) -> None:
        super().__init__(store, name="autoscaler", logger=logger)
        self._queues = queues
        self.seen = Queues()

    def look(self) -> None:
        """Note how the queues stand. What several workers serve is shared among them."""
        stands = self.store.survey(self._queues(), fresh_ms=SHARED_MS)
        waiting = sum(ceil(sum(each.waiting) / max(each.workers, 1)) for each in stands.values())
        busiest = max(stands.values(), key=lambda each: (each.per_second, each.service_s or 0.0), default=None)
        self.seen = Queues(waiting, busiest.service_s or 0.0 if busiest is not None else 0.0)


class QueueAutoscaler(Autoscaler):
    """As many children as the queues ask for, between the two numbers of ``--autoscale=MOST,LEAST``.

    It grows at once, and shrinks to the most that ran or was asked for within ``AUTOSCALE_KEEPALIVE`` seconds, by
    children in which nothing runs. All of it but ``look`` of the outlook runs in the event loop.
    """

    def __init__(
        self,
        pool: Any,
        max_concurrency: int,
        min_concurrency: int = 0,
        worker: Any = None,
        keepalive: float | None = None,
        mutex: Any = None,
    ) -> None:
        # Celery's event loop asks again after ``keepalive``: a queue is not to wait for so long.
        super().__init__(pool, max_concurrency, max(1, min_concurrency), worker, LOOK_S, mutex)
        held_s = float(os.environ.get(KEEPALIVE, AUTOSCALE_KEEPALIVE)) if keepalive is None else keepalive
        self.window = timedelta(seconds=held_s)
        self.outlook: Outlook | None = None
        self._past: deque[tuple[float, int]] = deque()
        self._decided_at = float("-inf")
        if not forks(worker):
            logger.warning("autoscale_refused: only a prefork pool grows and shrinks; this one keeps its slots")

    def _maybe_scale(self, req: Any = None) -> bool:
        """Called with each message and each second; decides each second."""
        now = monotonic()
        service = getattr(self.worker, "agentq_service", None)
        if service is None or service.presence is None or not has_children(self.pool):
            return False
        if self.outlook is None:
            worker = self.worker
            self.outlook = Outlook(service.terms.open_brief_store(), lambda: queues_of(worker))
            self.outlook.start()
        if now - self._decided_at < LOOK_S / 2:
            return False
        self._decided_at = now
        board = service.presence.board
        return self._resize(self._decide(now), board)

    def _decide(self, now: float) -> Size:
        seen = self.outlook.seen if self.outlook is not None else Queues()
        running = len(state.reserved_requests)
        # A child is forked in no time: no rate has to tell in advance what will be needed.
        load = PoolLoad(
            waiting=seen.waiting, running=running, service_s=seen.service_s, startup_s=FORK_S, ready=self.processes
        )
        most = self.max_concurrency
        objective = Objective(
            least=min(max(self.min_concurrency, running), most), most=most, slo_wait=SLO_WAIT, window=self.window
        )
        while self._past and now - self._past[0][0] > self.window.total_seconds():
            self._past.popleft()
        size = decide_size(load, objective, [Asked(now - at, asked) for at, asked in self._past])
        self._past.append((now, size.asked))
        return size

    def _resize(self, size: Size, board: Board) -> bool:
        processes = self.processes
        if size.workers > processes:
            logger.info("pool_grows from=%d to=%d: %s", processes, size.workers, size.why)
            self.pool.grow(size.workers - processes)
            return True
        if size.workers < processes:
            return self._end_idle(processes - size.workers, board)
        return False

    def _shrink(self, n: int) -> None:
        # Of remote control, which lowers the most: what is busy goes when it is idle.
        service = getattr(self.worker, "agentq_service", None)
        if service is not None and service.presence is not None:
            self._end_idle(n, service.presence.board)

    def _end_idle(self, number: int, board: Board) -> bool:
        pool = self.pool._pool
        leaving = leaving_children(pool, number, top_only=is_pinned())
        for child in leaving:
            pool._processes -= 1
            if pool._putlock is not None:
                pool._putlock.shrink()
            # From here on no step is written to it; until its end is heard of it would still count as one to write to.
            inqueues = getattr(pool, "_all_inqueues", None)
            if inqueues is not None:
                inqueues.discard(child.inqW_fd)
            board.vacate(child.index)
            child.terminate_controlled()
        if leaving:
            logger.info("pool_shrinks to=%d children=%s", pool._processes, [child.pid for child in leaving])
        return bool(leaving)

    def close(self) -> None:
        """The worker ends."""
        if self.outlook is not None:
            self.outlook.stop()


def leaving_children(pool: Any, number: int, *, top_only: bool) -> list[Any]:
    """Return so many children, at most, to which nothing was sent; those of the highest slots first.

    ``top_only``: none whose slot has a higher one beside it, since devices are shared out by slots.
    """
    calls = list(pool._cache.values())
    busy = {pid for call in calls for pid in call.worker_pids()}
    sent = {id(child) for call in calls for child in (call._write_to, call._scheduled_for) if child is not None}
    found: list[Any] = []
    # A child that has not said that it is up may have its first step on the way in.
    up = getattr(pool, "_fileno_to_inq", None)
    for child in sorted(pool._pool, key=lambda each: -int(each.index)):
        is_idle = child.pid not in busy and id(child) not in sent and (up is None or child.inqW_fd in up)
        if not is_idle and top_only:
            break
        if is_idle and len(found) < number:
            found.append(child)
    return found[:number]
