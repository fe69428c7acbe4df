"""Tells the broker what waits in the store: a thread per worker, with a connection to the broker of its own.

It may die at any moment: what it was about to publish comes again. A step's hint may so be published twice, which its
claim makes harmless; a plain message too, as any publisher's that has not heard of its confirmation.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from amqp import exceptions as amqp_exceptions
from kombu.exceptions import OperationalError

from agentq.engine.split import hints
from agentq.store import Store
from agentq.store.unsent import Post

logger = logging.getLogger(__name__)

CHUNK = 200
"""Messages that are published before their confirmations are awaited together."""

CONFIRM_S = 5.0
"""A quorum queue without a leader confirms nothing; the others must not wait for it."""

CONNECT_S = 5.0

LONGEST_PAUSE_S = 5.0
"""Between attempts while the broker or the store is away."""

RELIST_S = 5.0
"""Between looks for what processes in fused mode have queued: there are some only while a fleet goes over."""

ENVELOPE = ("delivery_info", "delivery_tag", "body_encoding", "priority", "redelivered")
"""Properties of kombu's virtual message that are none of AMQP's."""


UNREACHABLE = (OSError, amqp_exceptions.ConnectionError, OperationalError)
"""What kombu and py-amqp raise when there is no connection, or none any more."""

BROKERS_WORD = (*UNREACHABLE, amqp_exceptions.AMQPError)
"""The same, and what they raise when the broker refuses."""


class Unreadable(Exception):
    """A plain message is none of kombu's: ``str`` says why."""


class Unconfirmed(Exception):
    """The broker refused messages, or did not confirm them in time: ``posts``, which come again by themselves."""

    def __init__(self, posts: Sequence[Post]) -> None:
        super().__init__(f"{len(posts)} messages, among them one for queue {posts[0].queue!r}")
        self.posts = posts


class Outlet:
    """A connection to the broker that publishes with confirmation."""

    def __init__(self, app: Any, *, prefix: str, kind: str) -> None:
        self._app = app
        self._prefix = prefix
        self._kind = kind
        self._connection: Any = None
        self._channel: Any = None
        self._declared: set[str] = set()
        self._tag = 0
        self._open: dict[int, Post] = {}
        self._refused: list[Post] = []
        self._returned: set[str] = set()

    def publish(self, posts: Sequence[Post]) -> None:
        """Return when the broker has all of them safe; else raises what kombu or this module names as the reason."""
        try:
            self._send(posts)
            if self._returned:
                # Somebody has deleted queues of hints: declared again they take the same messages.
                missed = [post for post in posts if self._key_of(post) in self._returned]
                self._returned.clear()
                self._send(missed)
        except BaseException:
            self.close()
            raise

    def _send(self, posts: Sequence[Post]) -> None:
        channel = self._ready(posts)
        for post in posts:
            if self._confirms:
                self._tag += 1
                self._open[self._tag] = post
            self._publish(channel, post)
        self._await_confirmations()

    def _key_of(self, post: Post) -> str:
        return hints.hint_queue(self._prefix, post.queue, post.lane)

    def close(self) -> None:
        """Drop the connection; the next publish opens another."""
        connection, self._connection, self._channel = self._connection, None, None
        self._declared.clear()
        self._returned.clear()
        self._open, self._refused, self._tag = {}, [], 0
        if connection is not None:
            try:
                connection.collect(CONNECT_S)
            except Exception as error:
                logger.debug("outlet_not_closed: %r", error)

    @property
    def _confirms(self) -> bool:
        return bool(self._connection.transport.driver_type == "amqp")

    def _ready(self, posts: Sequence[Post]) -> Any:
        """Return a channel that confirms, with the queues of ``posts`` declared."""
        if self._connection is None:
            # A heartbeat would have to be sent by a thread that mostly sleeps.
            self._connection = self._app.connection_for_write(heartbeat=0, connect_timeout=CONNECT_S)
            self._connection.ensure_connection(max_retries=1, timeout=CONNECT_S)
        channel = self._channel
        for name in {self._key_of(post) for post in posts if post.message is None} - self._declared:
            if channel is None:
                channel = self._connection.channel()
            channel = hints.declare(self._connection, channel, name, self._kind)
            self._declared.add(name)
        for queue in {post.queue for post in posts if post.message is not None} - self._declared:
            if channel is None:
                channel = self._connection.channel()
            self._app.amqp.queues[queue](channel).declare()
            self._declared.add(queue)
        if channel is not self._channel:
            self._channel = channel
            self._tag = 0
            if self._confirms:
                channel.confirm_select()
                channel.events["basic_ack"].add(self._on_ack)
                channel.events["basic_nack"].add(self._on_nack)
                channel.events["basic_return"].add(self._on_return)
        return channel

    def _publish(self, channel: Any, post: Post) -> None:
        if post.message is not None:
            try:
                self._publish_plain(channel, post.queue, json.loads(post.message))
            except Exception as error:
                # py-amqp's error for a header that has no place in its tables is one of the connection's.
                if isinstance(error, BROKERS_WORD) and not isinstance(error, amqp_exceptions.FrameSyntaxError):
                    raise
                raise Unreadable(f"it is no message of kombu's: {error!r}") from error
            return
        # Once the next hint is due this one need not lie there any more: one hint a step, however long it waits.
        properties = {"delivery_mode": 2, "expiration": str(post.pause_ms)}
        headers = {} if post.since_ms is None else {hints.SINCE: post.since_ms}
        message = channel.prepare_message(post.name.encode(), 0, hints.CONTENT_TYPE, "utf-8", headers, properties)
        channel.basic_publish(message, exchange="", routing_key=self._key_of(post), mandatory=True)

    def _publish_plain(self, channel: Any, queue: str, virtual: dict[str, Any]) -> None:
        properties = virtual["properties"]
        routed = properties.get("delivery_info") or {}
        body = virtual["body"]
        message = channel.prepare_message(
            base64.b64decode(body) if properties.get("body_encoding") == "base64" else body,
            properties.get("priority"),
            virtual["content-type"],
            virtual["content-encoding"],
            virtual.get("headers") or {},
            {name: value for name, value in properties.items() if name not in ENVELOPE},
        )
        key = routed.get("routing_key") or queue
        channel.basic_publish(message, exchange=routed.get("exchange") or "", routing_key=key)

    def _on_ack(self, tag: int, multiple: bool) -> None:
        for each in [known for known in self._open if known <= tag] if multiple else [tag]:
            self._open.pop(each, None)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._refused += [post for known, post in self._open.items() if known == tag or (multiple and known < tag)]
        self._on_ack(tag, multiple)

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        self._declared.discard(routing_key)
        self._returned.add(routing_key)

    def _await_confirmations(self) -> None:
        deadline = monotonic() + CONFIRM_S
        while self._open and (remaining := deadline - monotonic()) > 0:
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=remaining)
        failed = [*self._refused, *self._open.values()]
        if failed:
            raise Unconfirmed(failed)


