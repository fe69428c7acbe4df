"""The fields on which workers are killed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.field import Field, Fleet
from tests.kit.leaks import check_leaks
from tests.kit.mode import settings_of
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess


@pytest.fixture(scope="session")
def mode_env(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings of the mode that TEST_TRANSPORT names, by default fused."""
    mode = os.environ.get("TEST_TRANSPORT", "fused")
    return settings_of(mode, request.getfixturevalue("rabbitmq") if mode == "split" else None)


@pytest.fixture(scope="module")
def fleet(
    module_server: PrivateServer, make_module_worker: Callable[..., WorkerProcess], mode_env: dict[str, str]
) -> Fleet:
    """Workers that a module's tests share: what one test killed, the next one tops up."""
    return Fleet(module_server, make_module_worker, env=mode_env)


@pytest.fixture
def field(fleet: Fleet, tmp_path: Path, rng: random.Random) -> Iterator[Field]:
    """Two workers that serve."""
    fleet.flows.app.set_current()
    fleet.ensure(2)
    yield Field(fleet, folder=tmp_path, rng=rng)
    check_leaks(fleet.server.client, timeout=30)


@pytest.fixture
def empty_field(
    server: PrivateServer,
    make_worker: Callable[..., WorkerProcess],
    tmp_path: Path,
    rng: random.Random,
    mode_env: dict[str, str],
) -> Iterator[Field]:
    """A server of this test alone, and no worker yet."""
    fleet = Fleet(server, make_worker, env=mode_env)
    yield Field(fleet, folder=tmp_path, rng=rng)
    if any(worker.running for worker in fleet.workers):
        # While they live: what a killed worker held may have to be taken back and ended by another.
        check_leaks(server.client, timeout=30)
