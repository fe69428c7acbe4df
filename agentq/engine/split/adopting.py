"""Takes over steps that came through a plain queue: recorded first, then acknowledged.

Producers without agentq send such, and in stock mode processes that are still in fused mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger

from agentq.core.errors import Unavailable
from agentq.core.lanes import DEFAULT_PRIORITY, PRIORITIES
from agentq.engine.messages import HEADER, HOLDER_HEADER, offer_of
from agentq.engine.slots import current
from agentq.engine.split.sending import virtual_message
from agentq.store import Store

logger = get_logger(__name__)

AWAY_S = 1.0
"""Between attempts to record a step while the store is away; its message is with the broker meanwhile."""


def adopt_steps(consumer: Any, store: Store) -> None:
    """Have a worker's consumer turn plain messages that start one of our steps into steps."""
    create = consumer.create_task_handler

    def create_task_handler(*args: Any, **kwargs: Any) -> Any:
        handle = create(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            headers = message.headers or {}
            if HEADER in headers and HOLDER_HEADER not in headers:
                # kombu took it out of the list that is our lane in fused mode.
                _take_over(consumer, message, lambda virtual: _relist(store, virtual), headers)
                return
            taker = current()
            if taker is None or HOLDER_HEADER in headers:
                handle(message)
                return
            payload = {"headers": dict(headers)}
            ours = taker.adopts(payload)
            if ours is None:
                handle(message)
            else:
                _take_over(
                    consumer, message, lambda virtual: _offer(store, virtual), {**payload["headers"], HEADER: ours}
                )

        return on_task_received

    consumer.create_task_handler = create_task_handler


def _offer(store: Store, virtual: dict[str, Any]) -> None:
    store.offer([offer_of(virtual["properties"]["delivery_info"]["routing_key"], virtual)])


def _relist(store: Store, virtual: dict[str, Any]) -> None:
    offer = offer_of(virtual["properties"]["delivery_info"]["routing_key"], virtual)
    store.relist([], found=[(offer.root, offer.id, offer.message)])


def _take_over(consumer: Any, message: Any, record: Callable[[dict[str, Any]], None], headers: dict[str, Any]) -> None:
    """Record a message's step, then acknowledge the message; while the store is away, try again."""
    routed = message.delivery_info or {}
    queue = routed.get("routing_key") or consumer.app.conf.task_default_queue
    # A broker's own numbers are its plain tasks': which lane a step is to have, none of them says.
    priority = message.properties.get("priority") if HEADER in (message.headers or {}) else None
    virtual = virtual_message(
        message.body,
        headers=headers,
        content_type=message.content_type,
        content_encoding=message.content_encoding or "utf-8",
        properties={
            "correlation_id": message.properties.get("correlation_id"),
            "reply_to": message.properties.get("reply_to"),
            "delivery_mode": 2,
            "priority": PRIORITIES[DEFAULT_PRIORITY] if priority is None else priority,
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    )
    try:
        record(virtual)
    except Unavailable as error:
        logger.warning("step_waits_with_the_broker id=%s: %s", headers.get("id"), error)
        if consumer.hub is None:
            message.reject_log_error(logger, consumer.connection_errors, requeue=True)
        else:
            consumer.hub.call_later(AWAY_S, _take_over, consumer, message, record, headers)
        return
    message.ack_log_error(logger, consumer.connection_errors)
