"""kombu's Redis transport with custody: a message moves from its lane to a worker's hands in one script.

kombu pops a message and records it as unacknowledged one round trip later; what dies in between is lost, and
what lives too long is given to a second worker after the visibility time-out. Here ``take`` does both at
once, the worker's lease takes the place of the time-out, and each take asks for as many messages as there are
free slots.

Fanout, remote control, queue declarations, lengths and consumers without acknowledgement stay kombu's code.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from types import MappingProxyType
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps

from agentq.core.errors import QueueFull, Unavailable
from agentq.engine import capture
from agentq.engine.custody import QoS, Reader
from agentq.engine.delivery import hand_over
from agentq.engine.messages import is_durable, lane_of, offer_of
from agentq.engine.slots import Taker, current
from agentq.store import Store

BELL_TTL_MS = 60_000
"""Life of a bell that rang for no task: reply queues have a new name each, and nobody deletes their bells."""

BELL_LENGTH = 32
"""Wake-ups kept in a bell, as in the store's scripts: more idle workers than that find the rest within a
second."""

REAUTHENTICATES = hasattr(kombu_redis.Channel, "_flush_brpop_reauth")
"""Whether kombu renews credentials by itself: 5.6 does not yet."""

LOW_SHARE = 8
"""Every N-th take begins with the lowest lane, so that a stream of urgent work does not starve it."""


class Channel(kombu_redis.Channel):
    """A kombu channel that takes by script and puts durable messages into the store."""

    QoS = QoS

    low_share = LOW_SHARE
    # kombu 5.6 knows no queues with an end; from 5.7 on each channel has a table of its own.
    _expires: Any = MappingProxyType({})

    from_transport_options: Any = (*kombu_redis.Channel.from_transport_options, "low_share")

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        self._cached_client: Any = None
        self._cached_pool: Any = None
        self._own_taker: Taker | None = None
        self._unkept: dict[str, str] = {}
        super().__init__(connection, **kwargs)
        # The store spells lanes by itself; with other names or steps it would look into other lists.
        for name in ("sep", "priority_steps", "global_keyprefix"):
            if getattr(self, name) != getattr(kombu_redis.Channel, name):
                raise ValueError(f"agentq has its own layout of queues: leave out the transport option {name!r}.")
        self.reader = Reader(self)

    @property
    def store(self) -> Store:
        """The store behind this channel's connection."""
        store: Store = self.connection.store
        return store

    @property
    def taker(self) -> Taker:
        """Under whose name this channel takes: the worker's, or its own in a process that is no worker.

        One of its own keeps no lease: the store gives it up an hour after its last take, as stock kombu
        would.
        """
        own = self._own_taker
        if own is None or (own.refused and own is not current()):
            own = current() or Taker(self.store, label="consumer")
            self._own_taker = own
        return own

    # Consuming

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        """Consume from ``queue``; without acknowledgement nothing is to be kept, so kombu's own way stays."""
        reply = super().basic_consume(queue, no_ack, *args, **kwargs)
        tag = kwargs.get("consumer_tag") or (args[1] if len(args) > 1 else None)
        if no_ack and tag is not None:
            self._unkept[tag] = queue
        self.reader.hear_of(queue)
        return reply

    def _basic_cancel(self, consumer_tag: str) -> Any:
        self._unkept.pop(consumer_tag, None)
        return super()._basic_cancel(consumer_tag)

    def queues_by_custody(self) -> tuple[list[str], list[str]]:
        """Return the consumed queues in turn: those that are taken from, and those read without custody."""
        names = self._queue_cycle.consume(len(self.active_queues))
        unkept = set(self._unkept.values())
        other = unkept | self.taker.left_out
        return [name for name in names if name not in other], [name for name in names if name in unkept]

    def is_taking(self) -> bool:
        """Tell whether a take of this channel waits for its reply."""
        return bool(self._in_poll) and not self.closed and self.reader.is_taking

    def wants(self) -> bool:
        """Tell whether there is something that this channel may read now."""
        active = self.active_queues
        if not active or not set(self._unkept.values()).isdisjoint(active):
            return True
        return self.credit() > 0

    def credit(self) -> int:
        """Return how many messages may be taken now."""
        qos = self.qos
        return self.taker.credit(prefetch=qos.prefetch_count, unacknowledged=qos.unacknowledged())

    def _brpop_start(self, timeout: float | None = None) -> None:
        self.reader.start()

    def _brpop_read(self, **options: Any) -> Any:
        return self.reader.read()

    def begin_poll(self, *commands: tuple[Any, ...]) -> None:
        """Send commands together on the poll connection; their replies arrive at the event loop."""
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = monotonic()  # type: ignore[assignment]  # kombu's default is None
        connection.send_packed_command(connection.pack_commands(commands))

    def cut_wait(self) -> None:
        """Have the server end the wait on the poll connection as if its time were over."""
        told = getattr(self.client.connection, "handshake_metadata", None) or {}
        number = told.get(b"id", told.get("id")) if isinstance(told, dict) else None
        if number is None:
            return
        # A user of the server who may not do so waits for the second that a wait takes.
        with suppress(*self.connection_errors, self.ResponseError), self.conn_or_acquire() as client:
            client.client_unblock(int(number))

    def end_poll(self) -> None:
        """Note that the poll connection is idle, the only moment at which it may be authenticated anew."""
        self._in_poll = None  # type: ignore[assignment]  # kombu's default is False
        if REAUTHENTICATES:
            self._flush_brpop_reauth()

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Return one message or None, at once."""
        if no_ack:
            return super().basic_get(queue, no_ack=True, **kwargs)
        taker = self.taker
        reply = self.stored(
            lambda: self.store.take(
                taker.id,
                taker.token(),
                slots=1,
                label=taker.label,
                queues=[queue],
                low_share=0,
                floor=taker.floor,
            )
        )
        taker.answered(reply)
        if reply.refused:
            taker.refuse()
        for taken in reply.taken:
            found: list[Any] = []
            hand_over(self, taken, found.append)
            if found:
                message = self.Message(found[0], channel=self)
                self.qos.append(message, message.delivery_tag)
                return message
        return None

    def close(self) -> None:
        """Close the channel; what it held stays with the worker, or goes back if there is none."""
        if not self.closed:
            self.reader.close()
            own = self._own_taker
            if own is not None:
                own.abandon(self.qos.takes())
            if own is not None and own is not current() and own.used and not own.closed:
                # Only the worker's boot step outlives a channel; nobody would ever settle what others hold.
                try:
                    own.leave()
                except Unavailable as error:
                    kombu_redis.warning("agentq: not handed back at close, the store will: %s", error)
        super().close()

    # Producing

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        caught = capture.active()
        if caught is not None:
            caught.offers.append(offer_of(queue, message))
        elif is_durable(message):
            self.stored(lambda: self.store.offer([offer_of(queue, message)]))
        else:
            self._put_plain(queue, message, kwargs.get("_publish_batch"))

    def _put_plain(self, queue: str, message: dict[str, Any], batch: Any) -> None:
        headers = message.get("headers") or {}
        lane = lane_of(self._get_message_priority(message, reverse=False))
        expires = self._expires.get(queue)
        if batch is None and expires is None and "task" in headers:
            self.stored(lambda: self.store.ring(queue, lane, dumps(message)))
            return
        bell = self.store.keys.bell(queue)
        commands: list[tuple[Any, ...]] = [("lpush", self.store.keys.lane(queue, lane), dumps(message))]
        if expires is not None:
            commands += [("pexpire", self._q_for_pri(queue, step), expires) for step in self.priority_steps]
        commands += [("lpush", bell, 1), ("ltrim", bell, 0, BELL_LENGTH - 1), ("pexpire", bell, BELL_TTL_MS)]
        if batch is not None:
            for name, *arguments in commands:
                batch.add(name, *arguments)
            return
        with self.conn_or_acquire() as client, client.pipeline() as pipe:
            for name, *arguments in commands:
                getattr(pipe, name)(*arguments)
            pipe.execute()

    def _purge(self, queue: str) -> int:
        return int(self.stored(lambda: self.store.purge(queue)))

    def conn_or_acquire(self, client: Any = None) -> Any:
        """Lend a client; the same one each time, since a new one costs more than the command."""
        if client is None:
            pool = self.pool
            if self._cached_pool is not pool:
                self._cached_client, self._cached_pool = self._create_client(), pool
            client = self._cached_client
        return super().conn_or_acquire(client)

    def stored(self, call: Callable[[], Any]) -> Any:
        """Return ``call()``; a store that is away is a ConnectionError, which kombu and Celery try again."""
        try:
            return call()
        except QueueFull:
            # Nothing is away: the caller is to hear of it.
            raise
        except Unavailable as error:
            raise ConnectionError(str(error)) from error


class Poller(kombu_redis.MultiChannelPoller):
    """kombu's poller; reads broadcasts also while there is no free slot."""

    def on_readable(self, fileno: int) -> Any:
        """Read what arrived on one socket.

        kombu leaves a broadcast unread while nothing may be consumed; its socket stays readable, and the
        event loop would spin. With custody that is the usual state of a busy worker.
        """
        found = self._fd_to_chan.get(fileno)
        if found is not None and found[1] == "LISTEN" and found[0].qos.within_prefetch():
            return found[0].handlers["LISTEN"]()
        return super().on_readable(fileno)


