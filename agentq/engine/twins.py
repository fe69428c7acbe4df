"""Which events of others tell what a watcher is told by the engine: those of an integration with Celery, log lines.

One failure must not be told twice. What concerns plain Celery tasks is theirs alone.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from celery._state import get_current_task
from celery.worker import state

from agentq.engine.keeper import claims
from agentq.engine.outcome import holder_of
from agentq.engine.request import StepRequest

TRACER: Final = "celery.app.trace"
"""Where Celery's tracer logs that a task has failed."""

POOL: Final = "multiprocessing"
"""Where the pool logs that a child has gone: name, process id, status."""

OWN: Final = frozenset({"agentq.store.alarm", "agentq.engine.request"})
"""Where agentq logs dead letters and lost children."""


def is_of_a_step() -> bool:
    """Tell whether Celery runs a step here, or an agent's turn, and no plain task."""
    task = get_current_task()
    return task is not None and holder_of(task.request) is not None


def is_told(record: logging.LogRecord) -> bool:
    """Tell whether a line of the log tells what the watcher is told."""
    if record.name == TRACER:
        return is_of_a_step()
    if record.name in OWN:
        return True
    return record.name == POOL and _names_a_child_of_ours(record.args)


def _names_a_child_of_ours(arguments: Any) -> bool:
    """Whether a child is named that runs a step.

    The pool looks for dead children before it reads what they have said last: of a step that has killed its child at
    once, or that its child has gone on with by itself, the main process may not have heard. The page knows of it then.
    """
    said = arguments if isinstance(arguments, tuple) else ()
    requests = (each for each in tuple(state.active_requests) if isinstance(each, StepRequest))
    return any(request.worker_pid in said for request in requests) or any(
        isinstance(each, int) and claims.is_busy(each) for each in said
    )
