"""Waits for results on a server that reads one connection later than another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Literal
from uuid import uuid4

import pytest
from celery import states

from agentq import AgentQ
from agentq.store import ears
from tests.kit.projects import close_apps
from tests.kit.proxy import Call, Proxy
from tests.kit.server import PrivateServer

TIMEOUT = 10.0
AHEAD = 0.5
"""A look that does not wait for the subscription comes within so many seconds."""


@pytest.fixture
def proxy(clean_server: PrivateServer) -> Iterator[Proxy]:
    proxy = Proxy(clean_server.socket, clean_server.folder / "late", {})
    proxy.start()
    yield proxy
    close_apps(proxy.celery_url)
    proxy.close()


@pytest.fixture
def app(proxy: Proxy) -> Iterator[Any]:
    app = AgentQ("waits", broker=proxy.celery_url, backend=proxy.celery_url, set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def elsewhere(clean_server: PrivateServer) -> Iterator[Any]:
    """An app at the server itself, as a worker's."""
    app = AgentQ("stores", broker=clean_server.celery_url, backend=clean_server.celery_url, set_as_current=False)
    yield app
    app.close()


def looks(proxy: Proxy) -> int:
    return sum(number for (_, name), number in proxy.counts.items() if name in ("GET", "MGET"))


@pytest.mark.parametrize("together", [False, True], ids=["one", "several"])
def test_a_result_that_comes_before_the_server_reads_its_subscription_is_not_missed(
    proxy: Proxy, app: Any, elsewhere: Any, together: bool
) -> None:
    """It finds a look and a subscription waiting, answers the look, runs the step's commit, and then subscribes."""
    names = [str(uuid4()) for _ in range(2 if together else 1)]

    def late(_: Call) -> Literal["pass"]:
        before, ends = looks(proxy), time.monotonic() + AHEAD
        while looks(proxy) == before and time.monotonic() < ends:
            time.sleep(0.01)
        for name in names:
            elsewhere.backend.store_result(name, 7, states.SUCCESS)
        return "pass"

    results = [app.AsyncResult(name) for name in names]
    trap = proxy.trap(["SUBSCRIBE"], "before", late)
    if together:
        assert app.ResultSet(results).get(timeout=TIMEOUT) == [7, 7]
    else:
        assert results[0].get(timeout=TIMEOUT) == 7
    assert trap.done.is_set()


def test_a_result_that_comes_while_a_lost_subscription_is_made_anew_is_not_missed(
    proxy: Proxy, app: Any, elsewhere: Any
) -> None:
    first, second = str(uuid4()), str(uuid4())
    elsewhere.backend.store_result(first, 1, states.SUCCESS)
    assert app.AsyncResult(first).get(timeout=TIMEOUT) == 1, "the subscription is there"

    def later(_: Call) -> Literal["pass"]:
        elsewhere.backend.store_result(second, 2, states.SUCCESS)
        return "pass"

    def lost(_: Call) -> Literal["cut"]:
        # Celery looks, and subscribes then, on a new connection.
        proxy.trap(["SUBSCRIBE"], "before", later)
        return "cut"

    trap = proxy.trap(["SUBSCRIBE"], "before", lost)
    assert app.AsyncResult(second).get(timeout=TIMEOUT) == 2
    assert trap.done.is_set()


class Leaving(set[Any]):
    """A set from which another thread takes a key while one is taken here."""

    def pop(self) -> Any:
        found = super().pop()
        self.clear()
        return found


def test_a_result_may_go_while_another_thread_subscribes(app: Any) -> None:
    consumer = app.backend.result_consumer
    consumer._wanted = Leaving(consumer._get_key_for_task(str(uuid4())) for _ in range(2))
    consumer._subscribe(looked_at=set())
    assert len(consumer.subscribed_to) == 1


def listen(app: Any, elsewhere: Any) -> None:
    """Wait for an outcome that is there, however long that takes on a slow machine."""
    name = str(uuid4())
    elsewhere.backend.store_result(name, 7, states.SUCCESS)
    assert app.store.wait_outcome(name, None)["result"] == 7


@pytest.fixture
def held(proxy: Proxy, app: Any, elsewhere: Any) -> Iterator[Any]:
    """A kept subscription on whose connection nothing comes any more, as if what lies between had forgotten it."""
    listen(app, elsewhere)
    assert len(app.store.ears._idle) == 1
    released = threading.Event()

    def hold(_: Call) -> Literal["pass"]:
        released.wait(60)
        return "pass"

    yield proxy.trap(["SUBSCRIBE"], "before", hold)
    released.set()


def test_a_kept_subscription_that_is_silent_is_made_anew(
    held: Any, app: Any, elsewhere: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ears, "KEPT_S", 0.2)
    name = str(uuid4())
    elsewhere.backend.store_result(name, 7, states.SUCCESS)
    assert app.store.wait_outcome(name, None)["result"] == 7
    assert not held.done.is_set()


@pytest.mark.parametrize("is_there", [True, False], ids=["there", "not there"])
def test_a_time_out_is_kept_where_a_subscription_is_silent(held: Any, app: Any, elsewhere: Any, is_there: bool) -> None:
    name = str(uuid4())
    if is_there:
        elsewhere.backend.store_result(name, 7, states.SUCCESS)
    found = app.store.wait_outcome(name, 0.3)
    assert (found["result"] if found else None) == (7 if is_there else None)
    assert not held.done.is_set()


def test_a_subscription_that_was_idle_for_long_is_not_used_again(
    app: Any, elsewhere: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ears, "KEPT_S", 30.0)
    listen(app, elsewhere)
    (before,) = app.store.ears._idle
    listen(app, elsewhere)
    assert list(app.store.ears._idle) == [before]
    monkeypatch.setattr(ears, "IDLE_S", 0.0)
    listen(app, elsewhere)
    assert before not in app.store.ears._idle
