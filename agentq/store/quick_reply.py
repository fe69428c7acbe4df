"""Reads a script's reply from a connection of redis-py, at a fifth of what redis-py's own reader takes.

That one asks its buffer for each line by several calls. Here what has come by one read is looked through at once; what
not whole then, or neither a list, a number, nor text (an error, a push), is left to redis-py, with all that came.
"""

from __future__ import annotations

import io
from typing import Any, Final

import redis

AT_ONCE: Final = 65_536
"""Bytes of one read: eight messages of steps, or some hundred lines of a log."""


class _Other(Exception):
    """What has come is redis-py's to read."""


def read_reply(connection: Any) -> Any:
    """Return what a command on a connection has brought; raises what redis-py raises."""
    buffer = _empty_buffer(connection)
    if buffer is None:
        return connection.read_response()
    try:
        came: bytes = connection._sock.recv(AT_ONCE)
    except (TimeoutError, BlockingIOError) as error:
        raise redis.TimeoutError("Timeout reading from socket") from error
    except OSError as error:
        raise redis.ConnectionError(f"Error while reading from socket: {error.args}") from error
    if not came:
        raise redis.ConnectionError("Connection closed by server.")
    try:
        reply, end = _read(came, 0)
        if end == len(came):
            return reply
    except (_Other, IndexError, ValueError):
        pass
    # It reads from its place in the buffer, which is the end of an empty one.
    at = buffer.tell()
    buffer.seek(0, io.SEEK_END)
    buffer.write(came)
    buffer.seek(at)
    return connection.read_response()


def _empty_buffer(connection: Any) -> io.BytesIO | None:
    """Return where redis-py keeps what it has read; None where it holds something, or is made otherwise."""
    found = getattr(getattr(getattr(connection, "_parser", None), "_buffer", None), "_buffer", None)
    if not isinstance(found, io.BytesIO) or getattr(connection, "_sock", None) is None:
        return None
    return found if found.tell() == found.getbuffer().nbytes else None


def _read(came: bytes, at: int) -> tuple[Any, int]:
    """Return what stands at a place, and where the next begins; raises where it does not end within what has come."""
    end = came.index(b"\r\n", at)
    kind, behind = came[at], end + 2
    if kind == _NUMBER:
        return int(came[at + 1 : end]), behind
    if kind == _TEXT:
        size = int(came[at + 1 : end])
        if size < 0:
            return None, behind
        stop = behind + size
        # Its line's end belongs to it: without that there is more to come.
        if came[stop : stop + 2] != b"\r\n":
            raise _Other
        return came[behind:stop], stop + 2
    if kind == _LIST:
        parts = []
        for _ in range(int(came[at + 1 : end])):
            part, behind = _read(came, behind)
            parts.append(part)
        return parts, behind
    if kind == _NONE:
        return None, behind
    raise _Other


_NUMBER, _TEXT, _LIST, _NONE = b":$*_"
