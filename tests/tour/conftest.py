"""One server and one worker for the whole tour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess


@pytest.fixture(scope="package")
def guided(start_session_worker: Callable[..., WorkerProcess]) -> Iterator[tuple[PrivateServer, ModuleType]]:
    """The tour's agents, and a worker that serves them."""
    server = PrivateServer()
    server.start()
    try:
        worker = start_session_worker("tests.tour.guide", url=server.celery_url)
        module = load_module("tests.tour.guide", url=server.celery_url)
        yield server, module
        worker.terminate(timeout=10)
    finally:
        server.stop()


@pytest.fixture
def guide(guided: tuple[PrivateServer, ModuleType]) -> Iterator[Any]:
    """The tour's agents; nothing may stay behind after a test."""
    server, module = guided
    module.app.set_current()
    yield module
    check_leaks(server.client)
