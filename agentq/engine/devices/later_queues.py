"""Queues that a worker is told to serve while it runs (``celery control add_consumer``).

One of a GPU pool is refused where the worker was not started with the devices for it: its children were given theirs,
or none, when they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery.utils.log import get_logger

from agentq.core.errors import UsageError
from agentq.engine.devices.finding import Outfit

logger = get_logger(__name__)

FindOutfit = Callable[[Iterable[str]], Outfit | None]
"""Gives the devices for a worker of these queues; raises UsageError where the machine lacks them."""


def refuse_misfits(consumer: Any, outfit: Outfit | None, find: FindOutfit) -> None:
    """Have the worker's consumer leave out queues whose devices are others than its own; the log says which."""
    add = consumer.add_task_queue

    def add_task_queue(queue: str, *args: Any, **options: Any) -> None:
        reason = _misfit(queue, outfit, find)
        if reason is None:
            add(queue, *args, **options)
        else:
            # The command that asked has its answer already: Celery acts on it later, in the event loop.
            logger.error("queue_refused queue=%s: %s", queue, reason)

    consumer.add_task_queue = add_task_queue


def _misfit(queue: str, outfit: Outfit | None, find: FindOutfit) -> str | None:
    try:
        wanted = find([queue])
    except UsageError as error:
        return str(error)
    if wanted is None or (outfit is not None and wanted.devices == outfit.devices):
        return None
    return "this worker was started without the devices of its pool: start one for it (agentq worker --pool NAME)"
