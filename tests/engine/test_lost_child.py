"""A child of the pool that dies: its step starts again at once, and the death is that step's alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.sample import TIMEOUT, lines, wait_for_lines
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess

pytestmark = pytest.mark.timeout(90)

PROJECT = "tests.projects.stopping"
Start = Callable[..., WorkerProcess]


@pytest.fixture
def app(server: PrivateServer, start_worker: Start) -> Iterator[Any]:
    start_worker(PROJECT, url=server.celery_url)
    yield load_module(PROJECT, url=server.celery_url).app
    check_leaks(server.client)


def pid_in(line: str) -> int:
    return int(line.split()[1])


def seconds_to_restart(app: Any, hit: Path) -> float:
    """Kill a step's process; return how long after it the next attempt began, by the server's clock, which is ours."""
    victim = app.celery.tasks["tests.projects.stopping.sits"].delay(str(hit), 1.5)
    pid = pid_in(wait_for_lines(hit, 1)[0])
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    wait_for_lines(hit, 2)
    begun = int(app.store.record(victim.id, victim.id)["b"]) / 1000
    assert app.store.record(victim.id, victim.id)["d"] == "1", "the death counts"
    assert victim.get(timeout=TIMEOUT) == "sat"
    assert lines(hit)[2:] == ["left"], "the killed one left no word"
    return begun - killed


def test_its_step_starts_again_within_a_second(app: Any, tmp_path: Path) -> None:
    """One of up to three times: a machine that lets processes wait for a core adds to each as chance has it."""
    took: list[float] = []
    while len(took) < 3 and not any(0 < each < 1.0 for each in took):
        took.append(seconds_to_restart(app, tmp_path / f"hit-{len(took)}"))
    assert any(0 < each < 1.0 for each in took), took


def test_a_bystander_goes_on(app: Any, tmp_path: Path) -> None:
    hit, bystander = tmp_path / "hit", tmp_path / "bystander"
    sits = app.celery.tasks["tests.projects.stopping.sits"]
    other = sits.delay(str(bystander), 2.0)
    victim = sits.delay(str(hit), 1.5)
    wait_for_lines(bystander, 1)
    os.kill(pid_in(wait_for_lines(hit, 1)[0]), signal.SIGKILL)
    assert other.get(timeout=TIMEOUT) == "sat"
    assert victim.get(timeout=TIMEOUT) == "sat"
    assert len(lines(bystander)) == 2
    assert app.store.record(other.id, other.id).get("d", "0") == "0"
