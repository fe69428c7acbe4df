"""Takes over steps that came through a plain queue: recorded first, then acknowledged.

Producers without agentq send such, and in stock mode processes that are still in fused mode. What Celery's consumer
fails at goes to the dead letters: an error that left the event loop would end each worker in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker import state

from agentq.core.errors import Unavailable
from agentq.engine.messages import HEADER, HOLDER_HEADER, offer_of
from agentq.engine.slots import current
from agentq.engine.split.plain import shelve, take_over, virtual_of
from agentq.store import Store


def adopt_steps(consumer: Any, store: Store) -> None:
    """Have a worker's consumer turn plain messages that start one of our steps into steps."""
    create = consumer.create_task_handler

    def create_task_handler(*args: Any, **kwargs: Any) -> Any:
        handle = create(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            if HOLDER_HEADER in (message.headers or {}):
                handle(message)
                return
            try:
                if not _adopt(consumer, store, message):
                    handle(message)
            except Exception as error:
                if _is_lost(consumer, error) or message.acknowledged or _is_reserved(message):
                    raise
                shelve(consumer, store, message, f"it is no valid task: {error!r}")

        return on_task_received

    consumer.create_task_handler = create_task_handler
    consumer.on_decode_error = _keeping(consumer, store, "on_decode_error", at=0, words="its body cannot be decoded")
    consumer.on_invalid_task = _keeping(consumer, store, "on_invalid_task", at=1, words="it is no valid task")
    consumer.on_unknown_message = _keeping(consumer, store, "on_unknown_message", at=1, words="it names no task")


def _keeping(consumer: Any, store: Store, name: str, *, at: int, words: str) -> Callable[..., Any]:
    """Return a method of Celery's consumer that lets go of a plain message, preceded by its dead letter.

    Celery then acknowledges or rejects the message as ever: rejected, it goes where its queue says.
    """
    method = getattr(consumer, name)

    def handle(*args: Any) -> None:
        message, error = args[at], args[-1]
        if HOLDER_HEADER in (message.headers or {}):
            method(*args)
            return
        said = words if error is message else f"{words}: {error!r}"
        shelve(consumer, store, message, said, lambda: method(*args))

    return handle


def _adopt(consumer: Any, store: Store, message: Any) -> bool:
    """Take a message over if it is a step's; False when it is a plain task's."""
    headers = dict(message.headers or {})
    taker = current()
    # kombu took it out of the list that is our lane in fused mode.
    from_lane = HEADER in headers
    if not from_lane:
        ours = taker.adopts({"headers": headers}) if taker is not None else None
        if ours is None:
            return False
        headers[HEADER] = ours
    virtual = virtual_of(consumer, message, headers)
    offer = offer_of(virtual["properties"]["delivery_info"]["routing_key"], virtual)

    def record() -> None:
        if from_lane:
            store.relist([], found=[(offer.root, offer.id, offer.message)])
        else:
            store.offer([offer])

    take_over(consumer, message, record)
    return True


def _is_lost(consumer: Any, error: Exception) -> bool:
    # kombu counts KeyError among the connection errors, but it is rather a message that lacks something.
    lost = isinstance(error, (*consumer.connection_errors, Unavailable))
    return lost and not isinstance(error, KeyError)


def _is_reserved(message: Any) -> bool:
    """Tell whether Celery has begun with it."""
    return any(request.message is message for request in tuple(state.reserved_requests))
