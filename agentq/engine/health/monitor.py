"""A thread of a worker's main process that looks every second how the worker is, and acts on it.

It decides whether the worker takes work, tells the keeper's page, hands over what runs longer than a drain allows, and
ends a warm shutdown that takes too long. It must not wait for the event loop, which may be what is ill.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from celery import signals
from celery.worker import state

from agentq.core.errors import Unavailable
from agentq.core.vitals import Ailment, Thresholds, Vitals, decide_health, is_suspicious
from agentq.engine import realloop
from agentq.engine.devices.finding import Outfit
from agentq.engine.health.draining import Drain, decide_drain
from agentq.engine.health.memory import free_bytes
from agentq.engine.presence import Presence
from agentq.engine.request import StepRequest, has_children
from agentq.store import Store

logger = logging.getLogger(__name__)

WINDOW_S = 60.0
"""Over which failures are counted."""

REPORT_S = 2.0
"""Between two reports that differ only in figures; what a person waits for is told at once."""

CLOSING_S = 0.05
"""The event loop may be composing a take just while this thread closes the worker."""

ASK_S = 5.0
"""Between two questions to the store how others fare."""

LAST_S = 3.0
"""From the end of the grace to the end of a process whose threads do not end."""


@dataclass(frozen=True, slots=True)
class HealthTerms:
    """From when on a worker takes nothing, and how long it may take to stop.

    Attributes:
        limits: see ``Thresholds``.
        stop_grace_s: after a SIGTERM, how long what runs may take; None: as long as it takes.
        every_s: between two looks.
        beat_s: how often the event loop shows that it comes round.
    """

    limits: Thresholds = field(default_factory=Thresholds)
    stop_grace_s: float | None = None
    every_s: float = 1.0
    beat_s: float = 0.5


class Monitor:
    """How one worker is.

    Args:
        worker: Celery's.
        presence: under which id it takes.
        store: with a short time-out, for questions about others.
        node: the name of its machine.
        queues: those that it serves now.
        warm: names of the resources that are open in its processes.
    """

    def __init__(
        self,
        worker: Any,
        presence: Presence,
        store: Store,
        terms: HealthTerms,
        *,
        node: str,
        queues: Callable[[], tuple[str, ...]],
        outfit: Outfit | None,
        warm: Callable[[], list[str]] = list,
    ) -> None:
        self._worker = worker
        self._presence = presence
        self._store = store
        self._terms = terms
        self._node = node
        self._queues = queues
        self._outfit = outfit
        self._warm = warm
        self._ails: dict[Ailment, str] = {}
        self._counts: deque[tuple[float, int, int]] = deque([(monotonic(), *presence.board.counts())])
        self._others: tuple[int, int] | None = None
        self._asked_at = float("-inf")
        self._looked_at = monotonic()
        self._reported: dict[str, Any] = {}
        self._reported_at = float("-inf")
        self._why: str | None = None
        self._closed: tuple[bool, frozenset[str]] = (False, frozenset())
        self._closed_at = float("-inf")
        self._drained_since: dict[str, float] = {}
        self._told_to_stop_at: float | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentq-health", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        signals.worker_shutting_down.connect(self._on_stop)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        signals.worker_shutting_down.disconnect(self._on_stop)
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._store.close()

    def _on_stop(self, sig: str = "", how: str = "", **_kwargs: Any) -> None:
        # In a signal handler: nothing but a note.
        if sig == "SIGTERM" and how == "Warm" and self._told_to_stop_at is None:
            self._told_to_stop_at = monotonic()

    def _run(self) -> None:
        while not self._end.wait(self._terms.every_s):
            try:
                self.look()
            except Exception:
                logger.exception("health_failed")

    def look(self) -> None:
        """Measure, decide and tell, once."""
        now = monotonic()
        late, self._looked_at = now - self._looked_at - self._terms.every_s, now
        given_up_at = _given_up_at()
        if self._told_to_stop_at is not None or given_up_at is not None:
            self._end_in_time(now, given_up_at)
            self._tell("it is stopping", Drain(), Vitals(), now)
            return
        vitals = self._measure(now)
        # Where this thread was held up as well, the whole machine stood still, or the clock was put on.
        if late < self._terms.every_s:
            self._ails = decide_health(vitals, self._terms.limits, before=self._ails)
        drain = self._drain()
        why = "; ".join(filter(None, (drain.words, *self._ails.values()))) or None
        holds = self._close(why, drain, now)
        self._hand_over(drain, now)
        self._tell(why if holds else None, drain if holds else Drain(), vitals, now)

    # -- measuring

    def _measure(self, now: float) -> Vitals:
        done, failed = self._presence.board.counts()
        self._counts.append((now, done, failed))
        while len(self._counts) > 1 and now - self._counts[0][0] > WINDOW_S:
            self._counts.popleft()
        _, done_before, failed_before = self._counts[0]
        vitals = Vitals(
            delay_s=max(self._loop_delay(now), realloop.lag()),
            attempts=done - done_before,
            failed=failed - failed_before,
            free_bytes=free_bytes(),
        )
        if not is_suspicious(vitals, self._terms.limits):
            return vitals
        return Vitals(vitals.delay_s, vitals.attempts, vitals.failed, self._ask(now), vitals.free_bytes)

    def _loop_delay(self, now: float) -> float:
        worker, beat = self._worker, self._presence.board.beat
        runs_here = not has_children(worker.pool) and getattr(worker.pool, "executor", None) is None
        blueprint = getattr(worker.consumer, "blueprint", None)
        # A pool of one process runs its steps in the loop; a consumer that connects anew has none for a while.
        if not beat or runs_here or blueprint is None or blueprint.state != 1:
            return 0.0
        return max(0.0, now - beat - self._terms.beat_s)

    def _ask(self, now: float) -> tuple[int, int] | None:
        """Return how the attempts of others fared that serve the same queues."""
        if now - self._asked_at >= ASK_S:
            self._asked_at = now
            try:
                cards = self._store.workers()
            except Unavailable:
                return self._others
            mine = set(self._queues())
            reports = [
                card.report for card in cards if card.id != self._presence.taker.id and mine.intersection(card.queues)
            ]
            self._others = (
                sum(each.get("attempts", 0) for each in reports),
                sum(each.get("failed", 0) for each in reports),
            )
        return self._others

    def _drain(self) -> Drain:
        text = self._presence.board.marks.read()
        marks = json.loads(text) if text is not None else {}
        queues = frozenset(self._queues())
        return decide_drain(marks, worker=self._presence.taker.id, node=self._node, queues=queues)

    # -- acting

    def _close(self, why: str | None, drain: Drain, now: float) -> bool:
        """Have the worker take nothing, or not of some queues, and tell whether that holds already.

        A take that was sent before may still bring something: whoever waits for a drain must not be told too soon.
        """
        presence = self._presence
        if self._closed != (why is not None, drain.queues):
            self._closed, self._closed_at = (why is not None, drain.queues), now
        presence.taker.paused = why is not None
        presence.taker.left_out = drain.queues
        presence.board.closed = why is not None or bool(drain.queues)
        holds = presence.taker.has_asked_since(self._closed_at + CLOSING_S)
        if why == self._why:
            return holds
        if self._ails:
            logger.warning("worker_unhealthy worker=%s: %s", presence.taker.id, why)
        elif why is not None:
            logger.warning("worker_drained worker=%s: %s", presence.taker.id, why)
        else:
            logger.warning("worker_takes_again worker=%s", presence.taker.id)
        self._why = why
        return holds

    def _hand_over(self, drain: Drain, now: float) -> None:
        self._drained_since = {mark: self._drained_since.get(mark, now) for mark in drain.graces}
        for mark, grace in drain.graces.items():
            if now - self._drained_since[mark] < grace:
                continue
            for request in tuple(state.active_requests):
                queue = (request.delivery_info or {}).get("routing_key") or ""
                if isinstance(request, StepRequest) and drain.hands_over(mark, queue):
                    self._in_loop(request.hand_over)

    def _in_loop(self, act: Callable[[Any], None]) -> None:
        worker = self._worker
        if worker.hub is not None and has_children(worker.pool):
            # In the loop, which alone gives a child its next task: there, what a child runs is still what it ran.
            worker.hub.call_soon(act, worker)
        else:
            act(worker)

    def _end_in_time(self, now: float, given_up_at: float | None) -> None:
        """End a warm shutdown at the end of its grace as a SIGQUIT does: what runs goes to others, and is no death.

        Threads cannot be ended by either; a moment later their process is.
        """
        grace, began, end = self._terms.stop_grace_s, self._told_to_stop_at, given_up_at
        if end is None and grace is not None and began is not None:
            end = began + grace
        if end is None or now < end:
            return
        if now >= end + LAST_S:
            # Threads end with their process. The keeper then hands back what they held.
            self._presence.release()
            logger.warning("worker_ended: what its threads run is handed over")
            os._exit(0)
        if given_up_at is None and state.should_terminate is None:
            logger.warning("stop_grace_over: what still runs is handed over")
            os.kill(os.getpid(), signal.SIGQUIT)

    # -- telling

    def _tell(self, why: str | None, drain: Drain, vitals: Vitals, now: float) -> None:
        report = self._report(why, drain, vitals)
        urgent = {"why": report.get("why"), "left_out": report.get("left_out"), "warm": report.get("warm")}
        before = {name: self._reported.get(name) for name in urgent}
        if report == self._reported or (urgent == before and now - self._reported_at < REPORT_S):
            return
        self._reported, self._reported_at = report, now
        self._presence.board.report.write(json.dumps(report).encode())

    def _report(self, why: str | None, drain: Drain, vitals: Vitals) -> dict[str, Any]:
        report: dict[str, Any] = {
            "delay_ms": round(vitals.delay_s, 1) * 1000,
            "attempts": vitals.attempts,
            "failed": vitals.failed,
        }
        if vitals.free_bytes is not None:
            report["free_mb"] = vitals.free_bytes // (64 << 20) * 64
        if why is not None:
            report["why"] = why
        if drain.queues:
            report["left_out"] = sorted(drain.queues)
        if self._ails:
            report["ails"] = dict(self._ails)
        if warm := self._warm():
            report["warm"] = warm
        if self._outfit is not None:
            report["devices"] = self._outfit.uses()
        return report


def _given_up_at() -> float | None:
    """Since when a cold shutdown waits for a thread; Celery tells of it only when that has ended."""
    given_up = [each.given_up_at for each in tuple(state.active_requests) if isinstance(each, StepRequest)]
    return min((at for at in given_up if at is not None), default=None)
