"""Takes over steps that producers without agentq have sent to a plain queue: recorded first, then acknowledged."""

from __future__ import annotations

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
            taker = current()
            if taker is None or HOLDER_HEADER in headers:
                handle(message)
                return
            payload = {"headers": dict(headers)}
            ours = taker.adopts(payload)
            if ours is None:
                handle(message)
            else:
                _adopt(consumer, store, message, {**payload["headers"], HEADER: ours})

        return on_task_received

    consumer.create_task_handler = create_task_handler


def _adopt(consumer: Any, store: Store, message: Any, headers: dict[str, Any]) -> None:
    routed = message.delivery_info or {}
    queue = routed.get("routing_key") or consumer.app.conf.task_default_queue
    virtual = virtual_message(
        message.body,
        headers=headers,
        content_type=message.content_type,
        content_encoding=message.content_encoding or "utf-8",
        properties={
            "correlation_id": message.properties.get("correlation_id"),
            "reply_to": message.properties.get("reply_to"),
            "delivery_mode": 2,
            # A broker's own numbers are its plain tasks': none of them says which lane the step is to have.
            "priority": PRIORITIES[DEFAULT_PRIORITY],
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    )
    try:
        store.offer([offer_of(queue, virtual)])
    except Unavailable as error:
        logger.warning("adoption_waits id=%s: %s", headers.get("id"), error)
        if consumer.hub is None:
            message.reject_log_error(logger, consumer.connection_errors, requeue=True)
        else:
            consumer.hub.call_later(AWAY_S, _adopt, consumer, store, message, headers)
        return
    message.ack_log_error(logger, consumer.connection_errors)
