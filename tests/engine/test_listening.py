"""Waits for results on a server that reads one connection later than another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Literal
from uuid import uuid4

import pytest
from celery import states

from agentq import AgentQ
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