class Transport(kombu_redis.Transport):
    """The transport that ``connection.Connection`` uses for Redis; also a ``broker_transport`` of its own."""

    Channel = Channel

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.cycle = Poller()  # type: ignore[assignment]  # kombu's base class has another poller

    @property
    def store(self) -> Store:
        """The store of the connection's app, else one at the connection's own address."""
        store: Store | None = getattr(self.client, "store", None)
        return store if store is not None else _store_at(self.client)


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """The same behind Sentinels, which tell where the master is."""

    from_transport_options: Any = (*kombu_redis.SentinelChannel.from_transport_options, "low_share")


class SentinelTransport(Transport):
    """The transport for ``sentinel://`` URLs."""

    default_port = kombu_redis.SentinelTransport.default_port  # type: ignore[assignment]  # kombu's base class has None
    Channel = SentinelChannel


_stores: weakref.WeakValueDictionary[str, Store] = weakref.WeakValueDictionary()


def _store_at(client: Any) -> Store:
    scheme = "rediss" if client.ssl else "redis"
    url: str = client.as_uri(include_password=True)
    if "socket://" not in url:
        url = scheme + url[url.index("://") :]
    store = _stores.get(url)
    if store is None:
        store = Store(url)
        _stores[url] = store
        client.agentq_store = store
    return store
