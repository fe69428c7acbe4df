"""A step or an agent's turn as a worker's main process sees it: told to stop, lost with its child, out of time.

Celery's request acknowledges a message or puts it back. A step's end is a script, and nothing else ends it.
"""

from __future__ import annotations

import inspect
import os
import signal as signals
from time import monotonic
from typing import TYPE_CHECKING, Any

from billiard.common import TERM_SIGNAL
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, WorkerLostError
from billiard.pool import SIG_SOFT_TIMEOUT
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request

from agentq.core.errors import RunCancelled
from agentq.engine import afterwords, recall
from agentq.engine.binding import find_binding
from agentq.engine.outcome import holder_of, keep_trying
from agentq.engine.slots import current

if TYPE_CHECKING:
    from agentq.store import Store
    from agentq.store.refs import Holder

logger = get_logger(__name__)

EVERY_S = 0.25
"""Between two looks for dead children; every second one is for cancelled steps too. Soon for a person, and two commands
a second for the server."""


HAND_OVER_S = 5.0
"""For the ``finally`` blocks of a step that is handed over; after that its child is killed."""

NEVER_S = 10.0 * 365 * 24 * 3600
"""The pool's hard limit for steps: none."""


def has_children(pool: Any) -> bool:
    """Tell whether a pool runs tasks in processes, which a signal can end; threads cannot be ended."""
    return "terminate_job" in vars(pool)


class StepRequest(Request):
    """``Task.Request`` of steps and agents. All of it runs in the event loop, and waits for nothing."""

    time_limits: tuple[float | None, float | None]
    """Hard and soft, in seconds."""

    recalled: bool = False
    """Whether it was told to stop: nobody wants the step, or another worker owns it."""

    handed_over: bool = False
    """Whether its attempt was ended so that another worker goes on with the step: this one is drained."""

    given_up_at: float | None = None
    """When a cold shutdown has told it to end, in a pool of threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.holder is not None:
            # The keeper ends what passes its hard limit, also while this process stands still. Without a number here
            # the pool would take the task's.
            self.time_limits = (NEVER_S, self.time_limits[1])

    @property
    def holder(self) -> Holder | None:
        """The attempt that this request is; None for a message without a record."""
        return holder_of(self._context)

    @property
    def seat(self) -> str | None:
        """What the child that runs it is called, should it go on; None where threads run steps."""
        return str(self.worker_pid) if self.worker_pid not in (None, os.getpid()) else None

    def revoked(self) -> bool:
        """Whether it is not to start: Celery's reasons, or the worker was given up since, and the step is another's."""
        holder, taker = self.holder, current()
        if holder is None or taker is None or (holder.worker == taker.id and not taker.refused):
            return bool(super().revoked())
        logger.warning("step_dropped id=%s take=%d: this worker was given up before it began", holder.id, holder.take)
        state.task_ready(self)
        self.acknowledge()
        return True

    def recall(self, worker: Any, *, grace_s: float) -> None:
        """Have the attempt stop: a coroutine is cancelled, a child is sent SIGTERM, and SIGKILL after the grace."""
        if self.recalled or self not in state.active_requests or self.holder is None:
            return
        self.recalled = True
        pool = worker.pool
        if not has_children(pool):
            recall.stop_here(self.holder)
            return
        if inspect.iscoroutinefunction(self.task.run) and SIG_SOFT_TIMEOUT is not None:
            os.kill(self.worker_pid, SIG_SOFT_TIMEOUT)
        else:
            pool.terminate_job(self.worker_pid, TERM_SIGNAL)
        if worker.hub is not None:
            worker.hub.call_later(grace_s, self._end_hard, pool)

    def hand_over(self, worker: Any) -> None:
        """Have the attempt stop and the step start elsewhere, which counts as no death; again: nothing happens.

        A plain function in a thread goes on to its end, which counts.
        """
        if self.handed_over or self.recalled or self not in state.active_requests or self.holder is None:
            return
        self.handed_over = True
        logger.warning("step_handed_over id=%s task=%s", self.id, self.name)
        pool = worker.pool
        if not has_children(pool):
            recall.stop_here(self.holder, hand_over=True)
            return
        pool.terminate_job(self.worker_pid, TERM_SIGNAL)
        if worker.hub is not None:
            worker.hub.call_later(HAND_OVER_S, self._end_hard, pool)

    def _end_hard(self, pool: Any) -> None:
        # A child has one request at a time, and this one gets no other before the loop has heard of its end.
        if self in state.active_requests:
            logger.warning("step_killed id=%s: it did not stop when it was told to", self.id)
            pool.terminate_job(self.worker_pid, signals.SIGKILL)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Give the running step up for a cold shutdown; a thread ends by its own will alone."""
        if self.holder is None or has_children(pool):
            super().cancel(pool, signal=signal, emit_retry=emit_retry)
        elif self.given_up_at is None:
            self.given_up_at = monotonic()
            recall.stop_here(self.holder, hand_over=True)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Revoke the running step; in a thread its coroutine is cancelled, and what it returns counts for nothing."""
        holder = self.holder
        if holder is None or has_children(pool):
            super().terminate(pool, signal=signal)
            return
        if self.recalled or self not in state.active_requests:
            return
        self.recalled = True
        self.send_event("task-revoked", terminated=True, signum=None, expired=False)
        self.task.backend.mark_as_revoked(self.id, "terminated", request=self._context, store_result=self.store_errors)
        afterwords.say(lambda: _stop(holder))

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """Give a step back whose child has died: it counts as a start and as a death, of this step alone."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        lost = isinstance(error, (Terminated, WorkerLostError, SystemExit, KeyboardInterrupt))
        holder, binding = self.holder, find_binding(self._app)
        if not lost or holder is None or binding is None or self._already_revoked:
            return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
        state.task_ready(self)
        self.acknowledge()
        store = binding.store
        if self.recalled:
            called_off = RunCancelled(run_id=holder.root)
            afterwords.say(lambda: self.task.backend.mark_as_called_off(self.id, called_off, self._context))
            # What it had gone on with is ended by its next taker.
            afterwords.say(lambda: keep_trying(lambda: store.requeue(holder.worker, holder.take, seat=self.seat)))
            return None
        # A worker that ends takes its children along: no step is to blame for that.
        counted = state.should_stop is None and state.should_terminate is None and not self.handed_over
        logger.error("child_lost id=%s task=%s: %s", self.id, self.name, error)
        afterwords.say(
            lambda: keep_trying(lambda: store.requeue(holder.worker, holder.take, lost=counted, seat=self.seat))
        )
        return None


def _stop(holder: Holder) -> None:
    recall.stop_here(holder)


def recaller_of(worker: Any, store: Store, *, grace_s: float) -> recall.Recaller:
    """Return the recaller of a Celery worker, not yet started."""

    def running() -> list[StepRequest]:
        active = tuple(state.active_requests)
        return [request for request in active if isinstance(request, StepRequest) and not request.recalled]

    def stop(request: StepRequest) -> None:
        hub = worker.hub
        if hub is not None and has_children(worker.pool):
            # In the loop, which alone gives a child its next task: there, what a child runs is still what it ran.
            hub.call_soon(lambda: request.recall(worker, grace_s=grace_s))
        else:
            request.recall(worker, grace_s=grace_s)

    def look() -> None:
        # A child's pipe closes a moment before it can be waited for. Celery, woken by the pipe, often finds it still
        # there, and looks again after five seconds.
        hub = worker.hub
        if hub is not None and has_children(worker.pool):
            hub.call_soon(worker.pool.maintain_pool)

    return recall.Recaller(store, running=running, stop=stop, look=look, every_s=EVERY_S)
