"""Subscriptions that stay open: who waits for one outcome after the other does not connect anew for each.

They own when a channel is subscribed to and taken back; what is said there is the caller's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis

KEPT: Final = 50
"""So many channels on which nothing comes any more stay subscribed to: they cost the server a name each, and to take
each back by itself a message and the reading of its answer."""

IDLE: Final = 4
"""So many subscriptions stay open when nobody listens: more threads than that seldom wait at once."""

IDLE_S: Final = 30.0
"""One that was idle for longer is not used again: a firewall or a balancer on the way may have forgotten it."""

KEPT_S: Final = 2.0
"""One that stayed open and says nothing for so long is taken for lost, and another is opened."""

FRESH_S: Final = 30.0
"""A server that does not answer a new one within so many seconds is away."""


class Ear:
    """One subscription; a single thread has it at a time."""

    def __init__(self, client: Any) -> None:
        self._pubsub = client.pubsub()
        self._past: list[str] = []
        self.left_at: float | None = None
        """Since when nobody listens; None for a new one."""

    def listen(self, channel: str, seconds: float) -> bool:
        """What is published on the channel from now on is heard; False: the server has not said so in time."""
        ends = time.monotonic() + seconds
        if channel in self._past:
            self._past.remove(channel)
        self._pubsub.subscribe(channel)
        if len(self._past) >= KEPT:
            self._pubsub.unsubscribe(*self._past)
            self._past.clear()
        # The server reads other connections in the order that it likes: a look at what is there already, on one of
        # those, may be answered before this one is known.
        while (left := ends - time.monotonic()) > 0:
            said = self._pubsub.get_message(timeout=left)
            if said is not None and said["type"] == "subscribe" and said["channel"] == channel.encode():
                return True
        return False

    def hear(self, channel: str, seconds: float) -> bytes | None:
        """Return what is said on the channel within so many seconds; None: nothing was."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            said = self._pubsub.get_message(timeout=left)
            if said is not None and said["type"] == "message" and said["channel"] == channel.encode():
                heard: bytes = said["data"]
                return heard
        return None

    def leave(self, channel: str, *, is_silent: bool) -> None:
        """The channel is of no interest any more; one on which more may come is taken back at once."""
        if is_silent:
            self._past.append(channel)
        else:
            self._pubsub.unsubscribe(channel)
        self.left_at = time.monotonic()

    def close(self) -> None:
        """Nothing is subscribed to any more."""
        self._pubsub.close()


class Heard:
    """A channel that is listened to.

    Attributes:
        is_over: set by whoever knows that nothing more comes on it.
    """

    def __init__(self, ear: Ear, channel: str) -> None:
        self._ear = ear
        self._channel = channel
        self.is_over = False

    def hear(self, seconds: float) -> bytes | None:
        """Return what is said next; None: nothing was within so many seconds."""
        return self._ear.hear(self._channel, seconds)


class Ears:
    """The subscriptions of one client; any thread may call."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._idle: deque[Ear] = deque()

    @contextmanager
    def on(self, channel: str, seconds: float | None) -> Iterator[Heard | None]:
        """Yield what hears what is published on the channel; None: there is none within so many seconds.

        Raises what redis-py raises.
        """
        ends = None if seconds is None else time.monotonic() + seconds
        ear = self._opened(channel, ends)
        if ear is None:
            yield None
            return
        heard = Heard(ear, channel)
        try:
            yield heard
            ear.leave(channel, is_silent=heard.is_over)
        except BaseException:
            # What it would hear next is not known.
            ear.close()
            raise
        if len(self._idle) < IDLE:
            self._idle.append(ear)
        else:
            ear.close()

    def _opened(self, channel: str, ends: float | None) -> Ear | None:
        """Return an ear whose subscription the server has confirmed; None: the time is over."""
        while ends is None or time.monotonic() < ends:
            try:
                ear = self._idle.pop()
            except IndexError:
                ear = Ear(self._client)
            if ear.left_at is not None and time.monotonic() - ear.left_at > IDLE_S:
                ear.close()
                continue
            limit = FRESH_S if ear.left_at is None else KEPT_S
            left = limit if ends is None else min(ends - time.monotonic(), limit)
            try:
                if ear.listen(channel, left):
                    return ear
            except BaseException:
                ear.close()
                raise
            ear.close()
            if ear.left_at is None and left >= limit:
                raise redis.TimeoutError(f"the server did not confirm a subscription within {limit:.0f} s")
        return None
