"""What a durable step costs: at most a take and a commit, and less where many wait."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from celery import group

from tests.kit.projects import load_module
from tests.kit.proxy import Proxy
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess

logger = logging.getLogger(__name__)

FLOWS = "tests.projects.flows"
TIMEOUT = 60.0
STEPS = 100

SLACK = 10
"""For an agent's own turns: how many its run comes to differs with the pace of its steps."""

PACE = {"renew", "tick", "recalled"}
"""What a worker says at its own pace, whether it runs steps or not."""

CONNECTION = {"HELLO", "AUTH", "CLIENT", "SELECT", "PING"}
"""What a new connection says, and the look at one that was idle."""

HOUSEKEEPING = {"SCRIPT", "EVALSHA", "SADD", "LLEN", "MULTI", "EXEC", "PUBLISH", "EXISTS", "HKEYS", "ZRANGE", "survey"}
"""What kombu and the worker say once per process or now and then: a child's first sending declares its queue, the
remote control's binding is renewed (by scripts of kombu's own, which have no name here), a heartbeat goes out, a
resting turn asks how much waits for its slot, the main process looks at what it holds and at what concerns all."""

LEFT_OUT = PACE | CONNECTION | HOUSEKEEPING


def cost_of(asked: Counter[str], steps: int) -> int:
    """Return what ``steps`` steps said, housekeeping left out.

    What is left out by its name is rare: were one of these words part of every step, it would be said as often as
    there are steps, and be a round trip that hides behind its name.
    """
    hidden = {name: number for name, number in asked.items() if name in LEFT_OUT - PACE and number >= steps}
    assert not hidden, f"said for every step, and left out as housekeeping: {hidden}"
    return sum(number for name, number in asked.items() if name not in LEFT_OUT)


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
            since[name] += number
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
    assert cost_of(asked, STEPS) <= 2 * STEPS + SLACK, asked


def test_a_member_of_a_fan_out_costs_two_round_trips(counted: Counted) -> None:
    """The agent's own turns cost some more: what is compared is a fan-out with one of twice its size."""

    def work(size: int) -> Callable[[], None]:
        return lambda: counted.flows.fan.start(size).get(timeout=TIMEOUT)

    one, two = counted.during(work(STEPS)), counted.during(work(2 * STEPS))
    logger.info("asked for a fan-out of %d: %s; of %d: %s", STEPS, dict(one), 2 * STEPS, dict(two))
    assert cost_of(two, 2 * STEPS) - cost_of(one, STEPS) <= 2 * STEPS + SLACK, (one, two)


def test_a_step_that_waits_costs_less(counted: Counted) -> None:
    """The commit of the one before takes it."""

    def work() -> None:
        results = group(counted.flows.double.s(number) for number in range(STEPS)).apply_async()
        assert results.get(timeout=TIMEOUT) == [2 * number for number in range(STEPS)]

    asked = counted.during(work)
    logger.info("asked for %d steps that waited: %s", STEPS, dict(asked))
    # Only short ones are gone on with, and on a machine that stands still between two of them none is short.
    assert asked["take"] < STEPS, asked


def test_all_guards_together_cost_one_more(counted: Counted) -> None:
    """A breaker, a rate with an estimate, two limits, a retry, a check, a fallback; in the fan-out a budget besides."""

    def work() -> None:
        results = [counted.flows.wrapped.delay(number) for number in range(STEPS)]
        assert [result.get(timeout=TIMEOUT) for result in results] == list(range(STEPS))

    asked = counted.during(work)
    assert asked["admit"] == STEPS
    assert cost_of(asked, STEPS) <= 3 * STEPS + SLACK, asked

    def fan(size: int) -> Callable[[], None]:
        return lambda: counted.flows.wrap.start(size).get(timeout=TIMEOUT)

    one, two = counted.during(fan(STEPS)), counted.during(fan(2 * STEPS))
    logger.info("asked for a guarded fan-out of %d: %s; of %d: %s", STEPS, dict(one), 2 * STEPS, dict(two))
    assert cost_of(two, 2 * STEPS) - cost_of(one, STEPS) <= 3 * STEPS + SLACK, (one, two)


def test_a_kept_answer_costs_one_more(counted: Counted) -> None:
    counted.flows.kept.delay(7).get(timeout=TIMEOUT)

    def work() -> None:
        results = [counted.flows.kept.delay(7) for _ in range(STEPS)]
        assert [result.get(timeout=TIMEOUT) for result in results] == [7] * STEPS

    asked = counted.during(work)
    assert asked["admit"] == STEPS
    assert cost_of(asked, STEPS) <= 3 * STEPS + SLACK, asked


def test_one_more_round_trip_would_be_seen(counted: Counted) -> None:
    """A step that says something on its way."""
    project, steps = counted.flows, STEPS // 4

    def work() -> None:
        results = [project.says.delay(number) for number in range(steps)]
        assert [result.get(timeout=TIMEOUT) for result in results] == list(range(steps))

    asked = counted.during(work)
    assert asked["emit"] == steps
    assert cost_of(asked, steps) - asked["take"] > steps + SLACK, asked


def test_a_round_trip_hides_behind_no_name() -> None:
    """A step that asks for a queue's length each time, as only housekeeping does."""
    with pytest.raises(AssertionError, match="left out as housekeeping"):
        cost_of(Counter(take=STEPS, commit=STEPS, LLEN=STEPS), STEPS)
