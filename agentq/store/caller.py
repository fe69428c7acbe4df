"""A connection on which one thread offers a step and hears of its result: the subscription travels with the offer.

Whoever asks one thing after the other, and waits for each, needs two messages to the server for it and two back. The
server subscribes before it records the step, so no result can be missed, and nothing has to be looked up.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any, Final

import redis

from agentq.store.connection import StoreConnection
from agentq.store.ready import packed

MOST: Final = 16
"""Connections of this kind in a process; whoever comes later waits for results in Celery's way."""

_counted = threading.Lock()
_open = 0


def _forget_parent() -> None:
    global _counted, _open
    _counted, _open = threading.Lock(), 0


os.register_at_fork(after_in_child=_forget_parent)


class Caller:
    """One thread's connection. Any error leaves it closed: what is on its way there belongs to nobody then."""

    def __init__(self, store: StoreConnection, connection: Any) -> None:
        self._store = store
        self._pool = store.client.connection_pool
        self._connection: Any = connection
        self._key: bytes | None = None
        self._pid = os.getpid()

    @classmethod
    def open(cls, store: StoreConnection) -> Caller | None:
        """Return a new one; None where there are many, or the server cannot speak on a connection that listens."""
        global _open
        with _counted:
            if _open >= MOST:
                return None
            _open += 1
        connection = None
        try:
            connection = store.client.connection_pool.get_connection()
            if connection.protocol in (3, "3"):
                # What is subscribed to comes as it is: the usual way writes each result into the log, for nobody.
                connection._parser.set_pubsub_push_handler(_as_it_is)
                return cls(store, connection)
        except (redis.RedisError, AttributeError, TypeError):
            pass
        with _counted:
            _open -= 1
        if connection is not None:
            store.client.connection_pool.release(connection)
        return None

    @property
    def is_open(self) -> bool:
        """Whether it may be used."""
        return self._connection is not None

    def offer(self, key: str, *arguments: Any) -> Any:
        """Return what the script ``offer`` has answered; from then on what is published under ``key`` is heard.

        None where no answer came: the script may have run or not.
        """
        before, self._key = self._key, key.encode()
        commands = [("UNSUBSCRIBE", before)] if before is not None else []
        commands += [("SUBSCRIBE", self._key), self._store.scripts.command("offer", *arguments)]
        texts = [packed(command) for command in commands]
        try:
            self._connection.send_packed_command(texts)
            while True:
                reply = self._connection.read_response(push_request=True)
                if not _is_told(reply):
                    return reply
        except (redis.RedisError, OSError):
            self.close()
            return None
        except BaseException:
            self.close()
            raise

    def hear(self, seconds: float) -> bytes | None:
        """Return what is published under the last offer's key; None when nothing is in time, or that is lost."""
        try:
            while True:
                told = self._connection.read_response(push_request=True, timeout=seconds, disconnect_on_error=False)
                if told[0] == b"message" and told[1] == self._key:
                    return bytes(told[2])
        except (redis.TimeoutError, TimeoutError):
            return None
        except (redis.RedisError, OSError):
            self.close()
            return None
        except BaseException:
            # An interrupt too: it may have come between the reading and the return.
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up; a second call does nothing."""
        global _open
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with suppress(redis.RedisError, OSError):
            connection.disconnect()
        if self._pid == os.getpid():
            self._pool.release(connection)
            with _counted:
                _open -= 1

    def __del__(self) -> None:
        # With its thread.
        self.close()


def _as_it_is(response: Any) -> Any:
    return response


def _is_told(reply: Any) -> bool:
    return bool(reply) and reply[0] in (b"subscribe", b"unsubscribe", b"message")
