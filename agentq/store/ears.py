"""Subscriptions that stay open: who waits for one outcome after the other does not connect anew for each.

They own when a channel is subscribed to and taken back; what is said there is the caller's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

KEPT: Final = 50
"""So many channels on which nothing comes any more stay subscribed to: they cost the server a name each, and to take
each back by itself a message and the reading of its answer."""

IDLE: Final = 4
"""So many subscriptions stay open when nobody listens: more threads than that seldom wait at once."""


class Ear:
    """One subscription; a single thread has it at a time."""

    def __init__(self, client: Any) -> None:
        self._pubsub = client.pubsub()
        self._past: list[str] = []

    def listen(self, channel: str) -> None:
        """What is published on the channel from now on is heard."""
        if channel in self._past:
            self._past.remove(channel)
        self._pubsub.subscribe(channel)
        if len(self._past) >= KEPT:
            self._pubsub.unsubscribe(*self._past)
            self._past.clear()
        # The server reads other connections in the order that it likes: a look at what is there already, on one of
        # those, may be answered before this one is known.
        while True:
            said = self._pubsub.get_message(timeout=None)
            if said is not None and said["type"] == "subscribe" and said["channel"] == channel.encode():
                return

    def hear(self, channel: str, seconds: float) -> bytes | None:
        """Return what is said on the channel within so many seconds; None: nothing was."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            said = self._pubsub.get_message(timeout=left)
            if said is not None and said["type"] == "message" and said["channel"] == channel.encode():
                heard: bytes = said["data"]
                return heard
        return None

    def leave(self, channel: str) -> None:
        """The channel is of no interest any more."""
        self._past.append(channel)

    def close(self) -> None:
        """Nothing is subscribed to any more."""
        self._pubsub.close()


class Ears:
    """The subscriptions of one client; any thread may call."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._idle: deque[Ear] = deque()

    @contextmanager
    def on(self, channel: str) -> Iterator[Ear]:
        """Yield an ear that hears what is published on the channel; raises what redis-py raises."""
        try:
            ear = self._idle.pop()
        except IndexError:
            ear = Ear(self._client)
        try:
            ear.listen(channel)
            yield ear
        except BaseException:
            # What it would hear next is not known.
            ear.close()
            raise
        ear.leave(channel)
        if len(self._idle) < IDLE:
            self._idle.append(ear)
        else:
            ear.close()
