"""kombu's own Redis transport, but that a message which it cannot read goes to the dead letters.

kombu decodes what it has popped in the worker's event loop: the error ends the worker, and the message is gone. Nothing
else is changed, and nothing else of kombu's is relied upon: on a kombu that nobody has tried this transport serves.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str

from agentq.core.errors import Unavailable
from agentq.core.lanes import lane_of

logger = get_logger(__name__)

LOGGED_BYTES = 2_000
"""Of what cannot be read; the whole lies among the dead letters."""


class StockChannel(kombu_redis.Channel):
    """A kombu channel that remembers what it popped until somebody has it."""

    _popped: tuple[str, bytes] | None = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous=asynchronous)
        if asynchronous:
            parse = client.parse_response

            def parse_response(connection: Any, command: str, **options: Any) -> Any:
                reply = parse(connection, command, **options)
                if command == "BRPOP" and reply:
                    self._popped = bytes_to_str(reply[0]), reply[1]
                return reply

            client.parse_response = parse_response
        return client

    def basic_consume(self, queue: str, no_ack: bool, callback: Callable[[Any], Any], *args: Any, **kwargs: Any) -> Any:
        """Consume as kombu does; from when the callback is called, a message is the consumer's concern."""

        def receive(message: Any) -> Any:
            self._popped = None
            return callback(message)

        return super().basic_consume(queue, no_ack, receive, *args, **kwargs)

    def _brpop_read(self, **options: Any) -> Any:
        self._popped = None
        try:
            return super()._brpop_read(**options)
        except Empty:
            raise
        except Exception as error:
            # kombu counts KeyError among the connection errors, but it is rather a message that lacks something.
            lost = isinstance(error, self.connection_errors) and not isinstance(error, KeyError)
            if self._popped is None or lost:
                raise
            self._put_aside(error)
            raise Empty() from None

    def _put_aside(self, error: Exception) -> None:
        assert self._popped is not None
        (name, item), self._popped = self._popped, None
        queue, _, step = name.partition(self.sep)
        raw = item if isinstance(item, bytes) else str(item).encode()
        logger.error("unreadable queue=%s: %r\n%r", queue, error, raw[:LOGGED_BYTES])
        try:
            self.connection.client.store.shelve(
                raw,
                queue=queue,
                lane=lane_of(int(step)) if step.isdigit() else 0,
                words=f"it is no message of kombu's: {error!r}",
            )
        except Unavailable as away:
            raise ConnectionError(str(away)) from away


class StockTransport(kombu_redis.Transport):
    """kombu's transport with that channel."""

    Channel = StockChannel


class StockSentinelChannel(StockChannel, kombu_redis.SentinelChannel):
    """The same behind Sentinels, which tell where the master is."""


class StockSentinelTransport(kombu_redis.SentinelTransport):
    """The transport for ``sentinel://`` URLs."""

    Channel = StockSentinelChannel
