"""What ends or interrupts a process: a worker's order, ``sys.exit`` in a step, a fork left behind, a late limit."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from billiard.common import TERM_SIGNAL, _should_have_exited
from billiard.exceptions import SoftTimeLimitExceeded
from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery._state import _task_stack
from celery.utils.log import get_logger

from agentq.core.errors import StepFailed

logger = get_logger(__name__)

_FIRST_SIGNAL_STATUS = -192
"""A child of Celery's prefork pool ends on a signal by ``sys.exit(-(256 - signum))``; there are 64 signals."""


def is_ordered(error: BaseException) -> bool:
    """Whether the worker ends by it: a signal that a child was sent, or Celery's own shutdown.

    Anything else was raised by the code of a step or an agent. Were it to end the process, the next worker would
    take the same step, and end as well.
    """
    if not isinstance(error, SystemExit):
        # KeyboardInterrupt too: Celery handles SIGINT itself, in the worker and in its children.
        return False
    if type(error) is not SystemExit:
        return True
    return isinstance(error.code, int) and -256 < error.code <= _FIRST_SIGNAL_STATUS


def failure_by(error: BaseException, *, step: str, step_id: str) -> StepFailed:
    """Return the failure that user code ends with when it raises what is no Exception, or is out of memory."""
    words = f"sys.exit({error.code!r})" if isinstance(error, SystemExit) else str(error)
    return StepFailed(step=step, step_id=step_id, error_type=type(error).__name__, message=words)


def as_failure(error: BaseException, *, step: str, step_id: str) -> Exception:
    """Return an error as one that Celery does not take for its own: no MemoryError, and an Exception."""
    if isinstance(error, Exception) and not isinstance(error, MemoryError):
        return error
    return failure_by(error, step=step, step_id=step_id)


class one_process:
    """Ends here the processes that the code within forks and lets go on: they would finish the step a second time.

    Such a process would also serve the queue of a worker that it is not, and keep that one from ending.
    """

    __slots__ = ("_own",)

    def __enter__(self) -> None:
        self._own = os.getpid()

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if os.getpid() == self._own:
            return
        if error is not None:
            logger.error("fork_ended pid=%s", os.getpid(), exc_info=error)
        os._exit(0 if error is None else 1)


def ignore_soft_limit() -> Callable[[], Any]:
    """Let a soft time limit pass unheard from now on, until the returned function is called.

    A limit is for the step's function. Raised while its result waits for a server that is away, it would throw a paid
    result away.
    """
    if threading.current_thread() is not threading.main_thread() or SIG_SOFT_TIMEOUT is None:
        return _nothing
    if _hearing.pid != os.getpid():
        # Once per child: to change a signal's handler twice for each step costs more than its record does.
        if not hears_soft_limit():
            return _nothing
        _take_over()
    _hearing.is_deaf = True
    return _hear_again


def _take_over() -> None:
    signal.signal(SIG_SOFT_TIMEOUT, _hear_soft_limit)
    _hearing.pid = os.getpid()


def hears_soft_limit() -> bool:
    """Whether a soft time limit's signal raises in this thread: in a pool's child, under Celery's handler or ours."""
    if threading.current_thread() is not threading.main_thread() or SIG_SOFT_TIMEOUT is None:
        return False
    return signal.getsignal(SIG_SOFT_TIMEOUT) in (soft_timeout_sighandler, _hear_soft_limit)


@contextmanager
def one_step() -> Iterator[None]:
    """Have what has come to ignore the soft limit within hear it again only behind this.

    The turn's guard may be about to interrupt the step in its slot. Heard from that step's end on, before the guard is
    called off, the signal would hit the turn.
    """
    _hearing.is_kept, _hearing.is_due = True, False
    try:
        yield
    finally:
        _hearing.is_kept = False
        _hear_again()


def end_in_time() -> None:
    """Interrupt, from another thread, the step that the main thread runs: its soft limit is over."""
    _hearing.is_due = True
    signal.pthread_kill(threading.main_thread().ident or 0, SIG_SOFT_TIMEOUT)


def is_due() -> bool:
    """Whether ``end_in_time`` was called for the step that runs here: nobody has called it off."""
    return _hearing.is_kept and _hearing.is_due


class Unwanted(BaseException):
    """Raised in a local call that nobody waits for any more; no ``except Exception`` holds it up."""


class MainThread:
    """A pool's child's main thread, as local calls of a turn may run in it.

    What orders a child to stop is raised in whatever runs there. A call that catches it must not go on to be an answer:
    so that it came is remembered, and raised again behind the call.
    """

    def __init__(self) -> None:
        if _hearing.pid != os.getpid():
            _take_over()

    def enter(self) -> None:
        """A call begins."""
        _hearing.was_heard = _hearing.is_unwanted = False
        _hearing.in_call = True

    def leave(self) -> None:
        """It has ended; raises what has ordered this process to stop meanwhile."""
        _hearing.in_call = False
        if _should_have_exited[0]:
            sys.exit(TERM_SIGNAL - 256)
        if _hearing.was_heard:
            raise SoftTimeLimitExceeded

    def interrupt(self) -> None:
        """From another thread: Unwanted is raised in the call, if it has not ended."""
        _hearing.is_unwanted = True
        signal.pthread_kill(threading.main_thread().ident or 0, SIG_SOFT_TIMEOUT)


class no_task:
    """Within it Celery knows of no task in this thread.

    A local call may run in a thread of its own or in its turn's. What it sends is of the same family in both: its own.
    """

    __slots__ = ("_tasks",)

    def __enter__(self) -> None:
        # In place: to pop the last one would throw the thread's list away.
        stack = _task_stack.stack
        self._tasks = stack[:]
        stack.clear()

    def __exit__(self, *_error: object) -> None:
        for task in self._tasks:
            _task_stack.push(task)


class _Hearing:
    """Whether the soft time limit is heard; ``pid``: of the process in which ``_hear_soft_limit`` is its handler.

    Attributes:
        is_kept: whether who is deaf stays so until the end of ``one_step``.
        is_due: whether the soft limit of what runs in it is over.
        in_call: whether the main thread is in a local call of its turn.
        is_unwanted: whether nobody waits for that call any more.
        was_heard: whether the soft limit has come during it.
    """

    is_deaf = False
    is_kept = False
    is_due = False
    in_call = False
    is_unwanted = False
    was_heard = False
    pid = 0


_hearing = _Hearing()


def _hear_soft_limit(signum: int, frame: Any) -> None:
    if _hearing.is_unwanted:
        # Once for each call of `interrupt`: it may come late, into something that is wanted.
        _hearing.is_unwanted = False
        if _hearing.in_call:
            raise Unwanted
        return
    if not _hearing.is_deaf:
        _hearing.was_heard = True
        soft_timeout_sighandler(signum, frame)


def _hear_again() -> None:
    _hearing.is_deaf = _hearing.is_kept


def _nothing() -> None:
    return None
