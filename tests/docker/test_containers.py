"""pytest-celery's stock containers (RabbitMQ, Redis, a worker of plain Celery), as the plugin ships them.

Everywhere else its fixtures are replaced by local processes: see ``tests/engine/conftest.py``.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest
from pytest_celery import RESULT_TIMEOUT, CeleryTestSetup, ping

from tests.kit.requirements import require

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True, scope="module")
def engine() -> None:
    """A Docker engine that answers."""
    docker = shutil.which("docker")
    answers = docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0
    require("a Docker engine", present=answers)


def test_the_stock_setup_serves(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(ping=True)
    assert ping.s().apply_async(queue=celery_setup.worker.worker_queue).get(timeout=RESULT_TIMEOUT) == "pong"
