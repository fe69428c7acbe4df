"""A private asyncio loop whose order of events depends on nothing but its inputs.

It owns time (the server time of the last input), the order of callbacks, and the numbering of tasks and futures. It
must not know agents, journals or Redis: whoever drives it sets the clock, fires the timers and runs it to rest.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
import math
import sys
import threading
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from types import CodeType
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack

from agentq.core.errors import UsageError
from agentq.runtime.outside import Secluded, refuse

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_TIME_GRAIN: Final = 1e-3
"""A thousandth of a millisecond: seconds since the epoch, as floats, are exact to about a quarter of that."""

_AS_COMPLETED_FRAMES: Final = 6
"""How far above `create_task` the frame of `as_completed` may stand, in CPython 3.11 to 3.13 (four at most)."""


_WAIT: Final[CodeType] = asyncio.tasks._wait.__code__  # type: ignore[attr-defined]
"""Where `asyncio.wait` waits, over a set: and gather's future, which no loop makes, hashes by its address."""


class Task(asyncio.Task[T]):
    """A task that hashes by its creation number.

    CPython's `wait`, `as_completed` and `TaskGroup` iterate sets of tasks. By address, as tasks hash otherwise, the
    order would differ from process to process.
    """

    number: int

    def __init__(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        loop: DeterministicLoop,
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        # Before the base class: it puts the task into asyncio's own set of all tasks.
        self.number = loop.next_number()
        super().__init__(coro, loop=loop, name=name or f"Task-{self.number}", context=context)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class Future(asyncio.Future[T]):
    """A future that hashes by its creation number; see `Task`."""

    number: int

    def __init__(self, *, loop: DeterministicLoop) -> None:
        self.number = loop.next_number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Timer(asyncio.TimerHandle):
    """A handle of a timer; `_scheduled` tells whether the loop's heap holds it."""

    __slots__ = ()
    _scheduled: bool


class _Running:
    """Makes a loop the running one of this thread, for the time of a block."""

    __slots__ = ("_hooks", "_loop", "_outer")

    def __init__(self, loop: DeterministicLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        if self._loop._thread is not None:
            raise RuntimeError("the loop runs already")
        self._outer = events._get_running_loop()
        self._hooks = sys.get_asyncgen_hooks()
        self._loop._thread = threading.get_ident()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=_finish_generator)
        events._set_running_loop(self._loop)

    def __exit__(self, *_error: object) -> None:
        events._set_running_loop(self._outer)
        sys.set_asyncgen_hooks(*self._hooks)
        self._loop._thread = None


class DeterministicLoop(Secluded):
    """Runs callbacks in the order in which they were made ready, until none is left.

    Attributes:
        now_ms: the loop's clock, ms since the epoch; only `advance` moves it.
        live: False while the past is replayed; what goes wrong in a forgotten task is then not logged once more.
    """

    def __init__(self, *, now_ms: int = 0) -> None:
        self.now_ms = now_ms
        self.live = True
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[int, int, _Timer]] = []
        self._cancelled_timers = 0
        self._numbers = 0
        self._timer_numbers = 0
        self._thread: int | None = None
        self._halted = False
        self._closed = False
        self._handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None

    # -- driving

    def next_number(self) -> int:
        """The next creation number: what tasks and futures of this loop hash by."""
        self._numbers += 1
        return self._numbers

    def advance(self, now_ms: int) -> bool:
        """The clock stands at `now_ms`, or where it stood if that is later; what was due is ready, by due time.

        Returns whether anything was.
        """
        self.now_ms = max(self.now_ms, now_ms)
        due = False
        while self._timers and self._timers[0][0] <= self.now_ms:
            _, _, handle = heapq.heappop(self._timers)
            # A handle without its mark is not in the heap any more: cancelling it later must not count.
            handle._scheduled = False
            if handle._cancelled:
                self._cancelled_timers -= 1
            else:
                self._ready.append(handle)
                due = True
        return due

    @property
    def next_due_ms(self) -> int | None:
        """When the next timer is due; None when there is none."""
        while self._timers and self._timers[0][2]._cancelled:
            heapq.heappop(self._timers)
            self._cancelled_timers -= 1
        return self._timers[0][0] if self._timers else None

    def run_to_rest(self) -> None:
        """Nothing is ready any more, or `halt` was called."""
        ready = self._ready
        if not ready and self._thread is None:
            return
        with self.current():
            while ready and not self._halted:
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()

    def current(self) -> _Running:
        """This loop is the thread's running one within the block."""
        return _Running(self)

    def halt(self) -> None:
        """Nothing runs after the callback that runs now."""
        self._halted = True

    def close(self) -> None:
        """Nothing runs any more; a second call does nothing."""
        self._halted = self._closed = True
        self._ready.clear()
        self._timers.clear()

    # -- what asyncio asks of a loop

    def time(self) -> float:
        """Seconds since the epoch, as the server's clock stood at the last input."""
        return self.now_ms / 1000

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """`callback` runs after all that is ready now."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As `call_soon`; refused in any other thread than the agent's, since its moment would be random."""
        if self._thread != threading.get_ident():
            refuse("call_soon_threadsafe from another thread")
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """`callback` runs at the first input whose time is at least `delay` seconds after now."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """`callback` runs at the first input whose time is at least `when`."""
        handle = _Timer(when, callback, args, self, context)
        if self._closed:
            return handle
        self._timer_numbers += 1
        due_ms = math.ceil(when * 1000 - _TIME_GRAIN)
        heapq.heappush(self._timers, (due_ms, self._timer_numbers, handle))
        handle._scheduled = True
        return handle

    def _timer_handle_cancelled(self, handle: _Timer) -> None:
        if not handle._scheduled or self._closed:
            return
        self._cancelled_timers += 1
        # A run that waits with time-outs a thousand times leaves a thousand cancelled timers behind.
        if self._cancelled_timers > 64 and self._cancelled_timers * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if not timer[2]._cancelled]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    def create_future(self) -> Future[Any]:
        """A future of this loop; refused where `asyncio.wait` looks at futures that it did not make."""
        caller = sys._getframe(1)
        if caller.f_code is _WAIT and not all(isinstance(each, Task | Future) for each in caller.f_locals["fs"]):
            raise UsageError(
                "asyncio.wait over what asyncio.gather returned gives it back in an order that no replay can repeat: "
                "make a task of a function that awaits the gather, and wait for that."
            )
        return Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None, **_: Any
    ) -> Task[Any]:
        """The coroutine runs as a task; refused for what `as_completed` makes of bare coroutines."""
        if _is_from_as_completed():
            coro.close()
            raise UsageError(
                "asyncio.as_completed over bare coroutines starts them in an order that no replay can repeat: "
                "make tasks of them first (asyncio.create_task), then pass the tasks."
            )
        if self._closed:
            coro.close()
            raise RuntimeError("Event loop is closed")
        return Task(coro, loop=self, name=name, context=context)

    def set_task_factory(self, factory: Any) -> None:
        """Refused, since the loop numbers its tasks itself; None is no change."""
        if factory is not None:
            refuse("a task factory")

    def get_task_factory(self) -> None:
        """None: the loop makes its tasks itself."""

    def is_running(self) -> bool:
        """Whether a callback runs now."""
        return self._thread is not None

    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def get_debug(self) -> bool:
        """False: asyncio's debug mode reads the real clock."""
        return False

    def set_debug(self, enabled: bool) -> None:
        """Nothing changes."""

    async def shutdown_asyncgens(self) -> None:
        """Nothing is left to do: see `_finish_generator`."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Nothing is left to do: there is no executor."""

    # -- what goes wrong outside any await

    def set_exception_handler(
        self, handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None
    ) -> None:
        """`handler` hears of exceptions that nobody awaits; None restores the log."""
        self._handler = handler

    def get_exception_handler(self) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None:
        """The handler that was set; None when exceptions go to the log."""
        return self._handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """The exception stands in the log, once: neither a replay nor a dropped run says it again."""
        if self.live and not self._closed:
            logger.error("%s", context.get("message", "unhandled exception"), exc_info=context.get("exception"))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """The handler has heard of it."""
        if self._handler is None or self._closed:
            self.default_exception_handler(context)
            return
        try:
            self._handler(self, context)
        except Exception as error:
            self.default_exception_handler({"message": "the exception handler failed", "exception": error})


def _is_from_as_completed() -> bool:
    # as_completed makes its tasks in the order of a set of coroutines, whose hashes are addresses. Its module alone
    # knows it, so the frames tell: the function itself (3.11, 3.12) or its iterator's constructor (3.13).
    frame = sys._getframe(2)
    for _ in range(_AS_COMPLETED_FRAMES):
        code = frame.f_code
        if code.co_filename != asyncio.tasks.__file__:
            return False
        if code.co_qualname == "as_completed" or code.co_qualname.startswith("_AsCompletedIterator."):
            return True
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return False


def _finish_generator(generator: AsyncGenerator[Any, Any]) -> None:
    # Called when an async generator is garbage: at a moment that no replay repeats. Its `finally` blocks run here
    # and now, and may not wait.
    closing = generator.aclose()
    try:
        closing.__await__().__next__()
    except (StopIteration, StopAsyncIteration):
        return
    except Exception:
        logger.warning("an abandoned async generator failed while it was closed", exc_info=True)
        return
    logger.warning("an abandoned async generator waits in its finally block: use contextlib.aclosing around it")
