"""What a durable step costs: at most two round trips of its worker, the take and the commit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.kit.projects import load_module
from tests.kit.proxy import Proxy
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess

logger = logging.getLogger(__name__)

FLOWS = "tests.projects.flows"
TIMEOUT = 60.0
STEPS = 100

SLACK = 10
"""For what belongs to no step: a connection that is opened, a health check."""

LEASE = {"renew", "tick"}
"""What a worker says at its own pace, whether it runs steps or not."""


@dataclass(frozen=True)
class Counted:
    """A worker whose commands are counted."""

    flows: Any
    proxy: Proxy

    def during(self, work: Callable[[], None]) -> Counter[str]:
        """Return how often the worker asked the server for what while ``work`` was done."""
        before = Counter(self.proxy.counts)
        work()
        since = Counter[str]()
        for (_, name), number in (Counter(self.proxy.counts) - before).items():
            since[name] += 0 if name in LEASE else number
        # An idle worker waits, and looks again when the wait is over: that is no step's cost.
        since["take"] -= min(since["take"], since["BRPOP"])
        since["BRPOP"] = 0
        return +since


@pytest.fixture(scope="module")
def counted(module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]) -> Iterator[Counted]:
    flows = load_module(FLOWS, url=module_server.celery_url)
    proxy = Proxy(module_server.socket, module_server.folder / "p", flows.app.store.scripts.hashes)
    proxy.start()
    start_module_worker(FLOWS, url=proxy.celery_url)
    # What is done once per process, each child's first step included, is done.
    warm = [flows.double.delay(number) for number in range(20)]
    assert [result.get(timeout=TIMEOUT) for result in warm] == [2 * number for number in range(20)]
    flows.fan.start(3).get(timeout=TIMEOUT)
    yield Counted(flows, proxy)
    proxy.close()


def test_a_step_costs_two_round_trips(counted: Counted) -> None:
    def work() -> None:
        results = [counted.flows.double.delay(number) for number in range(STEPS)]
        assert [result.get(timeout=TIMEOUT) for result in results] == [2 * number for number in range(STEPS)]

    asked = counted.during(work)
    logger.info("asked for %d steps: %s", STEPS, dict(asked))
    assert asked.total() <= 2 * STEPS + SLACK, asked


def test_a_member_of_a_fan_out_costs_two_round_trips(counted: Counted) -> None:
    """The agent's own turns cost some more: what is compared is a fan-out with one of twice its size."""

    def work(size: int) -> Callable[[], None]:
        return lambda: counted.flows.fan.start(size).get(timeout=TIMEOUT)

    one, two = counted.during(work(STEPS)), counted.during(work(2 * STEPS))
    logger.info("asked for a fan-out of %d: %s; of %d: %s", STEPS, dict(one), 2 * STEPS, dict(two))
    assert two.total() - one.total() <= 2 * STEPS + SLACK, (one, two)


def test_one_more_round_trip_would_be_seen(counted: Counted) -> None:
    """A step that says something on its way."""
    project, steps = counted.flows, STEPS // 4

    def work() -> None:
        results = [project.says.delay(number) for number in range(steps)]
        assert [result.get(timeout=TIMEOUT) for result in results] == list(range(steps))

    asked = counted.during(work)
    assert asked["emit"] == steps
    assert asked.total() > 2 * steps + SLACK, asked
