"""A worker holds no more than it runs: what it has no slot for starts in another one at once, in every kind of pool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.kit.broker import PrivateBroker
from tests.kit.mode import settings_of
from tests.kit.projects import load_module
from tests.kit.sample import wait_for_lines
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess

FLOWS = "tests.projects.flows"
TIMEOUT = 60.0

KINDS = [
    pytest.param("fused", "prefork", 2, marks=pytest.mark.long),
    ("fused", "threads", 2),
    ("fused", "solo", 1),
    pytest.param("split", "prefork", 2, marks=pytest.mark.long),
    ("split", "threads", 2),
]


@pytest.mark.parametrize(("mode", "pool", "slots"), KINDS)
def test_what_a_busy_worker_has_no_slot_for_starts_in_an_idle_one(
    server: PrivateServer,
    make_worker: Callable[..., WorkerProcess],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    mode: str,
    pool: str,
    slots: int,
) -> None:
    broker: PrivateBroker | None = request.getfixturevalue("rabbitmq") if mode == "split" else None
    env = settings_of(mode, broker)
    busy, idle = (make_worker(FLOWS, url=server.celery_url, pool=pool, concurrency=slots, env=env) for _ in range(2))
    busy.start()
    flows: ModuleType = load_module(FLOWS, url=server.celery_url, **env)
    busy.wait_ready()
    gate, started = tmp_path / "gate", tmp_path / "started"
    results = [flows.gated.delay(str(gate), str(started), number) for number in range(2 * slots)]
    wait_for_lines(started, slots)
    idle.launch()
    wait_for_lines(started, 2 * slots)
    gate.touch()
    for result in results:
        result.get(timeout=TIMEOUT)


def test_plain_tasks_are_not_held_in_advance_either(
    server: PrivateServer, start_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    """On Redis, whatever Celery's prefetch multiplier says."""
    gate, started = tmp_path / "gate", tmp_path / "started"
    start_worker(FLOWS, url=server.celery_url, concurrency=1)
    flows: ModuleType = load_module(FLOWS, url=server.celery_url)
    flows.plain_gate.delay(str(gate), str(started))
    wait_for_lines(started, 1)
    for number in range(3):
        flows.plain_note.delay(number, str(started))
    start_worker(FLOWS, url=server.celery_url, concurrency=1)
    assert wait_for_lines(started, 4)[1:] == ["plain 0", "plain 1", "plain 2"]
    gate.touch()
