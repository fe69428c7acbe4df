"""Connections for scripts: how many there are, and who waits for one."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis

from agentq.store import ready as ready_module
from agentq.store.ready import LEFT, MOST, NoneFree, ReadyConnections, packed


class Line:
    """A connection whose replies come when the test says so."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def send_packed_command(self, _parts: Any) -> None:
        if self.pool.is_away:
            raise redis.ConnectionError("away")

    def read_response(self) -> bytes:
        self.pool.answers.wait(60)
        if self.pool.is_away:
            raise redis.ConnectionError("away")
        return b"ok"

    def disconnect(self) -> None:
        pass


class Pool:
    """A pool that counts its connections, as redis-py's does."""

    def __init__(self) -> None:
        self.connection_pool = self
        self.open = self.most = 0
        self.is_away = False
        self.answers = threading.Event()

    def get_connection(self) -> Line:
        self.open += 1
        self.most = max(self.most, self.open)
        return Line(self)

    def release(self, _line: Line) -> None:
        self.open -= 1


def test_hundreds_of_threads_share_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_module, "PATIENCE_S", 60.0)
    pool = Pool()
    ready = ReadyConnections(pool)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(ready.begin("PING").read())) for _ in range(300)]
    for thread in threads:
        thread.start()
    pool.answers.set()
    for thread in threads:
        thread.join(60)
    assert found == [b"ok"] * 300
    assert pool.most <= MOST


def test_lost_ones_make_room() -> None:
    pool = Pool()
    pool.answers.set()
    ready = ReadyConnections(pool)
    for is_away in (True, False) * MOST * 2:
        pool.is_away = is_away
        if is_away:
            with pytest.raises(redis.ConnectionError):
                ready.begin("PING").read()
        else:
            assert ready.begin("PING").read() == b"ok"
    pool.is_away = True
    held = []
    for _ in range(MOST):
        pool.is_away = False
        held.append(ready.begin("PING"))
    pool.is_away = True
    for each in held:
        with pytest.raises(redis.ConnectionError):
            each.read()
    assert pool.open == 0


def test_a_reply_that_nobody_reads_takes_its_connection_along() -> None:
    pool = Pool()
    pool.answers.set()
    ready = ReadyConnections(pool)
    ready.begin("PING")
    assert pool.open == 0
    assert ready.begin("PING").read() == b"ok"


def test_one_call_waits_for_a_free_one_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_module, "PATIENCE_S", 0.01)
    pool = Pool()
    pool.answers.set()
    ready = ReadyConnections(pool)
    held = [ready.begin("PING") for _ in range(MOST)]
    with pytest.raises(NoneFree) as refused:
        ready.begin("PING")
    assert refused.value.most == MOST
    assert [each.read() for each in held] == [b"ok"] * MOST
    assert ready.begin("PING").read() == b"ok"


def test_a_few_replies_may_be_left_while_their_threads_call_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_module, "PATIENCE_S", 0.01)
    pool = Pool()
    pool.answers.set()
    ready = ReadyConnections(pool)
    for _ in range(2):
        held = [ready.begin("PING") for _ in range(MOST)]
        assert [each.leave() for each in held] == [True] * LEFT + [False] * (MOST - LEFT)
        assert held[0].leave(), "asked twice"
        beside = [ready.begin("PING") for _ in range(LEFT)]
        with pytest.raises(NoneFree):
            ready.begin("PING")
        assert pool.open == MOST + LEFT
        assert [each.read() for each in (*held, *beside)] == [b"ok"] * (MOST + LEFT)
    left = ready.begin("PING")
    assert left.leave()
    pool.is_away = True
    with pytest.raises(redis.ConnectionError):
        left.read()
    pool.is_away = False
    held = [ready.begin("PING") for _ in range(LEFT)]
    assert all(each.leave() for each in held), "none of them is counted any more"


def test_commands_are_written_as_the_server_reads_them() -> None:
    assert (
        packed(("SET", b"k\xff", "é", 12, ""))
        == b"*5\r\n$3\r\nSET\r\n$2\r\nk\xff\r\n$2\r\n\xc3\xa9\r\n$2\r\n12\r\n$0\r\n\r\n"
    )
    assert packed(("SET", "k", 1.5)) is None, "left to redis-py"
