"""Connections at hand for scripts: sent on, read from, and put back, with nothing asked in between.

redis-py's client takes a lock, looks into the socket twice and wraps each command in its retries, which costs more than
the script. Here a command goes out once; whoever calls repeats it through the client when that fails.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import redis


class ReadyConnections:
    """The idle connections of one client, the last used one first.

    They belong to the client's pool and are closed with it. Any thread may call: one connection serves one at a time.
    """

    def __init__(self, client: Any) -> None:
        self._pool = client.connection_pool
        self._idle: deque[Any] = deque()

    def call(self, *command: Any) -> Any:
        """Return the reply to a command; raises what redis-py raises, a lost connection too, without a repeat."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._pool.get_connection()
        try:
            connection.send_command(*command)
            reply = connection.read_response()
        except redis.ResponseError:
            # The server's own words: the reply was read to its end.
            self._idle.append(connection)
            raise
        except BaseException:
            # Also a time limit that struck in between: the next one would read this one's reply.
            connection.disconnect()
            self._pool.release(connection)
            raise
        self._idle.append(connection)
        return reply
