"""Agents with branches, at real workers: races, time-outs, undo, sub-agents, large results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentq import AgentqError
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

TIMEOUT = 60
PROJECT = "tests.projects.branches"


@pytest.fixture(scope="module")
def worker(module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]) -> WorkerProcess:
    return start_module_worker(PROJECT, url=module_server.celery_url)


@pytest.fixture(scope="module")
def served(module_server: PrivateServer, worker: WorkerProcess) -> Iterator[tuple[PrivateServer, ModuleType]]:
    module = load_module(PROJECT, url=module_server.celery_url)
    yield module_server, module
    module.app.close()


@pytest.fixture
def branches(served: tuple[PrivateServer, ModuleType]) -> Iterator[Any]:
    server, module = served
    yield module
    check_leaks(server.client)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_time_out_gives_a_step_up(branches: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    handle = branches.gives_up.start(str(ledger))
    assert handle.get(timeout=TIMEOUT) == "gave up, 8"
    wait_until(lambda: {step.status for step in handle.steps()} == {"cancelled", "succeeded"}, description="it stops")
    assert lines(ledger) == ["slow began"]


def test_the_first_of_many_and_what_follows_from_it(branches: Any) -> None:
    assert branches.races.start(8).get(timeout=TIMEOUT) == [0, 2, 4, 6, 8, 10, 12, 14, *[200] * 8]


def test_undo_by_a_step_last_first(branches: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with pytest.raises(AgentqError, match="no"):
        branches.regrets.start(str(ledger)).get(timeout=TIMEOUT)
    done = lines(ledger)
    assert sorted(done[:3]) == ["+one", "+three", "+two"]
    assert done[3:] == ["-three", "-two", "-one"]


def test_a_cancelled_run_takes_back_and_is_cancelled(branches: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    handle = branches.publishes_and_waits.start(str(ledger))
    wait_until(lambda: handle.status() == "parked", description="the run is parked")
    handle.cancel("not wanted")
    with pytest.raises(AgentqError, match="cancelled"):
        handle.get(timeout=TIMEOUT)
    assert lines(ledger) == ["+one", "-one"]
    assert handle.status() == "cancelled"


def test_a_cancel_is_no_fault_in_the_worker_log(branches: Any, worker: WorkerProcess, tmp_path: Path) -> None:
    handle = branches.publishes_and_waits.start(str(tmp_path / "ledger"))
    wait_until(lambda: handle.status() == "parked", description="the run is parked")
    handle.cancel("not wanted")
    worker.wait_for_log(f"[{handle.id}] raised expected: RunCancelled")


def test_sub_agents_called_mapped_and_spawned(branches: Any) -> None:
    assert branches.family.start(4).get(timeout=TIMEOUT) == [0, 2, 4, 6, 1000, 2000]


def test_async_local_calls_run_at_once(branches: Any) -> None:
    found = branches.locals_at_once.start(20).get(timeout=TIMEOUT)
    assert found == [f"{number} True" for number in range(20)]


def test_results_that_are_too_large_for_the_log(branches: Any) -> None:
    handle = branches.carries_much.start(100_000)
    assert handle.get(timeout=TIMEOUT) == 300_001
    assert sum(map(len, branches.app.store.read_log(handle.id, handle.id))) < 5_000


def test_two_questions_at_once(branches: Any) -> None:
    handle = branches.asks_in_parallel.start()
    asks = wait_until(lambda: branches.app.asks.list(run_id=handle.id), description="the questions are asked")
    first = next(ask for ask in asks if ask.question == "First?")
    branches.app.asks.answer(first.ask_id, "yes")
    assert handle.get(timeout=TIMEOUT) == ["yes", None]
    assert not branches.app.asks.list(run_id=handle.id)
