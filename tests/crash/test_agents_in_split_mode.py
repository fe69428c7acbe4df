"""A part of the shipped agents' tests once more, behind RabbitMQ.

In a file of its own: a plain worker, as the other tests here have, serves the pools of these agents too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.crash.test_kill_agents import (
    POOLS,
    agents,
    documents,
    research_survives,
    test_the_assistant_makes_no_committed_call_again,
)
from tests.kit.broker import PrivateBroker
from tests.kit.mode import settings_of
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess

__all__ = ["agents", "documents", "test_the_assistant_makes_no_committed_call_again"]


@pytest.fixture(scope="session")
def mode_env(rabbitmq: PrivateBroker) -> dict[str, str]:
    """The settings of split mode, whatever TEST_TRANSPORT says."""
    return settings_of("split", rabbitmq)


def test_research_survives_a_kill(
    agents: ModuleType,
    clean_server: PrivateServer,
    start_worker: Callable[..., WorkerProcess],
    documents: Path,
    mode_env: dict[str, str],
    rng: random.Random,
) -> None:
    def start() -> WorkerProcess:
        return start_worker("workers.app", url=clean_server.celery_url, queues=POOLS, env=mode_env)

    research_survives(start, agents, documents, rng, kills=1)
