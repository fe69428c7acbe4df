"""Every way in which a step can fail ends in its outcome, in a pool of children and in one of threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentq import RunFailed
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.sample import TIMEOUT, lines, wait_for_lines
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

pytestmark = pytest.mark.timeout(90)

PROJECT = "tests.projects.stopping"
Start = Callable[..., WorkerProcess]


@pytest.fixture(scope="module", params=["prefork", "threads"])
def pool(
    request: pytest.FixtureRequest, module_server: PrivateServer, start_module_worker: Start
) -> Iterator[WorkerProcess]:
    worker = start_module_worker(
        PROJECT,
        url=module_server.celery_url,
        pool=request.param,
        env={"AGENTQ_RESULT_LIMIT": "100KiB", "AGENTQ_TURN_LIMIT": "1s"},
    )
    yield worker
    worker.kill_tree()


@pytest.fixture
def app(pool: WorkerProcess, module_server: PrivateServer) -> Iterator[Any]:
    yield load_module(PROJECT, url=module_server.celery_url).app
    check_leaks(module_server.client)


def called(app: Any, name: str, *args: Any) -> Any:
    return app.celery.tasks["calls"].start(name, list(args)).get(timeout=TIMEOUT)


@pytest.mark.parametrize("step", ["raises", "raises_async"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("memory", "MemoryError"),
        ("cancelled", "CancelledError"),
        ("generator", "GeneratorExit"),
        ("unspeakable", "Unspeakable"),
        ("wordy", "ValueError"),
        ("recursion", "RecursionError"),
    ],
)
def test_whatever_a_step_raises_is_its_failure(app: Any, pool: WorkerProcess, step: str, kind: str, said: str) -> None:
    children = pool.pool_children()
    error, kind_of_error, words = called(app, step, kind)
    assert (error, kind_of_error) == ("StepFailed", said)
    assert said in words
    assert pool.pool_children() == children, "no process has ended by it"


def test_a_result_that_json_cannot_hold_fails(app: Any) -> None:
    error, _, words = called(app, "returns_an_object")
    assert error == "InvalidResult"
    assert "object" in words


def test_a_result_that_is_too_large_fails(app: Any) -> None:
    error, _, words = called(app, "returns", 100 * 1024)
    assert error == "InvalidResult"
    assert "larger than 102400 bytes" in words


def test_a_large_result_comes_as_it_is(app: Any) -> None:
    assert called(app, "returns", 100_000) == "x" * 100_000


def test_an_outcome_that_waits_for_the_server_outlives_the_limit(
    app: Any, module_server: PrivateServer, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    result = app.celery.tasks[f"{PROJECT}.on_time"].delay(str(seen), 0.5)
    wait_for_lines(seen, 1)
    module_server.pause()
    try:
        # Nothing tells that a limit has passed which nobody hears.
        time.sleep(3.0)
    finally:
        module_server.resume()
    assert result.get(timeout=TIMEOUT) == "on time"
    assert lines(seen) == ["started"]


def test_what_takes_too_long_is_stopped(app: Any, tmp_path: Path) -> None:
    error, _, words = called(app, "too_long", str(tmp_path / "seen"), 30.0)
    assert (error, "0.5 s" in words) == ("StepTimeout", True)


@pytest.mark.parametrize("fails", [False, True])
def test_a_result_that_nobody_wants_is_not_kept(
    app: Any, module_server: PrivateServer, tmp_path: Path, fails: bool
) -> None:
    seen = tmp_path / "seen"
    result = app.celery.tasks[f"{PROJECT}.ignored"].delay(str(seen), fails)
    wait_until(lambda: app.store.record(result.id, result.id).get("s") == "d", description="the step is done")
    assert app.store.record(result.id, result.id)["o"] == ("FAILURE" if fails else "SUCCESS")
    assert app.store.outcomes([result.id]) == [None]


@pytest.mark.parametrize("fails", [False, True])
def test_what_an_agent_waits_for_is_kept_all_the_same(app: Any, tmp_path: Path, fails: bool) -> None:
    found = called(app, "ignored", str(tmp_path / "seen"), fails)
    assert found == (["StepFailed", "ValueError", found[2]] if fails else "nobody asked")


def test_a_running_step_is_revoked_in_any_pool(app: Any, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    result = app.celery.tasks[f"{PROJECT}.sits_async"].delay(str(seen), 60.0)
    wait_for_lines(seen, 1)
    result.revoke(terminate=True)
    with pytest.raises(Exception, match=r"(?i)terminated|revoked"):
        result.get(timeout=TIMEOUT)
    assert wait_for_lines(seen, 2)[1] == "left"


def test_an_agent_that_computes_for_too_long_fails_and_takes_back(app: Any, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    handle = app.celery.tasks["ponders"].start(str(seen), 60.0)
    with pytest.raises(RunFailed, match=r"limit of 1 s"):
        handle.get(timeout=TIMEOUT)
    assert [line.split()[0] for line in lines(seen)] == ["started", "effect", "retracted"]
