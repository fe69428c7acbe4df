"""Replies are read as redis-py reads them, whatever they are and in however many pieces they come."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from agentq.store.quick_reply import AT_ONCE, read_reply
from tests.kit.server import PrivateServer

SCRIPTS = [
    "return {1}",
    "return {}",
    "return false",
    "return 'text'",
    "return ''",
    "return {1, {'a', 'bb'}, -7, false, '', {{}}}",
    "return redis.status_reply('OK')",
    "return redis.error_reply('NOSCRIPT none')",
    "return {1, redis.error_reply('WRONG')}",
    "redis.setresp(3) return {double = 1.5}",
    "redis.setresp(3) return {map = {a = 'b'}}",
    f"return {{1, string.rep('m', {3 * AT_ONCE}), 2}}",
    f"return string.rep('\\r\\n', {AT_ONCE})",
]


def outcome(read: Any) -> Any:
    try:
        return read()
    except redis.RedisError as error:
        return type(error), str(error)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda each: each[:40])
@pytest.mark.parametrize("protocol", [2, 3])
def test_it_reads_what_redis_py_reads(clean_server: PrivateServer, script: str, protocol: int) -> None:
    client = redis.Redis.from_url(clean_server.url, protocol=protocol)
    connection: Any = client.connection_pool.get_connection()
    found = []
    for read in (connection.read_response, lambda: read_reply(connection)):
        connection.send_command("EVAL", script, 0)
        found.append(repr(outcome(read)))
    # Nothing is left over, and nothing was taken from what comes next.
    connection.send_command("ECHO", "next")
    assert read_reply(connection) == b"next"
    assert found[0] == found[1]
    client.close()


def test_a_server_that_hangs_up_and_one_that_is_silent(clean_server: PrivateServer) -> None:
    client = redis.Redis.from_url(clean_server.url, socket_timeout=0.2)
    connection: Any = client.connection_pool.get_connection()
    connection.send_command("BRPOP", "nothing", 0)
    with pytest.raises(redis.TimeoutError):
        read_reply(connection)
    connection.disconnect()
    connection.connect()
    connection.send_command("CLIENT", "ID")
    own = read_reply(connection)
    redis.Redis.from_url(clean_server.url).execute_command("CLIENT", "KILL", "ID", own)
    with pytest.raises(redis.ConnectionError):
        read_reply(connection)
    client.close()


def test_a_reply_in_pieces(clean_server: PrivateServer) -> None:
    """What has come is not whole: the rest is waited for."""

    class Pieces:
        """A socket that gives a few bytes at a time."""

        def __init__(self, real: Any) -> None:
            self._real = real

        def recv(self, size: int) -> Any:
            time.sleep(0)
            return self._real.recv(min(size, 3))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    client = redis.Redis.from_url(clean_server.url)
    connection: Any = client.connection_pool.get_connection()
    connection._sock = connection._parser._buffer._sock = Pieces(connection._sock)
    for _ in range(2):
        connection.send_command("EVAL", "return {1, 'a text of some length', {2, false}}", 0)
        assert read_reply(connection) == [1, b"a text of some length", [2, None]]
    client.close()