def shelve_post(store: Store, post: Post, error: Unreadable) -> None:
    """Put a plain message of which the broker can make none among the dead letters, instead of the outbox."""
    assert post.message is not None
    raw = post.message.encode(errors="surrogateescape")
    store.shelve(raw, queue=post.queue, lane=post.lane, words=str(error), outbox_name=post.name)


class Poster:
    """Publishes what the store says is due, from a thread.

    Args:
        store: of its own, since it waits there.
        outlet: to the broker.
        pause_s: after which a step that nobody has claimed is published again, doubling.
        queues: that the worker serves: what processes in fused mode have put into them is brought over.
        plain: whether plain messages are brought over too, since the broker is not the store's Redis.
    """

    def __init__(
        self, store: Store, outlet: Outlet, *, pause_s: float, queues: Callable[[], Sequence[str]], plain: bool
    ) -> None:
        self._store = store
        self._outlet = outlet
        self._queues = queues
        self._plain = plain
        self._relist_at = 0.0
        self._pause_ms = int(pause_s * 1000)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentq-poster", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; what is due then, another worker's publishes."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3.0)
        self._store.close()

    def _run(self) -> None:
        failures = 0
        posts: list[Post] = []
        while not self._stop.is_set():
            try:
                self._relist()
                posts = posts or self._store.publish(chunk=CHUNK, pause_ms=self._pause_ms)
                if posts:
                    self._publish(posts)
                    posts = []
                else:
                    self._store.await_posts(1.0)
                if failures:
                    logger.info("posting_again")
                failures = 0
            except Exception as error:
                if not failures:
                    logger.warning("posting_failed: %s: %s", type(error).__name__, error)
                failures += 1
                self._stop.wait(min(LONGEST_PAUSE_S, 0.1 * 2.0 ** min(failures, 8)))
        self._outlet.close()

    def _publish(self, posts: list[Post]) -> None:
        """Publish what can be; the rest comes again by itself. Raises only when the broker cannot be reached."""
        try:
            self._outlet.publish(posts)
        except Unconfirmed as error:
            logger.warning("not_confirmed: %s", error)
            posts = [post for post in posts if post not in error.posts]
        except Exception as error:
            if isinstance(error, UNREACHABLE):
                raise
            if len(posts) > 1:
                # One message, or the queue that it is for, must not hold up the others.
                for post in posts:
                    self._publish([post])
            else:
                self._give_up(posts[0], error)
            return
        self._store.confirm(posts)

    def _give_up(self, post: Post, error: Exception) -> None:
        """Put a plain message of which no message can be made among the dead letters; anything else comes again."""
        logger.warning("not_published name=%s queue=%s: %r", post.name, post.queue, error)
        if isinstance(error, Unreadable):
            shelve_post(self._store, post, error)

    def _relist(self) -> None:
        now = monotonic()
        if now < self._relist_at:
            return
        while moved := self._store.relist(self._queues(), plain=self._plain):
            logger.info("relisted moved=%d: there are processes in fused mode", moved)
        self._relist_at = now + RELIST_S
