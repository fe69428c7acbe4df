"""An application without the agents' code starts, follows and signals runs by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentq import AgentQ, AgentqError
from tests.kit.leaks import check_leaks
from tests.kit.projects import close_app, environment, load_module
from tests.kit.sample import TIMEOUT
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess


@pytest.fixture(scope="module")
def serving(module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]) -> PrivateServer:
    """A server whose worker has announced the flows' agents."""
    start_module_worker("tests.projects.flows", url=module_server.celery_url)
    return module_server


@pytest.fixture
def remote(serving: PrivateServer) -> Iterator[Any]:
    """An app that knows nothing but the address."""
    with environment(AGENTQ_REDIS_URL=serving.celery_url):
        app = AgentQ("remote")
        app.finalize()
        assert app.store is not None
    yield app
    check_leaks(serving.client)
    close_app(app)


def queued(server: PrivateServer) -> int:
    """Return how many records of steps there are."""
    return sum(1 for _ in server.client.scan_iter(match="*:step:*"))


def test_a_run_is_started_by_name(remote: Any) -> None:
    handle = remote.agents["fan"].start(4)
    assert handle.get(timeout=TIMEOUT) == 12
    assert remote.runs.get(handle.id).status() == "succeeded"


def test_options_are_those_of_any_agent(remote: Any) -> None:
    fan = remote.agents["fan"].using(key="the-same", tenant="acme", priority="high")
    first, second = fan.start(5), fan.start(5)
    assert first.id == second.id
    assert first.get(timeout=TIMEOUT) == 20


def test_a_run_is_followed_by_name(remote: Any) -> None:
    handle = remote.agents["fan"].start(3)
    kinds = [event.kind for event in handle.events()]
    assert len(kinds) >= 2
    offsets = [event.offset for event in handle.events()]
    assert offsets == sorted(offsets)
    assert [event.kind for event in handle.events(after=offsets[-2])] == kinds[-1:]


def test_a_run_is_signalled_by_name(remote: Any) -> None:
    handle = remote.agents["waiting"].start()
    handle.signal("go", "by name")
    assert handle.get(timeout=TIMEOUT) == "by name"


def test_a_run_is_answered_by_name(remote: Any) -> None:
    handle = remote.agents["approve"].start(600.0)
    ask = wait_until(lambda: remote.asks.list(run_id=handle.id), description="the question is asked")[0]
    assert ask.question == "Publish?"
    remote.asks.answer(ask.ask_id, True)
    assert handle.get(timeout=TIMEOUT) is True


def test_a_run_is_cancelled_by_name(remote: Any) -> None:
    handle = remote.agents["waiting"].start()
    wait_until(lambda: handle.status() == "parked", description="the run is parked")
    handle.cancel("no longer wanted")
    with pytest.raises(AgentqError, match=handle.id):
        handle.get(timeout=TIMEOUT)
    assert handle.status() == "cancelled"


def test_an_unknown_name_is_refused_at_once(remote: Any, serving: PrivateServer) -> None:
    before = queued(serving)
    with pytest.raises(AgentqError, match="fann"):
        remote.agents["fann"].start(3)
    assert queued(serving) == before


@pytest.mark.parametrize(
    ("args", "kwargs", "parameter"),
    [
        (("three",), {}, "limit"),
        ((), {}, "limit"),
        ((1, 2), {}, "fan"),
        ((), {"limit": 1, "colour": "red"}, "colour"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    remote: Any, serving: PrivateServer, args: tuple[Any, ...], kwargs: dict[str, Any], parameter: str
) -> None:
    before = queued(serving)
    with pytest.raises(AgentqError, match=parameter):
        remote.agents["fan"].start(*args, **kwargs)
    assert queued(serving) == before


def test_the_owner_of_the_code_is_refused_the_same_way(serving: PrivateServer) -> None:
    flows = load_module("tests.projects.flows", url=serving.celery_url)
    before = queued(serving)
    with pytest.raises(AgentqError, match="limit"):
        flows.fan.start("three")
    with pytest.raises(AgentqError, match="number"):
        flows.double.delay("three")
    with pytest.raises(AgentqError, match="number"):
        flows.double.apply_async(("three",))
    assert queued(serving) == before
