"""One real event loop per process, in a thread, for steps that are ``async def``.

Steps of many threads share it, so that the connections that a library binds to a loop live on from step to
step. Made at the first use, since a forked child inherits no threads.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from contextvars import Context
from datetime import timedelta
from time import monotonic
from typing import Any, Final, TypeVar
from weakref import WeakSet

from celery import signals

T = TypeVar("T")

logger = logging.getLogger(__name__)

CLEANUP: Final = timedelta(seconds=5)
"""What a cancelled coroutine gets to clean up; after that it is left behind and its caller goes on."""


class Overdue(TimeoutError):
    """The coroutine ran longer than allowed and was cancelled; not raised for a TimeoutError of its own."""


class Stopped(Exception):
    """Another thread has ordered the coroutine's end; it was cancelled and has cleaned up."""


class Stop:
    """By which a thread ends the coroutine for which another one waits; ordered before or while it runs."""

    def __init__(self) -> None:
        self.ordered = False
        self._future: Future[Any] | Begun | None = None

    def order(self) -> None:
        """Cancel the coroutine; one that has not begun yet never does."""
        self.ordered = True
        future = self._future
        if future is not None:
            future.cancel()

    def watch(self, future: Future[Any] | Begun) -> None:
        """Have an order cancel ``future``."""
        self._future = future
        # Ordered in the moment between: the other thread has seen no future yet.
        if self.ordered:
            future.cancel()


class Ended(Exception):
    """Carries SystemExit and KeyboardInterrupt out of the loop, which either would end for every step."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Begun:
    """A coroutine on this process's event loop for which no thread waits.

    Args:
        coroutine: what runs.
        timeout: as ``run`` has it; None: no limit.
        context: its context variables.
        ended: called in the loop once it has come to its end, or was left behind.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        timeout: timedelta | None,
        context: Context,
        ended: Callable[[Begun], None],
    ) -> None:
        self._coroutine = coroutine
        self._seconds = timeout.total_seconds() if timeout is not None else None
        self._context = context
        self._ended = ended
        self._home = _loop()
        self._task: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._given_up: Exception | None = None
        self._is_settled = False

    def begin(self) -> None:
        """Have the coroutine begin."""
        self._home.start(self._start)

    def cancel(self) -> None:
        """Have it end; from any thread, also before ``begin``."""
        self._home.start(lambda: self._give_up(Stopped()))

    @property
    def went_well(self) -> bool:
        """Whether it has returned something."""
        task = self._task
        return task is not None and self._given_up is None and not task.cancelled() and task.exception() is None

    def result(self) -> Any:
        """Return what it has come to; raises as ``run`` does."""
        if self._given_up is not None:
            raise self._given_up
        assert self._task is not None, "it has begun"
        try:
            return self._task.result()
        except Ended as ended_by:
            raise ended_by.cause from None
        except asyncio.CancelledError:
            # An exception, and no order to whoever asks: it has cancelled itself.
            raise CancelledError from None

    def _start(self) -> None:
        if self._given_up is not None:
            self._coroutine.close()
            self._settle()
            return
        self._task = self._home.loop.create_task(_contained(self._coroutine), context=self._context)
        if self._seconds is not None:
            self._timer = self._home.loop.call_later(self._seconds, self._overdue)
        self._task.add_done_callback(self._settle)

    def _overdue(self) -> None:
        self._give_up(Overdue(f"cancelled after {self._seconds} s"))

    def _give_up(self, reason: Exception) -> None:
        # Cancelled once only, as in `_end`.
        if self._given_up is not None or (self._task is not None and self._task.done()):
            return
        self._given_up = reason
        if self._task is not None:
            self._task.cancel()
            self._wait(self._home.loop.call_later(CLEANUP.total_seconds(), self._settle))

    def _wait(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    def _settle(self, task: asyncio.Task[Any] | None = None) -> None:
        if task is not None and not task.cancelled():
            task.exception()  # Somebody has asked: it is not logged as one that nobody has heard of.
        if self._is_settled:
            return
        self._is_settled = True
        self._wait(None)
        self._ended(self)


class RealLoop:
    """An event loop in a daemon thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_tell)
        self._asked = self._answered = monotonic()
        self._to_start: deque[Callable[[], None]] = deque()
        self._is_told = False
        self.thread = threading.Thread(target=self._serve, name="agentq-loop", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: timedelta | None, stop: Stop | None = None) -> T:
        """Return the coroutine's result; blocks the caller's thread."""
        if threading.current_thread() is self.thread:
            coroutine.close()
            raise RuntimeError(
                "A coroutine of agentq's event loop waits for that loop: await the other coroutine instead."
            )
        if stop is not None and stop.ordered:
            coroutine.close()
            raise Stopped
        ended = threading.Event()
        # call_soon_threadsafe, in there, copies this thread's context: the caller's variables come along.
        future = asyncio.run_coroutine_threadsafe(_within(coroutine, timeout, ended), self.loop)
        if stop is not None:
            stop.watch(future)
        try:
            return future.result()
        except Ended as ended_by:
            raise ended_by.cause from None
        except BaseException:
            # Also a soft time limit, which a signal raises here while the coroutine runs on: it must end
            # first.
            future.cancel()
            ended.wait(CLEANUP.total_seconds())
            if stop is not None and stop.ordered and future.cancelled():
                raise Stopped from None
            raise

    def start(self, call: Callable[[], None]) -> None:
        """Have ``call`` called in the loop, in the order of the calls of ``start``; from any thread."""
        self._to_start.append(call)
        # One word to the loop for all that has come until it listens: each would wake it.
        if not self._is_told:
            self._is_told = True
            self.loop.call_soon_threadsafe(self._start_all)

    def _start_all(self) -> None:
        # First: who finds it said has added his call before this, and so before what follows.
        self._is_told = False
        while self._to_start:
            self._to_start.popleft()()

    def lag(self) -> float:
        """Return how long the loop took, or takes by now, to come round to what ``lag`` left there when last called."""
        if self._answered >= self._asked:
            lag, self._asked = self._answered - self._asked, monotonic()
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._answer)
            return lag
        return monotonic() - self._asked

    def _answer(self) -> None:
        self._answered = monotonic()

    def close(self) -> None:
        """Cancel what runs, let it clean up, and end the thread."""
        if self.loop.is_closed():
            return
        with suppress(RuntimeError, TimeoutError):
            asyncio.run_coroutine_threadsafe(_wind_up(), self.loop).result(CLEANUP.total_seconds())
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(CLEANUP.total_seconds())


async def _within(coroutine: Coroutine[Any, Any, T], limit: timedelta | None, ended: threading.Event) -> T:
    seconds = limit.total_seconds() if limit is not None else None
    task = asyncio.ensure_future(_contained(coroutine))
    _cared_for.add(task)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if done:
            return task.result()
        await _end(task)
        raise Overdue(f"cancelled after {seconds} s")
    except asyncio.CancelledError:
        if not task.done():
            await _end(task)
        raise
    finally:
        ended.set()


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a step's task and let it clean up; one that swallows its cancellation is left behind.

    Cancelled once only: the loop's own timer, a soft limit's signal and the end of the process may all come within
    the moment that the cleanup takes, and a second cancellation would end the cleanup itself.
    """
    task.cancel()
    until = monotonic() + CLEANUP.total_seconds()
    while not task.done() and (left := until - monotonic()) > 0:
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=left)


