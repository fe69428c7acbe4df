"""Has steps, and whatever a step's attempt sends, go into the store instead of to the broker.

In fused mode the transport does so; here the broker's transport stays kombu's own, and Celery's function that publishes
a task gets another producer for these messages. No connection to the broker is opened for them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from kombu.messaging import Producer
from kombu.transport.virtual import Base64

from agentq.core.errors import QueueFull, Unavailable
from agentq.engine import capture
from agentq.engine.messages import HEADER, offer_of
from agentq.store import Store

DELAYED_EXCHANGE = "celery_delayed_27"
"""Where Celery sends a message with an ETA when the app has quorum queues: the queue's name follows 28 bits."""


class Catcher(Producer):
    """Stands in for the producer of one task's message, which it keeps as kombu's virtual message.

    What Celery publishes besides (the event that a task was sent) goes through the producer behind it.
    """

    def __init__(self, behind: Any) -> None:
        super().__init__(None)
        self._behind = behind
        self.caught: dict[str, Any] | None = None

    def publish(self, body: Any, *args: Any, **options: Any) -> Any:
        """Keep the first message; send every other."""
        if self.caught is not None:
            return self._behind.publish(body, *args, **options)
        return super().publish(body, *args, **{**options, "retry": False})

    def _publish(
        self,
        body: Any,
        priority: Any,
        content_type: str,
        content_encoding: str,
        headers: dict[str, Any],
        properties: dict[str, Any],
        routing_key: str,
        mandatory: bool,
        immediate: bool,
        exchange: str,
        *_others: Any,
        **_more: Any,
    ) -> None:
        self.caught = virtual_message(
            body,
            headers=headers,
            content_type=content_type,
            content_encoding=content_encoding,
            properties={
                **properties,
                "priority": priority,
                "delivery_info": {"exchange": exchange, "routing_key": routing_key},
            },
        )


def virtual_message(
    body: Any, *, headers: dict[str, Any], content_type: str, content_encoding: str, properties: dict[str, Any]
) -> dict[str, Any]:
    """Return a message as kombu's virtual transports, and the store, hold it; the body in base64."""
    encoded = Base64().encode(body)
    return {
        "body": encoded,
        "content-encoding": content_encoding,
        "content-type": content_type,
        "headers": headers,
        "properties": {**properties, "body_encoding": "base64", "delivery_tag": str(uuid.uuid4())},
    }


def divert(app: Any, open_store: Callable[[], Store]) -> None:
    """Have steps of ``app``, and all that a capture catches, become offers; a second call replaces the first."""
    amqp = app.amqp
    made: list[Callable[..., Any]] = []

    def send_task_message(producer: Any, name: str, message: Any, **options: Any) -> Any:
        if not made:
            made.append(amqp._create_task_sender())
        publish = made[0]
        caught = capture.active()
        if caught is None and not _is_step(message, options):
            return publish(producer, name, message, **options)
        catcher = Catcher(producer)
        publish(catcher, name, message, **{**options, "retry": False})
        assert catcher.caught is not None, "Celery published nothing"
        offer = offer_of(_queue_of(options, catcher.caught), catcher.caught)
        if caught is not None:
            caught.offers.append(offer)
            return None
        try:
            open_store().offer([offer])
        except QueueFull:
            raise
        except Unavailable as error:
            raise ConnectionError(str(error)) from error
        return None

    amqp.send_task_message = send_task_message


def _is_step(message: Any, options: dict[str, Any]) -> bool:
    return HEADER in (message.headers or {}) or HEADER in (options.get("headers") or {})


def _queue_of(options: dict[str, Any], message: dict[str, Any]) -> str:
    queue = options.get("queue")
    if queue is not None:
        return queue if isinstance(queue, str) else str(queue.name)
    routed = message["properties"]["delivery_info"]
    key: str = routed["routing_key"]
    return key.split(".", 28)[-1] if routed["exchange"] == DELAYED_EXCHANGE else key
