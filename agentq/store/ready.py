"""Connections at hand for scripts: sent on, read from, and put back, with nothing asked in between.

redis-py's client takes a lock, looks into the socket twice and wraps each command in its retries, which costs more than
the script. Here a command goes out once; whoever calls repeats it through the client when that fails.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

import redis

from agentq.store.quick_reply import read_reply

MOST: Final = 16
"""Connections of a process: the server does one thing at a time, and so does the interpreter."""

LEFT: Final = 8
"""Connections beside them whose replies may be read later: who holds one may need another before it reads this one."""

PATIENCE_S: Final = 1.0
"""So long a call waits for a connection; then redis-py's own pool is asked for one."""


class NoneFree(redis.RedisError):
    """All connections have been in use for so long that the call is to go another way."""

    def __init__(self, most: int, waited_s: float) -> None:
        super().__init__(f"none of {most} connections became free within {waited_s:g} s")
        self.most = most
        self.waited_s = waited_s


class Reply:
    """What is still to be read on a connection, once; until then nobody else has it."""

    __slots__ = ("_connection", "_is_left", "_owner")

    def __init__(self, owner: ReadyConnections, connection: Any) -> None:
        self._owner = owner
        self._connection = connection
        self._is_left = False

    def __del__(self) -> None:
        # A time limit may strike between the two: the next one would read this one's reply.
        if self._connection is not None:
            self._owner.give_up(self._connection, was_left=self._is_left)

    def leave(self) -> bool:
        """Tell whether it may be read later, behind other calls; False: it is to be read now."""
        self._is_left = self._is_left or self._owner.leave_one()
        return self._is_left

    def read(self) -> Any:
        """Return it; raises what redis-py raises, a lost connection too, without a repeat."""
        connection = self._connection
        try:
            reply = read_reply(connection)
        except redis.ResponseError:
            # The server's own words: the reply was read to its end.
            self._connection = None
            self._owner.put_back(connection, was_left=self._is_left)
            raise
        except BaseException:
            self._connection = None
            self._owner.give_up(connection, was_left=self._is_left)
            raise
        self._connection = None
        self._owner.put_back(connection, was_left=self._is_left)
        return reply


class ReadyConnections:
    """The idle connections of one client, the last used one first.

    They belong to the client's pool and are closed with it. Any thread may call: one connection serves one at a time.
    Where hundreds of threads call at once, they wait for one another: redis-py's pool would refuse those beyond its
    hundred connections, each would come again after a pause that doubles, and each connection costs a greeting. None
    waits for ever: a call that finds none free in a while goes through that pool after all.
    """

    def __init__(self, client: Any) -> None:
        self._pool = client.connection_pool
        self._idle: deque[Any] = deque()
        self._open = 0
        self._left = 0
        self._waiting = 0
        self._change = threading.Condition()

    def begin(self, *command: Any) -> Reply:
        """Send a command; raises what redis-py raises, a lost connection too, without a repeat, and NoneFree."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._next()
        try:
            text = packed(command)
            if text is None:
                connection.send_command(*command)
            else:
                connection.send_packed_command((text,))
        except BaseException:
            self.give_up(connection)
            raise
        return Reply(self, connection)

    def leave_one(self) -> bool:
        """Count one more connection as left, beside the others; False where as many are as may be."""
        with self._change:
            if self._left >= LEFT:
                return False
            self._left += 1
            self._change.notify()
            return True

    def put_back(self, connection: Any, *, was_left: bool = False) -> None:
        """Let the next one have a connection on which nothing is to be read any more."""
        if was_left:
            with self._change:
                self._left -= 1
        self._idle.append(connection)
        # Who waits has said so before it looked: one that comes now finds what was put back.
        if self._waiting:
            with self._change:
                self._change.notify()

    def give_up(self, connection: Any, *, was_left: bool = False) -> None:
        """Close a connection: what would be read on it belongs to nobody."""
        try:
            connection.disconnect()
            self._pool.release(connection)
        finally:
            self._closed_one(was_left=was_left)

    def _next(self) -> Any:
        until = monotonic() + PATIENCE_S
        with self._change:
            self._waiting += 1
            try:
                while self._open - self._left >= MOST:
                    with suppress(IndexError):
                        return self._idle.pop()
                    if (left_s := until - monotonic()) <= 0:
                        raise NoneFree(MOST, PATIENCE_S)
                    self._change.wait(left_s)
                self._open += 1
            finally:
                self._waiting -= 1
        try:
            connection = self._pool.get_connection()
        except BaseException:
            self._closed_one()
            raise
        _wait_in_kernel(connection)
        return connection

    def _closed_one(self, *, was_left: bool = False) -> None:
        with self._change:
            self._open -= 1
            self._left -= was_left
            self._change.notify()


def _wait_in_kernel(connection: Any) -> None:
    """Have the system watch over a socket's time-out, instead of Python, which polls before each send and each read.

    A time-out is then a BlockingIOError. TLS, and sockets that a library has put in the place of Python's own, stay as
    they are; so does the one that redis-py opens by itself after a connection was lost.
    """
    sock: Any = getattr(connection, "_sock", None)
    if not sys.platform.startswith("linux") or type(sock) is not _PLAIN:
        return
    seconds = sock.gettimeout()
    if not seconds:
        return
    whole = int(seconds)
    # Of zero the system would make: for ever.
    limit = struct.pack("@ll", whole, max(int((seconds - whole) * 1e6), 0 if whole else 1))
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.settimeout(None)


def _plain_socket() -> Any:
    # gevent and eventlet put classes of their own there, in which a wait must not stop the thread.
    return socket.socket if socket.socket.__module__ == "socket" else None


_PLAIN: Final[Any] = _plain_socket()


def packed(command: Sequence[Any]) -> bytes | None:
    """Return a command as the server reads it; None where it holds what redis-py is to put into words."""
    parts = [b"*%d\r\n" % len(command)]
    for each in command:
        kind = type(each)
        if kind is str:
            part = each.encode()
        elif kind is bytes:
            part = each
        elif kind is int:
            part = b"%d" % each
        else:
            return None
        parts.append(b"$%d\r\n%b\r\n" % (len(part), part))
    return b"".join(parts)