async def _contained(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise Ended(error) from None


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a task, a callback or a generator that a step has left behind fails with: nobody else hears of it."""
    source = context.get("task") or context.get("future") or context.get("asyncgen") or context.get("handle")
    error = context.get("exception")
    logger.error("left_behind %s: %s", source, context.get("message"), exc_info=error)


async def _wind_up() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others.difference(_cared_for):
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.get_running_loop().shutdown_default_executor()


_cared_for: WeakSet[asyncio.Task[Any]] = WeakSet()
"""The steps' own tasks: each is cancelled by the one that waits for it."""

_lock = threading.Lock()
_current: RealLoop | None = None
_farewells: list[Callable[[], None]] = []


def run(coroutine: Coroutine[Any, Any, T], timeout: timedelta | None = None, stop: Stop | None = None) -> T:
    """Run ``coroutine`` on this process's event loop and return its result.

    Blocks the caller's thread; context variables are the caller's. Raises Overdue when it took longer than
    ``timeout`` (None: no limit) and was cancelled, Stopped when another thread ordered ``stop``, else what the
    coroutine raised.
    """
    return _loop().run(coroutine, timeout, stop)


def is_here() -> bool:
    """Tell whether this process's event loop runs in this thread."""
    found = _current
    return found is not None and found.thread is threading.current_thread()


def before_close(act: Callable[[], None]) -> None:
    """Have ``act`` called before this process's event loop is closed at the process's end."""
    _farewells.append(act)


def lag() -> float:
    """Return for how many seconds this process's event loop has not come round; 0 where there is none."""
    found = _current
    return found.lag() if found is not None else 0.0


def close() -> None:
    """End this process's event loop, if there is one; a later ``run`` makes another."""
    global _current
    with _lock:
        found, _current = _current, None
    if found is not None:
        found.close()


def _loop() -> RealLoop:
    global _current
    with _lock:
        if _current is None:
            _current = RealLoop()
        return _current


def _forget() -> None:
    global _current, _lock
    # The thread stayed in the parent, and the lock may have been held there at the moment of the fork.
    _lock = threading.Lock()
    _current = None


def _on_process_shutdown(**_kwargs: Any) -> None:
    for act in _farewells:
        act()
    close()


os.register_at_fork(after_in_child=_forget)
atexit.register(close)
# A pool's children end without running atexit.
signals.worker_process_shutdown.connect(_on_process_shutdown)
