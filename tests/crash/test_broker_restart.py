"""RabbitMQ is killed and comes back, or loses what it was told: steps are the store's, so nothing of them is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.broker import PrivateBroker
from tests.kit.field import Fleet
from tests.kit.leaks import check_leaks
from tests.kit.mode import settings_of
from tests.kit.sample import lines, wait_for_lines
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

TIMEOUT = 90.0
LANES = ("critical", "high", "normal", "low")


@pytest.fixture(scope="module")
def shared(
    module_server: PrivateServer, rabbitmq: PrivateBroker, make_module_worker: Callable[..., WorkerProcess]
) -> Fleet:
    """Workers behind a RabbitMQ."""
    return Fleet(module_server, make_module_worker, env=settings_of("split", rabbitmq))


@pytest.fixture
def fleet(shared: Fleet) -> Iterator[Fleet]:
    """One worker that serves."""
    shared.flows.app.set_current()
    shared.ensure(1)
    yield shared
    check_leaks(shared.server.client, timeout=30)


def test_runs_go_on_after_the_broker_was_killed(fleet: Fleet, rabbitmq: PrivateBroker, tmp_path: Path) -> None:
    started, later = tmp_path / "started", tmp_path / "later"
    handle = fleet.flows.slow_fan.start(str(started), 30, 0.05)
    wait_for_lines(started, 5)
    rabbitmq.kill_tree()
    # What is started now waits in the store.
    behind = fleet.flows.slow_fan.start(str(later), 10, 0.0)
    rabbitmq.start()
    assert handle.get(timeout=TIMEOUT) == list(range(1, 31))
    assert behind.get(timeout=TIMEOUT) == list(range(1, 11))
    assert set(lines(started)) == {str(number) for number in range(30)}
    attempts = Counter(lines(started)) + Counter(lines(later))
    assert attempts.total() <= 42, "but for what was on its way to a child, nothing starts again for a lost connection"


def test_what_the_broker_loses_is_published_again(fleet: Fleet, rabbitmq: PrivateBroker, tmp_path: Path) -> None:
    gate, started = tmp_path / "gate", tmp_path / "started"
    add: Any = fleet.flows.gated
    results = [add.delay(str(gate), str(started), number) for number in range(6)]
    wait_for_lines(started, 2)
    wait_until(lambda: rabbitmq.depths("agentq.celery.normal") == {"agentq.celery.normal": 4}, description="four wait")
    assert rabbitmq.delete(*(f"agentq.celery.{lane}" for lane in LANES)) == 4
    gate.touch()
    assert [result.get(timeout=TIMEOUT) for result in results] == [0, 10, 20, 30, 40, 50]
    assert Counter(lines(started)) == Counter({str(number): 1 for number in range(6)})
