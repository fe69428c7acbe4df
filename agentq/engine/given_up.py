"""How a worker that was given up ends what it runs: its children one by one, or, where threads run it, itself."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from time import sleep
from typing import Any

from celery.utils.log import get_logger
from celery.worker import state

from agentq.engine.request import has_children

logger = get_logger(__name__)

EXIT_GIVEN_UP = 70
"""Exit status of a worker that was given up (EX_SOFTWARE): anything but 0, so that its supervisor starts
another."""

GIVEN_UP_GRACE_S = 5.0
"""For Celery's own cold shutdown of a worker that was given up; what runs then cannot commit, but does
cost."""


def stop_attempts(worker: Any) -> bool:
    """End what runs here and is another's by now; tell whether nothing of it is left.

    A thread cannot be ended: the worker ends with it.
    """
    attempts = [request.worker_pid for request in tuple(state.active_requests) if not request.acknowledged]
    if attempts and not has_children(worker.pool):
        give_up(worker)
        return False
    running = set(attempts).intersection(_children(worker))
    for pid in running:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    # What was sent to a child and has not begun shows in a moment.
    return not running and state.reserved_requests <= state.active_requests


def give_up(worker: Any) -> None:
    """End this worker: another owns what it runs, and nothing that it does counts any more.

    Celery's cold shutdown first; if that does not come to an end (a thread cannot be killed, a main loop may
    stand still), the process ends hard.
    """
    if worker.exitcode == EXIT_GIVEN_UP:
        return
    logger.critical("worker_given_up: marked dead by the others; ending, so that another can be started")
    worker.exitcode = EXIT_GIVEN_UP
    state.should_terminate = EXIT_GIVEN_UP
    threading.Thread(target=_end_hard, args=(worker,), name="agentq-end", daemon=True).start()


def _end_hard(worker: Any) -> None:
    children = _children(worker)
    sleep(GIVEN_UP_GRACE_S)
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    os._exit(EXIT_GIVEN_UP)


def _children(worker: Any) -> list[int]:
    pool = getattr(worker.pool, "_pool", None)
    return [process.pid for process in getattr(pool, "_pool", None) or [] if process.pid is not None]
