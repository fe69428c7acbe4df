"""Plain messages that a worker got from its broker, as the store holds messages; and what nobody can read of them.

The broker's message is acknowledged when the store has it, and not before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger
from kombu.utils.json import dumps

from agentq.core.errors import Unavailable
from agentq.core.lanes import DEFAULT_PRIORITY, PRIORITIES, lane_of
from agentq.engine.messages import HEADER
from agentq.engine.split.sending import virtual_message
from agentq.store import Store

logger = get_logger(__name__)

AWAY_S = 1.0
"""Between attempts to record a message while the store is away; it is with the broker meanwhile."""

LOGGED_BYTES = 2_000
"""Of what cannot be read; the whole lies among the dead letters."""


def virtual_of(consumer: Any, message: Any, headers: dict[str, Any]) -> dict[str, Any]:
    """Return a message of the broker's with these headers as kombu's virtual message."""
    routed = message.delivery_info or {}
    properties = message.properties or {}
    # A broker's own numbers are its plain tasks': which lane a step is to have, none of them says.
    priority = properties.get("priority") if HEADER in (message.headers or {}) else None
    if not message.errors:
        # kombu has expanded the body when it made the message.
        headers = {name: value for name, value in headers.items() if name != "compression"}
    return virtual_message(
        message.body,
        headers=headers,
        content_type=message.content_type,
        content_encoding=message.content_encoding or "utf-8",
        properties={
            "correlation_id": properties.get("correlation_id"),
            "reply_to": properties.get("reply_to"),
            "delivery_mode": 2,
            "priority": PRIORITIES[DEFAULT_PRIORITY] if priority is None else priority,
            "delivery_info": {
                "exchange": "",
                "routing_key": routed.get("routing_key") or consumer.app.conf.task_default_queue,
            },
        },
    )


def take_over(
    consumer: Any, message: Any, record: Callable[[], None], finish: Callable[[], None] | None = None
) -> None:
    """Record a message, then acknowledge it, or have ``finish`` do so; while the store is away, try again."""
    try:
        record()
    except Unavailable as error:
        logger.warning("message_waits_with_the_broker id=%s: %s", (message.headers or {}).get("id"), error)
        if consumer.hub is None:
            message.reject_log_error(logger, consumer.connection_errors, requeue=True)
        else:
            consumer.hub.call_later(AWAY_S, take_over, consumer, message, record, finish)
        return
    if finish is not None:
        finish()
        return
    message.ack_log_error(logger, consumer.connection_errors)


def shelve(consumer: Any, store: Store, message: Any, words: str, finish: Callable[[], None] | None = None) -> None:
    """Put a message that nobody can read among the dead letters, whole, and only then let the broker forget it."""
    virtual = virtual_of(consumer, message, dict(message.headers or {}))
    queue = virtual["properties"]["delivery_info"]["routing_key"]
    token = virtual["properties"]["delivery_tag"]
    logger.error("unreadable queue=%s headers=%r: %s\n%r", queue, message.headers, words, _beginning(message.body))

    def record() -> None:
        store.shelve(dumps(virtual), queue=queue, lane=_lane(virtual), words=words, token=token)

    take_over(consumer, message, record, finish)


def _lane(virtual: dict[str, Any]) -> int:
    priority = virtual["properties"]["priority"]
    return lane_of(priority) if isinstance(priority, int) else PRIORITIES[DEFAULT_PRIORITY]


def _beginning(body: Any) -> Any:
    return body[:LOGGED_BYTES] if isinstance(body, str | bytes) else body
