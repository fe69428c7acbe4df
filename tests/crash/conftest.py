"""The field on which workers are killed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit.field import Field
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess


@pytest.fixture
def field(
    server: PrivateServer, start_worker: Callable[..., WorkerProcess], tmp_path: Path, rng: random.Random
) -> Iterator[Field]:
    """A server, the flows' app and no worker yet."""
    field = Field(server=server, start=start_worker, folder=tmp_path, rng=rng)
    yield field
    field.app.close()
