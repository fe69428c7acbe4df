"""Scripts go out on connections at hand: a lost one, an interrupted call, a forgotten script cost time alone."""

from __future__ import annotations

import threading
from typing import Any

import pytest

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
