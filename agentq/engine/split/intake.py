"""The hint queues of a worker as its broker delivers them: consumed from, paused, followed as they change.

On RabbitMQ each lane has a channel of its own and is consumed from without waiting for an answer: a quorum queue
without a leader answers nothing, and would else hold up the worker's event loop with every other queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from amqp import spec
from celery.utils.log import get_logger

from agentq.engine.split import hints

logger = get_logger(__name__)


class Intake:
    """Hint queues over one connection.

    Args:
        connection: the worker's to the broker.
        kind: RabbitMQ's type of hint queues.
        ahead: how many hints of each lane may be delivered before one is acknowledged.
        arrived: called with queue, lane and kombu's message of each hint.
    """

    def __init__(
        self, connection: Any, *, prefix: str, kind: str, ahead: int, arrived: Callable[[str, int, Any], None]
    ) -> None:
        self._connection = connection
        self._prefix = prefix
        self._kind = kind
        self._ahead = ahead
        self._arrived = arrived
        self._channels: dict[str, Any] = {}
        self._shared: Any = None
        self._consuming: set[str] = set()

    @property
    def _is_amqp(self) -> bool:
        return bool(self._connection.transport.driver_type == "amqp")

    def follow(self, queues: Iterable[str]) -> None:
        """Consume from the lanes of these queues and from no others; nothing happens where that is so already."""
        wanted = {name: (queue, lane) for queue in queues for name, lane in hints.lanes_of(self._prefix, queue).items()}
        for name in [name for name in self._consuming if name not in wanted]:
            self._consuming.discard(name)
            channel = self._channels[name]
            if self._is_amqp:
                channel.basic_cancel(name, nowait=True)
            else:
                channel.basic_cancel(name)
        for name, (queue, lane) in wanted.items():
            if name not in self._consuming:
                self._consume(name, queue, lane)
                self._consuming.add(name)

    def close(self) -> None:
        """Forget the channels; they end with their connection."""
        self._channels.clear()
        self._consuming.clear()
        self._shared = None

    def _consume(self, name: str, queue: str, lane: int) -> None:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = self._open(name)

        def receive(raw: Any) -> None:
            self._arrived(queue, lane, channel.message_to_python(raw))

        # Under the queue's name: late deliveries of a cancelled consumer find a callback too.
        ends = {"on_cancel": lambda _tag: self._lose(name)} if self._is_amqp else {}
        channel.basic_consume(queue=name, consumer_tag=name, no_ack=False, callback=receive, nowait=True, **ends)

    def _open(self, name: str) -> Any:
        channel = self._shared if self._shared is not None else self._connection.channel()
        channel = hints.declare(self._connection, channel, name, self._kind)
        channel.basic_qos(0, self._ahead, False)
        if not self._is_amqp:
            # Each channel of kombu's Redis transport polls the server on a connection of its own.
            self._shared = channel
        else:
            self._watch(channel, name)
        return channel

    def _watch(self, channel: Any, name: str) -> None:
        """Have the channel's end by the broker be no more than that: somebody has deleted the queue.

        py-amqp answers and raises, in the middle of the event loop, where Celery would end the worker.
        """
        answer = channel._on_close

        def closed(*reason: Any) -> None:
            with suppress(*self._connection.channel_errors):
                answer(*reason)
            self._lose(name)

        channel._callbacks[spec.Channel.Close] = closed

    def _lose(self, name: str) -> None:
        logger.warning("hint_queue_lost queue=%s: declared again", name)
        self._consuming.discard(name)
        self._channels.pop(name, None)
