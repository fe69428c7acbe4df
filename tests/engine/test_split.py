"""A broker beside the store: RabbitMQ, and Redis by kombu's own transport. The same steps, the same records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from celery import Celery, chain

from tests.kit.broker import PrivateBroker
from tests.kit.leaks import check_leaks
from tests.kit.mode import settings_of
from tests.kit.projects import load_module
from tests.kit.sample import lines, wait_for_lines
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
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
    # What comes first is looked at here; the lowest lane's share is chance.
    env = {**settings_of(request.param, broker), "AGENTQ_LOW_SHARE": "1000"}
    server, site = _start(broker, env, make_module_worker)
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
    assert site.server.client.zcard(site.flows.app.store.keys.of("unsent")) == 0
    assert site.server.client.hgetall(site.flows.app.store.keys.of("queued")) == {}


def test_the_effects_of_many_steps_come_once_each(site: Site, tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    results = [site.flows.noted.delay(str(noted), str(number)) for number in range(40)]
    for result in results:
        result.get(timeout=TIMEOUT)
    assert sorted(noted.read_text().split()) == sorted(str(number) for number in range(40))


def test_a_limit_and_a_budget_hold_through_the_broker(site: Site, tmp_path: Path) -> None:
    flows, path = site.flows, tmp_path / "narrow"
    results = [flows.narrow.delay(str(path), str(number)) for number in range(10)]
    assert sorted(result.get(timeout=TIMEOUT) for result in results) == [str(number) for number in range(10)]
    noted = path.read_text().split()
    assert [line[0] for line in noted] == ["+", "-"] * 10, "two ran at once"
    assert flows.wrap.start(10).get(timeout=TIMEOUT) == 45


def test_an_agent_asks_waits_and_fans_out(site: Site) -> None:
    flows = site.flows
    assert flows.fan.start(10).get(timeout=TIMEOUT) == 90
    handle = flows.approve.start(600.0)
    ask = wait_until(lambda: flows.app.asks.list(run_id=handle.id), description="the question is asked")[0]
    wait_until(lambda: str(handle.status()) == "parked", description="the run waits for nobody's worker")
    assert site.server.client.zcard(site.flows.app.store.keys.of("unsent")) == 0
    assert flows.app.asks.answer(ask.ask_id, True)
    assert handle.get(timeout=TIMEOUT) is True
    assert flows.nap.start(0.3).get(timeout=TIMEOUT) >= 0.3


def test_a_step_that_fails_is_tried_again(site: Site, tmp_path: Path) -> None:
    assert site.flows.flaky.delay(str(tmp_path / "tries"), 2).get(timeout=TIMEOUT) == 3
    with pytest.raises(ValueError, match="no good"):
        site.flows.broken.delay("no good").get(timeout=TIMEOUT)


def test_plain_tasks_and_steps_call_each_other(site: Site, tmp_path: Path) -> None:
    """A plain task that a step's commit sends waits in the outbox until the broker has it."""
    flows, noted = site.flows, tmp_path / "noted"
    flows.add.apply_async((1, 2), link=flows.plain_note.s(str(noted)))
    wait_for_lines(noted, 1)
    flows.plain_note.delay("itself", str(noted))
    chain(flows.add.s(3, 4), flows.plain_note.s(str(noted))).apply_async()
    assert sorted(wait_for_lines(noted, 3)) == ["plain 3", "plain 7", "plain itself"]
    wait_until(
        lambda: not site.server.client.exists(site.flows.app.store.keys.of("outbox")), description="the outbox is empty"
    )


def test_a_producer_without_agentq_starts_our_steps(site: Site) -> None:
    url = site.server.celery_url
    stock = Celery("producer", broker=site.broker.url if site.broker else url, backend=url, set_as_current=False)
    try:
        sent = [stock.send_task("tests.projects.flows.add", (number, 1)) for number in range(3)]
        assert [result.get(timeout=TIMEOUT) for result in sent] == [1, 2, 3]
        assert stock.send_task("fan", (4,)).get(timeout=TIMEOUT) == 12
        packed = stock.send_task("tests.projects.flows.add", (3, 1), compression="gzip")
        assert packed.get(timeout=TIMEOUT) == 4
    finally:
        stock.close()


def test_producers_of_both_modes_feed_one_worker(site: Site) -> None:
    """A fleet goes over from one mode to the other one process at a time."""
    fused = load_module(FLOWS, url=site.server.celery_url)
    try:
        results = [fused.add.delay(number, 1) for number in range(5)]
        assert [result.get(timeout=TIMEOUT) for result in results] == [1, 2, 3, 4, 5]
    finally:
        fused.app.close()


def test_a_busy_worker_holds_no_message_that_it_cannot_start(site: Site, tmp_path: Path) -> None:
    """Longer than the broker lets a consumer hold one."""
    gate, started, noted = tmp_path / "gate", tmp_path / "started", tmp_path / "noted"
    results = [site.flows.gated.delay(str(gate), str(started), number) for number in range(2)]
    wait_for_lines(started, 2)
    behind = [site.flows.noted.using(priority="low").delay(str(noted), f"low {number}") for number in range(4)]
    if site.broker is not None:
        broker = site.broker
        wait_until(
            lambda: broker.depths("agentq.celery.low")["agentq.celery.low"] >= 4,
            description="all that waits lies with the broker",
        )
    urgent = site.flows.noted.using(priority="critical").delay(str(noted), "critical")
    wait_until(lambda: _seconds_of(started) > 3, description="longer than RabbitMQ's patience in these tests")
    gate.touch()
    for result in [*results, *behind, urgent]:
        result.get(timeout=TIMEOUT)
    assert "critical" in lines(noted)[:2]
    assert "PRECONDITION_FAILED" not in site.worker.log()


@pytest.mark.parametrize("module_site", ["split"], indirect=True)
def test_a_slow_step_gets_a_second_one_through_the_broker(
    site: Site, start_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    start_worker(FLOWS, url=site.server.celery_url, env=site.env)
    result = site.flows.hedged.delay(str(tmp_path / "notes"))
    assert result.get(timeout=TIMEOUT) == "second"
    store = site.flows.app.store

    def ended() -> dict[str, str]:
        records = {each: store.record(result.id, each) for each in store.member_ids(result.id)}
        return {name: record["o"] for name, record in records.items() if record["s"] == "d"}

    wait_until(lambda: len(ended()) == 2, description="the first was stopped", report=lambda: str(ended()))
    assert ended().pop(result.id) == "REVOKED"
    assert sorted(ended().values()) == ["REVOKED", "SUCCESS"]


def _seconds_of(path: Path) -> float:
    return time.time() - path.stat().st_mtime


@pytest.mark.parametrize("module_site", ["stock"], indirect=True)
def test_a_worker_of_the_other_mode_ends_what_was_begun(
    site: Site, start_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    """The last test here: it kills the site's worker."""
    started = tmp_path / "started"
    handle = site.flows.slow_fan.start(str(started), 6, 0.1)
    results = [site.flows.gated.delay(str(tmp_path / "gate"), str(started), number) for number in range(4)]
    wait_for_lines(started, 2)
    site.worker.kill_tree()
    (tmp_path / "gate").touch()
    start_worker(FLOWS, url=site.server.celery_url)
    assert handle.get(timeout=TIMEOUT) == [1, 2, 3, 4, 5, 6]
    assert [result.get(timeout=TIMEOUT) for result in results] == [0, 10, 20, 30]
