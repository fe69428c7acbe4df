"""A hint: a broker's message that names a queued step. Where hints lie, and how they are written and read.

Each lane of a queue has a queue of hints of its own, since quorum queues of RabbitMQ before 4.0 know no priorities;
which lane goes first is decided where they are claimed.
"""

from __future__ import annotations

from typing import Any, Final

from agentq.core.lanes import PRIORITIES
from agentq.store.unsent import LONGEST_PAUSE_MS

CONTENT_TYPE: Final = "text/plain"
"""Of a hint: no serializer's, so that nothing but ``desk`` takes it for a task."""


def hint_queue(prefix: str, queue: str, lane: int) -> str:
    """Return the name of the broker's queue for the hints of one lane."""
    names = {number: name for name, number in PRIORITIES.items()}
    return f"{prefix}.{queue}.{names[lane]}"


def lanes_of(prefix: str, queue: str) -> dict[str, int]:
    """Return the hint queues of a queue, each with its lane."""
    return {hint_queue(prefix, queue, lane): lane for lane in PRIORITIES.values()}


def declare(connection: Any, channel: Any, name: str, kind: str) -> Any:
    """Have a durable queue of hints exist; return the channel to go on with.

    ``kind`` is RabbitMQ's queue type. A queue that is there already stays what it is: the broker answers another type
    by closing the channel, and the next one takes the queue as it stands.
    """
    options = {"queue": name, "durable": True, "auto_delete": False}
    if connection.transport.driver_type != "amqp":
        # Lists that nobody reads any more must end; what waits is published again more often than that.
        channel.queue_declare(**options, arguments={"x-expires": 2 * LONGEST_PAUSE_MS})
        return channel
    try:
        channel.queue_declare(**options, arguments={"x-queue-type": kind})
    except connection.channel_errors as error:
        if getattr(error, "reply_code", None) != PRECONDITION_FAILED:
            raise
        channel = connection.channel()
        channel.queue_declare(queue=name, passive=True)
    return channel


PRECONDITION_FAILED: Final = 406

SINCE: Final = "since"
"""Header of a hint: the server's time in ms since when its step waits."""


def name_in(message: Any) -> str:
    """Return the name that a hint holds."""
    body = message.body
    return bytes(body).decode(errors="replace") if isinstance(body, bytes | bytearray | memoryview) else str(body)


def since_in(message: Any) -> float | None:
    """Return since when a hint's step waits, in s since the epoch; None for a hint that does not say."""
    since = (message.headers or {}).get(SINCE)
    return float(since) / 1000 if isinstance(since, int | float) else None
