"""A connection on which one thread offers a step and hears of its result: the subscription travels with the offer.

Whoever asks one thing after the other, and waits for each, needs two messages to the server for it and two back. The
server subscribes before it records the step, so no result can be missed, and nothing has to be looked up.
"""

from __future__ import annotations

import os
from contextlib import suppress
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

import redis

from agentq.store.connection import StoreConnection
from agentq.store.ready import packed

MOST: Final = 16
"""Connections of this kind in a process; whoever comes later waits for results in Celery's way."""

_open: WeakSet[Caller] = WeakSet()


def _forget_parent() -> None:
    global _open
    _open = WeakSet()


os.register_at_fork(after_in_child=_forget_parent)

_GONE: Final = (redis.RedisError, OSError, AttributeError, TypeError, ValueError)
"""How a lost connection shows. One that another thread closes meanwhile has no socket or no buffer in mid-reading."""


class CannotListen(Exception):
    """The server, or who may do what there, lets nobody call on a connection that listens: it is not worth a retry."""


class Caller:
    """One thread's connection. Any error leaves it closed: what is on its way there belongs to nobody then."""

    def __init__(self, store: StoreConnection, connection: Any) -> None:
        self._store = store
        self._pool = store.client.connection_pool
        self._connection: Any = connection
        self._key: bytes | None = None
        self._pid = os.getpid()
        _open.add(self)

    @classmethod
    def open(cls, store: StoreConnection) -> Caller | None:
        """Return a new one; None where there are many, or the server is away. Raises CannotListen."""
        if len(_open) >= MOST:
            return None
        pool = store.client.connection_pool
        try:
            connection = pool.get_connection()
        except (redis.RedisError, OSError):
            return None
        try:
            if connection.protocol not in (3, "3"):
                raise CannotListen("the server does not speak RESP 3")
            # What is subscribed to comes as it is: the usual way writes each result into the log, for nobody.
            connection._parser.set_pubsub_push_handler(_as_it_is)
            return cls(store, connection)
        except BaseException as error:
            pool.release(connection)
            if isinstance(error, AttributeError | TypeError):
                raise CannotListen("this redis-py hands on nothing that comes unasked") from error
            raise

    @property
    def is_open(self) -> bool:
        """Whether it may be used: not in a child process, whose socket is its parent's."""
        return self._connection is not None and self._pid == os.getpid()

    def offer(self, task_id: str, *arguments: Any) -> Any:
        """Return what the script ``offer`` has answered; from then on what is published of that result is heard.

        None where no answer came: the script may have run or not. Raises CannotListen, of which the same is true.
        """
        before, self._key = self._key, self._store.keys.result(task_id).encode()
        commands = [("UNSUBSCRIBE", before)] if before is not None else []
        commands += [("SUBSCRIBE", self._key), self._store.scripts.command("offer", *arguments)]
        texts = [packed(command) for command in commands]
        try:
            self._connection.send_packed_command(texts)
            while not _is_reply(reply := self._connection.read_response(push_request=True)):
                pass
            if reply[0][1] == task_id.encode():
                return reply
            # It answers another call: what was told as recorded may not be.
            self.close()
            return None
        except redis.ResponseError as error:
            self.close()
            if _is_refusal(error):
                raise CannotListen(str(error)) from error
            return None
        except _GONE:
            self.close()
            return None
        except BaseException:
            self.close()
            raise

    def hear(self, task_id: str, seconds: float) -> bytes | None:
        """Return what is published of a result; None when nothing is in time, or it is not listened for here."""
        key, ends = self._store.keys.result(task_id).encode(), monotonic() + seconds
        try:
            while self._key == key and (left := ends - monotonic()) > 0:
                told = self._connection.read_response(push_request=True, timeout=left, disconnect_on_error=False)
                if isinstance(told, list) and told[:2] == [b"message", key]:
                    return bytes(told[2])
            return None
        except (redis.TimeoutError, TimeoutError):
            return None
        except _GONE:
            self.close()
            return None
        except BaseException:
            # An interrupt too: it may have come between the reading and the return.
            self.close()
            raise

    def leave(self) -> None:
        """Listen for nothing more: the server would keep for this connection what nobody reads."""
        key, self._key = self._key, None
        if key is None:
            return
        text = packed(("UNSUBSCRIBE", key))
        try:
            # The answer is passed over by the next offer.
            self._connection.send_packed_command([text], check_health=False)
        except _GONE:
            self.close()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection up; a second call does nothing."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        _open.discard(self)
        with suppress(*_GONE):
            connection.disconnect()
        if self._pid == os.getpid():
            self._pool.release(connection)

    def __del__(self) -> None:
        # With its thread; at the end of the process parts of what it calls may be gone.
        with suppress(Exception):
            self.close()


def _as_it_is(response: Any) -> Any:
    return response


def _is_reply(read: Any) -> bool:
    """Tell a script's answer from what comes unasked, which is a list that begins with a word.

    redis-py makes None of what its own business is, as that a server moves: to take that for the answer would leave
    the answer to the next call.
    """
    return isinstance(read, list) and bool(read) and isinstance(read[0], list)


def _is_refusal(error: redis.ResponseError) -> bool:
    """Tell whether the same commands are refused the next time too, other than by a server that has been restarted."""
    return isinstance(error, redis.exceptions.NoPermissionError) or str(error).lower().startswith("unknown command")
