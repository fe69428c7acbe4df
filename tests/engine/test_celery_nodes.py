"""pytest-celery's own setup over local processes: workers are killed, the server restarts, work goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import chord
from pytest_celery import CeleryTestSetup

from tests.kit.sample import TIMEOUT, wait_for_lines


def test_the_setup_serves(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(control=True)
    assert len(celery_setup.worker_cluster) == 2
    add = celery_setup.app.tasks["tests.projects.flows.add"]
    assert add.delay(1, 2).get(timeout=TIMEOUT) == 3


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM"])
def test_a_chord_outlives_a_worker(celery_setup: CeleryTestSetup, tmp_path: Path, signal: str) -> None:
    tasks = celery_setup.app.tasks
    slow, total = tasks["tests.projects.flows.slow"], tasks["tests.projects.flows.total"]
    started = tmp_path / "started"
    result = chord([slow.s(n, str(started), 0.1) for n in range(30)], total.s()).apply_async()
    wait_for_lines(started, 5)
    celery_setup.worker.kill(signal)
    assert result.get(timeout=TIMEOUT) == sum(range(1, 31))
    celery_setup.worker.restart()
    assert celery_setup.worker.container.status == "running"


def test_work_outlives_a_restart_of_the_server(celery_setup: CeleryTestSetup, tmp_path: Path) -> None:
    slow = celery_setup.app.tasks["tests.projects.flows.slow"]
    started = tmp_path / "started"
    results = [slow.delay(n, str(started), 0.1) for n in range(20)]
    wait_for_lines(started, 4)
    celery_setup.broker.container.process.client.config_set("appendfsync", "always")
    celery_setup.broker.restart()
    assert [result.get(timeout=TIMEOUT) for result in results] == list(range(1, 21))
