"""pytest-celery over local processes: its container fixtures stay for tests with the mark ``docker``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestBackend,
    CeleryTestBroker,
    CeleryTestSetup,
    CeleryWorkerCluster,
)

from tests.kit.leaks import check_leaks
from tests.kit.nodes import LocalWorker, ServerContainer, WorkerContainer
from tests.kit.projects import load_app
from tests.kit.sample import Library, start_library
from tests.kit.server import PrivateServer
from tests.kit.stopping import Stopping, start_stopping
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.flows"
QUEUE = "celery"


class LocalSetup(CeleryTestSetup):
    """Hands out the project's own app instead of a bare one."""

    @classmethod
    def create_setup_app(cls, celery_setup_config: dict[str, Any], celery_setup_app_name: str) -> Celery:
        """Return the project's app on the server of this setup."""
        return load_app(PROJECT, url=celery_setup_config["broker_url"])


@pytest.fixture
def celery_setup_cls() -> type[CeleryTestSetup]:
    """The setup class of these tests."""
    return LocalSetup


@pytest.fixture
def celery_broker(server: PrivateServer) -> CeleryTestBroker:
    """The private server as broker."""
    return CeleryTestBroker(ServerContainer(server, name="server"))


@pytest.fixture
def celery_backend(server: PrivateServer) -> CeleryTestBackend:
    """The same server as backend."""
    return CeleryTestBackend(ServerContainer(server, name="server"))


@pytest.fixture
def celery_broker_cluster(celery_broker: CeleryTestBroker) -> CeleryBrokerCluster:
    """One broker."""
    return CeleryBrokerCluster(celery_broker)


@pytest.fixture
def celery_backend_cluster(celery_backend: CeleryTestBackend) -> CeleryBackendCluster:
    """One backend."""
    return CeleryBackendCluster(celery_backend)


@pytest.fixture
def make_node(server: PrivateServer, tmp_path: Path, celery_setup_app: Celery) -> Iterator[Callable[[], LocalWorker]]:
    """Start a worker of two children as a node."""
    nodes: list[LocalWorker] = []

    def make() -> LocalWorker:
        process = WorkerProcess(PROJECT, folder=tmp_path, url=server.celery_url, queues=[QUEUE])
        process.start()
        nodes.append(LocalWorker(WorkerContainer(process, queue=QUEUE), celery_setup_app))
        return nodes[-1]

    yield make
    for node in nodes:
        node.container.process.kill_tree()


@pytest.fixture
def celery_worker_cluster(make_node: Callable[[], LocalWorker]) -> CeleryWorkerCluster:
    """Two workers."""
    cluster = CeleryWorkerCluster(make_node(), make_node())
    cluster.ready()
    return cluster


@pytest.fixture(scope="session", params=["agentq_app", "existing_app"])
def library_session(
    request: pytest.FixtureRequest, start_session_worker: Callable[..., WorkerProcess]
) -> Iterator[Library]:
    """The library in an app of agentq's own, and in one that agentq was installed in."""
    server = PrivateServer(tcp=request.param == "existing_app")
    server.start()
    try:
        library = start_library(request.param, server=server, start=start_session_worker)
        yield library
        library.worker.terminate(timeout=10)
    finally:
        server.stop()


@pytest.fixture
def library(library_session: Library) -> Iterator[Library]:
    """The library, checked for leaked keys after each test."""
    library_session.app.set_current()
    yield library_session
    check_leaks(library_session.server.client)


@pytest.fixture(scope="session")
def stopping_session(start_session_worker: Callable[..., WorkerProcess]) -> Iterator[Callable[[str], Stopping]]:
    """The project of steps that are stopped, one server and worker a pool, started when a test first asks for it."""
    found: dict[str, Stopping] = {}

    def of_pool(pool: str) -> Stopping:
        if pool not in found:
            server = PrivateServer()
            server.start()
            found[pool] = start_stopping(server, pool=pool, start=start_session_worker)
        return found[pool]

    yield of_pool
    for stopping in found.values():
        stopping.worker.kill_tree()
        stopping.server.stop()


@pytest.fixture
def stopping(
    request: pytest.FixtureRequest, stopping_session: Callable[[str], Stopping], tmp_path: Path
) -> Iterator[Stopping]:
    """The project in the pool that the test names, checked for leaked keys after each test."""
    found = stopping_session(getattr(request, "param", "prefork"))
    yield found.at(tmp_path)
    check_leaks(found.server.client)
