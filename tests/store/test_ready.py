"""Scripts go out on connections at hand: a lost one, an interrupted call, a forgotten script cost time alone."""

from __future__ import annotations

import socket
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from agentq.store import Store
from agentq.store import ready as ready_module
from agentq.store.ready import ReadyConnections
from tests.kit.server import PrivateServer


@pytest.fixture
def store(clean_server: PrivateServer) -> Store:
    """A store of its own, with no connection yet."""
    return Store(clean_server.url)


def commands(store: Store) -> int:
    """How many connections the server has, this question's included."""
    return len(store.client.client_list())


def test_one_connection_serves_call_after_call(store: Store) -> None:
    store.run_script("quote", "root", "run")
    before = commands(store)
    for _ in range(10):
        store.run_script("quote", "root", "run")
    assert commands(store) == before


def test_a_connection_that_the_server_has_closed_is_replaced(store: Store) -> None:
    store.ring("q", 6, "first")
    killer = Store(store.url).client
    killer.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    store.ring("q", 6, "second")
    assert store.client.llen(store.keys.lane("q", 6)) == 2
    store.client.flushdb()


def test_a_server_that_has_forgotten_the_scripts_gets_them_again(store: Store) -> None:
    store.run_script("quote", "root", "run")
    store.client.script_flush()
    assert store.run_script("quote", "root", "run") == b""


def test_after_an_interrupted_call_nobody_reads_its_reply(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit strikes between question and answer."""
    ready = ReadyConnections(store.client)
    assert ready.begin("ECHO", "one").read() == b"one"

    def struck(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ready_module, "read_reply", struck)
        with pytest.raises(KeyboardInterrupt):
            ready.begin("ECHO", "two").read()
    assert not ready._idle
    assert ready.begin("ECHO", "three").read() == b"three"


def test_threads_do_not_get_each_others_replies(store: Store) -> None:
    ready, wrong = ReadyConnections(store.client), []

    def ask(number: int) -> None:
        for turn in range(200):
            text = f"{number}/{turn}".encode()
            if ready.begin("ECHO", text).read() != text:
                wrong.append(text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a socket's time-outs are elsewhere Python's own")
def test_a_silent_server_is_given_up_in_time_without_a_poll_before_each_call(clean_server: PrivateServer) -> None:
    """The system watches over the time-out: what hangs is told of as before, and its connection is closed."""
    store = Store(clean_server.url, socket_timeout=0.3)
    reply = store.ready.begin("BRPOP", "nothing", 0)
    sock = reply._connection._sock
    assert sock.gettimeout() is None
    with pytest.raises(redis.TimeoutError):
        reply.read()
    assert sock.fileno() == -1
    assert store.query("ECHO", "next") == b"next"


def test_a_server_that_reads_nothing_is_given_up_in_time() -> None:
    """The sending ends, too: what a stopped server has not read fills its socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.3)
        ready_module._wait_in_kernel(SimpleNamespace(_sock=ours))
        with pytest.raises((TimeoutError, BlockingIOError)):
            ours.sendall(b"x" * 50_000_000)
