"""A broker beside the store: RabbitMQ, and Redis by kombu's own transport. The same steps, the same records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from celery import chain

from tests.kit.broker import PrivateBroker
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess

FLOWS = "tests.projects.flows"
TIMEOUT = 60.0


class Site(NamedTuple):
    """A store, perhaps a broker, one worker of two children, and the flows' app in this process."""

    server: PrivateServer
    broker: PrivateBroker | None
    env: dict[str, str]
    worker: WorkerProcess
    flows: Any


def _start(
    broker: PrivateBroker | None, env: dict[str, str], make: Callable[..., WorkerProcess]
) -> tuple[PrivateServer, Site]:
    server = PrivateServer()
    server.start()
    worker = make(FLOWS, url=server.celery_url, env=env)
    worker.start()
    flows: ModuleType = load_module(FLOWS, url=server.celery_url, **env)
    worker.wait_ready()
    return server, Site(server, broker, env, worker, flows)


@pytest.fixture(scope="module", params=["split", "stock"])
def module_site(request: pytest.FixtureRequest, make_module_worker: Callable[..., WorkerProcess]) -> Iterator[Site]:
    """One site for the tests of this file that leave its worker alive."""
    broker = request.getfixturevalue("rabbitmq") if request.param == "split" else None
    env = {"AGENTQ_TRANSPORT": "stock"} if broker is None else {"AGENTQ_BROKER_URL": broker.url}
    server, site = _start(broker, {**env, "AGENTQ_REQUEUE_AFTER": "1s"}, make_module_worker)
    try:
        yield site
    finally:
        server.stop()


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    """The site, checked for leaked keys after each test."""
    module_site.flows.app.set_current()
    yield module_site
    check_leaks(module_site.server.client)


def test_a_chain_goes_on_through_the_broker(site: Site) -> None:
    flows = site.flows
    result = chain(flows.add.s(1, 2), flows.double.s(), flows.double_async.s()).apply_async()
    assert result.get(timeout=TIMEOUT) == 12
    assert site.server.client.zcard("agentq:1:unsent") == 0
    assert site.server.client.hgetall("agentq:1:queued") == {}


def test_the_effects_of_many_steps_come_once_each(site: Site, tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    results = [site.flows.noted.delay(str(noted), str(number)) for number in range(40)]
    for result in results:
        result.get(timeout=TIMEOUT)
    assert sorted(noted.read_text().split()) == sorted(str(number) for number in range(40))
