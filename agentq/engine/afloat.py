"""Async steps of a pool of threads: on the event loop from their start on, with a thread for their end alone.

A thread for each would only wait for its coroutine, and hundreds that wait for the interpreter's lock wake every few ms
to ask for it. What an attempt is stays as it is: at its end one of a few threads runs Celery's tracer and all that
surrounds a step's function, with what the coroutine came to at hand.

A step for which something is to be done, or somebody to be told, before its function is called has a thread from the
start, as a plain one has.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from queue import SimpleQueue
from time import monotonic
from typing import Any, Final

from celery import signals
from celery.app import trace as celery_trace
from celery.app.task import Context
from celery.app.trace import task_has_custom
from celery.concurrency.base import apply_target
from celery.loaders.base import BaseLoader
from celery.utils.log import get_logger

from agentq.engine import going_on, joins, realloop, recall
from agentq.engine.attempt import Attempt
from agentq.engine.binding import find_binding
from agentq.engine.keeper.claims import claim
from agentq.engine.messages import HOLDER_HEADER, PAYLOAD
from agentq.engine.this_step import current_attempt
from agentq.engine.tracing import is_celerys_own
from agentq.store.refs import Holder

logger = get_logger(__name__)

MOST: Final = 4
"""Threads that see attempts to their end: while one of them waits for the server the others have the interpreter."""

_LOOKED_AT_FIRST: Final = ("cancelled", "overdue", "over_budget", "suspect")
"""Words on an attempt by which its function may not be called."""

_begun: dict[Holder, Attempt] = {}


def begun_attempt(holder: Holder, request: Any) -> Attempt | None:
    """Return the attempt whose coroutine has ended and which goes on as ``request``; None for one yet to begin."""
    attempt = _begun.pop(holder, None)
    if attempt is not None:
        attempt.request = request
    return attempt


class Ends:
    """The threads of a pool in which its coroutines' attempts come to their end.

    They are the pool's own, and one is there as long as any coroutine runs: a worker that stops waits for its pool's
    threads.

    Args:
        submit: has a thread of the pool call a function; raises RuntimeError once the pool is shut down.
        wake: called when a slot is free.
    """

    def __init__(self, submit: Callable[[Callable[[], None]], Any], wake: Callable[[], None]) -> None:
        self._submit = submit
        self._wake = wake
        self._ended: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._running = 0
        self._threads = 0

    def expect(self) -> None:
        """Note that a coroutine begins; raises RuntimeError where no thread would see to its end."""
        with self._lock:
            if self._threads == 0:
                self._submit(self._serve)
                self._threads = 1
            self._running += 1

    def see_to(self, finish: Callable[[], None], *, apart: bool) -> None:
        """Have ``finish`` called in one of the threads; ``apart``: in one of its own, since it may take long."""
        if apart and self._has_own_thread(finish):
            return
        self._ended.put(finish)
        with self._lock:
            # More than one waits: whoever serves them is busy, or about to be.
            if not 0 < self._threads < min(MOST, self._running) or self._ended.qsize() <= 1:
                return
            try:
                self._submit(self._serve)
            except RuntimeError:
                return  # The pool is shut down: those who are there see to it.
            self._threads += 1

    def _has_own_thread(self, finish: Callable[[], None]) -> bool:
        def call() -> None:
            finish()
            self._wake()

        try:
            self._submit(call)
        except RuntimeError:
            return False
        self.let_go()
        return True

    def _serve(self) -> None:
        while (finish := self._ended.get()) is not None:
            try:
                finish()
            except Exception:
                logger.exception("end_failed")
            self.let_go()
            self._wake()

    def let_go(self) -> None:
        """Note that a coroutine is at its end, or does not begin after all."""
        with self._lock:
            self._running -= 1
            surplus = max(0, self._threads - self._running)
            self._threads -= surplus
        for _ in range(surplus):
            self._ended.put(None)


def submitter(executor: Executor) -> Callable[[Callable[[], None]], Any]:
    """Return what has a thread of a pool call a function, or one of its own where the pool stops before that.

    A cold shutdown drops what no thread has begun yet, and by its own orders to stop coroutines come to their end just
    then: their steps would be nobody's until the worker's lease is over.
    """

    def submit(call: Callable[[], None]) -> None:
        def call_apart(future: Future[None]) -> None:
            if future.cancelled():
                threading.Thread(target=call, name="agentq-end").start()

        executor.submit(call).add_done_callback(call_apart)

    return submit


class Timed:
    """A task as Celery's tracer looks it up: traced from the moment on at which its coroutine began.

    ``hostname``: the worker's, as Celery's tracer shows it.
    """

    def __init__(self, task: Any, hostname: str) -> None:
        app = task.app
        self.task = task
        self.__trace__ = celery_trace.build_tracer(
            task.name, task, app.loader, hostname, app=app, monotonic=_since_begun
        )

    @property
    def is_celerys_own(self) -> bool:
        """Whether nobody has put something around the tracer, or around the task that it calls."""
        return is_celerys_own(self.__trace__, self.task)


_here = threading.local()


def _since_begun() -> float:
    """Return the time; asked for the first time in a trace, the time at which its coroutine began."""
    began, _here.began = getattr(_here, "began", None), None
    return monotonic() if began is None else float(began)


def request_class(base: Any, timed: Timed, pool: Any, wake: Callable[[], None]) -> Any:
    """Return Celery's class of a step's requests, but that its coroutines need no thread of the pool to wait in."""
    ends = Ends(submitter(pool.executor), wake)

    class Request(base):
        def execute_using_pool(self, pool: Any, **kwargs: Any) -> Any:
            """Begin the coroutine, unless something is to be done first: then the pool has it as ever."""
            attempt = None if self.revoked() else _attempt_of(self)
            if attempt is None or not _begin(attempt, self, ends, timed):
                return super().execute_using_pool(pool, **kwargs)
            return None

    return Request


def suits(task: Any) -> bool:
    """Tell whether a step's coroutine may begin before Celery's tracer: nobody is called there first."""
    app = task.app
    return not (
        task.is_agent
        or task.track_started
        or task_has_custom(task, "before_start")
        or app.conf.worker_deduplicate_successful_tasks
        or type(app.loader).on_task_init is not BaseLoader.on_task_init
        or not task.is_traced_shortly
        # One of others was made elsewhere, whatever it says of itself.
        or getattr(celery_trace.fast_trace_task, "__globals__", None) is not vars(celery_trace)
    )


def _attempt_of(request: Any) -> Attempt | None:
    """Return an attempt that may begin at once; None where something comes before its function, or is wrong with it."""
    try:
        return _ready(request)
    except Exception:
        # In a thread it is raised again, and is the step's failure there. Here nobody would hear of it, and the slot
        # of a request that is in hand would never be free.
        return None


def _ready(request: Any) -> Attempt | None:
    task, wire = request.task, request.request_dict[HOLDER_HEADER]
    binding = find_binding(request.app)
    if binding is None or any(wire.get(word) for word in _LOOKED_AT_FIRST):
        return None
    if signals.task_prerun.receivers or binding.watcher.is_on():
        return None
    args, kwargs = list(request.args), dict(request.kwargs)
    context = Context(request.request_dict, args=args, called_directly=False, kwargs=kwargs)
    attempt = Attempt(task, binding, request.holder, context)
    if PAYLOAD in attempt.ours or joins.refers(args) or not all(each.is_open for each in task.agentq.resources):
        return None
    if not all(_passes(each, attempt) for each in binding.middleware):
        return None
    attempt.arguments = task.schema.decode(args, kwargs)
    return attempt


def _passes(middleware: Any, attempt: Attempt) -> bool:
    """Whether a guard has nothing to do before the function is called."""
    passes = getattr(middleware, "passes", None)
    return passes is not None and bool(passes(attempt))


def _begin(attempt: Attempt, request: Any, ends: Ends, timed: Timed) -> bool:
    """Begin the attempt's coroutine; False, with all as before, when the pool is shut down or something else fails."""
    try:
        ends.expect()
    except RuntimeError:
        return False
    context = copy_context()
    context.run(current_attempt.set, attempt)
    attempt.claim = claim(attempt.holder.take, attempt.hard_limit.total_seconds())
    attempt.claim.begin()
    listing = recall.listed(attempt)
    listing.__enter__()
    _begun[attempt.holder] = attempt

    def take_back() -> None:
        if _begun.pop(attempt.holder, None) is not None:
            listing.__exit__()
            attempt.claim.__exit__()

    def finish() -> None:
        called = request.type, request.id, request.request_dict, request.body, request.content_type
        _, accept, hostname = celery_trace._localized
        looked_up = {"_loc": ({request.type: timed}, accept, hostname)}
        _here.began = attempt.began
        try:
            apply_target(
                celery_trace.fast_trace_task,
                (*called, request.content_encoding),
                looked_up,
                callback=request.on_success,
            )
        finally:
            # Celery's tracer may have failed before it came to the attempt.
            _here.began = None
            take_back()

    def ended(begun: realloop.Begun) -> None:
        apart = not begun.went_well or _may_take_long(attempt.task)
        if not apart:
            # It may wait for one of few threads, behind others' commits: that is no time of its own.
            attempt.claim.finish()
        ends.see_to(finish, apart=apart)

    coroutine = _called(attempt)
    try:
        begun = attempt.begun = realloop.Begun(coroutine, attempt.soft_limit, context, ended)
        attempt.stop.watch(begun)
        # First: what has ended is not among the active ones any more.
        request.on_accepted(os.getpid(), monotonic())
        begun.begin()
    except Exception:
        logger.exception("begin_failed id=%s", attempt.holder.id)
        coroutine.close()
        take_back()
        ends.let_go()
        return False
    return True


async def _called(attempt: Attempt) -> Any:
    """Call the function within its coroutine: one that is wrapped may run code, and raise, before it returns one."""
    args, kwargs = attempt.arguments
    value = attempt.task.run(*args, **kwargs)
    return await value if inspect.iscoroutine(value) else value


def _may_take_long(task: Any) -> bool:
    """Whether code of others is called at a success: others' steps do not wait for it."""
    options = task.agentq
    judged = options.retry is not None and not isinstance(options.retry.on, tuple)
    return judged or options.check is not None or going_on.is_heard(task)
