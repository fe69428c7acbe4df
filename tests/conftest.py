"""Fixtures that every test may use: private servers, worker processes, the leak check, seeds."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.kit.broker import PrivateBroker
from tests.kit.leaks import check_leaks
from tests.kit.process import OWN, SCRUBBED
from tests.kit.requirements import in_ci
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess

# Read when gRPC is imported: its own handlers of forks, once it was used here, end children that later tests start.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

settings.register_profile(
    "home", max_examples=30, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# The same examples each time, so that a red CI is about the change; at home, and with -m long, they are new ones.
settings.register_profile("ci", settings.get_profile("home"), max_examples=60, derandomize=True)
settings.register_profile("long", settings.get_profile("home"), max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if in_ci() else "home"))

SEED = int(os.environ.get("TEST_SEED", 1 if in_ci() else random.SystemRandom().randrange(2**32)))


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks, so that a misspelt one is an error; have a SIGTERM end tests as Ctrl-C does."""
    # Else it would leave servers and workers running, whose fixtures had no turn to end them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.addinivalue_line("markers", "docker: needs a Docker engine; left out unless chosen with -m docker")
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU, torch and the extra gpu; left out unless chosen")
    config.addinivalue_line("markers", "long: takes minutes; left out unless chosen with -m long")
    config.addinivalue_line("markers", "leaves(*patterns): keys that this test leaves on purpose")
    # From Python 3.12 on; the tests' processes set only what ends them, and execute another program at once.
    config.addinivalue_line("filterwarnings", "ignore:This process .*multi-threaded:DeprecationWarning")
    # Celery's own backend calls redis-py so.
    config.addinivalue_line("filterwarnings", "ignore:Call to deprecated setex:DeprecationWarning")


def pytest_report_header() -> str:
    """Print the seed that repeats this session's random choices."""
    return f"TEST_SEED={SEED} hypothesis profile={settings.get_current_profile_name()}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a Docker engine or minutes, unless it was asked for by mark."""
    chosen = config.getoption("-m")
    for mark in ("docker", "gpu", "long"):
        if mark in chosen:
            continue
        skip = pytest.mark.skip(reason=f"only with -m {mark}")
        for item in items:
            if item.get_closest_marker(mark) is not None:
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def clean_shell() -> Iterator[None]:
    """Keep settings of the developer's own shell out of the tests."""
    removed = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(SCRUBBED)}
    os.environ.update(OWN)
    yield
    for name in OWN:
        del os.environ[name]
    os.environ.update(removed)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random choices that TEST_SEED repeats, different in each test."""
    return random.Random(f"{SEED}:{request.node.nodeid}")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[PrivateServer]:
    """A server of this test alone, checked for leaked keys at the end."""
    instance = PrivateServer()
    instance.start()
    try:
        yield instance
        if instance.running:
            check_leaks(instance.client, allowed=_allowed(request.node))
    finally:
        instance.stop()


@pytest.fixture(scope="module")
def module_server() -> Iterator[PrivateServer]:
    """A server that the tests of a module share, without any clearing: for tests with a shared worker."""
    instance = PrivateServer()
    instance.start()
    yield instance
    instance.stop()


@pytest.fixture
def clean_server(module_server: PrivateServer, request: pytest.FixtureRequest) -> Iterator[PrivateServer]:
    """The module's server, emptied before this test and checked for leaked keys after it."""
    module_server.empty()
    yield module_server
    check_leaks(module_server.client, allowed=_allowed(request.node))


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[PrivateBroker]:
    """A broker for all tests: what one leaves in its queues, the next one's records do not agree to."""
    broker = PrivateBroker()
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def make_worker(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Make workers as ``WorkerProcess`` does, not yet started; all end with the test."""
    yield from _worker_factory(tmp_path)


@pytest.fixture(scope="module")
def make_module_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., WorkerProcess]]:
    """The same for workers that a module's tests share."""
    yield from _worker_factory(tmp_path_factory.mktemp("workers"))


@pytest.fixture(scope="session")
def make_session_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., WorkerProcess]]:
    """The same for workers that all tests share."""
    yield from _worker_factory(tmp_path_factory.mktemp("workers"))


@pytest.fixture
def start_worker(make_worker: Callable[..., WorkerProcess]) -> Callable[..., WorkerProcess]:
    """Start workers as ``WorkerProcess`` does and return them when they serve; all end with the test."""
    return lambda app, **options: make_worker(app, **options).launch()


@pytest.fixture(scope="module")
def start_module_worker(make_module_worker: Callable[..., WorkerProcess]) -> Callable[..., WorkerProcess]:
    """The same for workers that a module's tests share."""
    return lambda app, **options: make_module_worker(app, **options).launch()


@pytest.fixture(scope="session")
def start_session_worker(make_session_worker: Callable[..., WorkerProcess]) -> Callable[..., WorkerProcess]:
    """The same for workers that all tests share."""
    return lambda app, **options: make_session_worker(app, **options).launch()


def _worker_factory(folder: Path) -> Iterator[Callable[..., WorkerProcess]]:
    made: list[WorkerProcess] = []

    def make(app: str, **options: Any) -> WorkerProcess:
        made.append(WorkerProcess(app, folder=folder, **options))
        return made[-1]

    try:
        yield make
    finally:
        # A warm stop takes seconds and has tests of its own.
        for worker in made:
            worker.kill_tree()


def _allowed(node: pytest.Item) -> tuple[str, ...]:
    return tuple(pattern for mark in node.iter_markers("leaves") for pattern in mark.args)
