"""Commands that start processes: `agentq run` with workers of its own, `agentq up`."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.engine.test_cli import Command, Zygote, command_in, document
from tests.kit.process import ManagedProcess, clean_environment, wait_for_ends
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until

SLOW = """

@app.agent
async def rests(run: Run) -> None:
    await run.sleep(600)
"""


@pytest.fixture
def env(server: PrivateServer) -> dict[str, str]:
    return clean_environment({"AGENTQ_REDIS_URL": server.celery_url})


@pytest.fixture
def agentq(tmp_path: Path, env: dict[str, str]) -> Iterator[Command]:
    """The command in a project that `agentq init` wrote."""
    command = Zygote(tmp_path, env)
    assert command("init")[0] == 0
    yield command
    command.close()


def test_init_change_a_line_run(env: dict[str, str], tmp_path: Path) -> None:
    agentq = command_in(tmp_path, env)
    assert agentq("init")[0] == 0
    agents = tmp_path / "agents.py"
    agents.write_text(agents.read_text().replace("Hello", "Good morning"))
    before = children_of(os.getpid())  # workers that other tests share
    answer = agentq("run", "hello", "--names", "Ada", "--names", "Grace", "--json")
    assert document(answer)["result"] == ["Good morning, Ada!", "Good morning, Grace!"]
    assert answer[2] == ""
    assert not set(children_of(os.getpid())) - set(before)


@pytest.mark.leaves(".*")
def test_without_workers_a_run_waits_and_says_so(agentq: Command) -> None:
    code, out, err = agentq("run", "hello", "--names", "Ada", "--no-workers", "--timeout", "0.5")
    assert code == 3
    assert not out
    assert "agentq worker --pool" in err
    assert "is not finished after 0.5 s" in err


@pytest.mark.leaves(".*")
def test_workers_of_a_killed_command_end(agentq: Command, tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "agents.py").write_text((tmp_path / "agents.py").read_text() + SLOW)
    command = ManagedProcess(
        [sys.executable, "-m", "agentq.cli", "run", "rests"], log=tmp_path / "run.log", env=env, cwd=tmp_path
    )
    command.start()
    wait_until(lambda: document(agentq("workers", "list", "--json")), description="a worker of its own")
    workers = command.tree()[1:]
    command.kill_main()
    assert wait_for_ends(workers, timeout=60) == []


@pytest.fixture
def up(tmp_path: Path, env: dict[str, str], agentq: Command) -> Iterator[ManagedProcess]:
    process = ManagedProcess([sys.executable, "-m", "agentq.cli", "up"], log=tmp_path / "up.log", env=env, cwd=tmp_path)
    process.start()
    try:
        yield process
    finally:
        process.terminate(timeout=20)


def test_up_serves_restarts_shows_and_stops(up: ManagedProcess, agentq: Command) -> None:
    def serving() -> list[Any]:
        return [row["label"] for row in document(agentq("workers", "list", "--json"))]

    first = wait_until(serving, description="a worker serves", report=up.log)
    run = document(agentq("run", "hello", "--names", "Ada", "--json"))
    assert run["result"] == ["Hello, Ada!"]
    kill_worker(up)
    wait_until(
        lambda: [label for label in serving() if label not in first],
        description="another worker has taken its place",
        report=up.log,
    )
    assert "starts again in" in up.log()
    assert document(agentq("run", "hello", "--names", "Grace", "--json"))["status"] == "succeeded"
    rows = wait_until(lambda: shown_run(up, agentq), description="Flower shows a run", report=up.log, timeout=90)
    assert {row["agent"] for row in rows} == {"hello"}
    assert {row["step"] for row in rows} == {"", "greet"}
    tree = up.tree()
    up.send(signal.SIGINT)
    assert up.wait(timeout=60) == 0
    assert wait_for_ends(tree) == []


def shown_run(up: ManagedProcess, agentq: Command) -> list[dict[str, Any]]:
    """Flower's rows of a run that it shows whole; empty while there is none, and then a new run is started."""
    by_run: dict[str, list[dict[str, Any]]] = {}
    for row in flower_tasks(up.log()):
        by_run.setdefault(row["run_id"], []).append(row)
    whole = [rows for rows in by_run.values() if len(rows) == 2]
    if not whole:
        # What ran before Flower listened, it will never know of.
        document(agentq("run", "hello", "--names", "Grace", "--json"))
    return whole[0] if whole else []


def kill_worker(up: ManagedProcess) -> None:
    """SIGKILL the tree of the one worker."""
    workers = [
        process
        for process in psutil.Process(up.pid).children()
        if "worker" in process.cmdline() and "celery" in process.cmdline()
    ]
    os.killpg(workers[0].pid, signal.SIGKILL)


def flower_tasks(log: str) -> list[dict[str, Any]]:
    """The tasks on Flower's page, empty while Flower is not up."""
    found = re.search(r"http://127\.0\.0\.1:\d+", log)
    if found is None:
        return []
    query = "draw=1&start=0&length=50&search%5Bvalue%5D=&order%5B0%5D%5Bcolumn%5D=0&columns%5B0%5D%5Bdata%5D=name"
    try:
        with urllib.request.urlopen(f"{found.group()}/tasks/datatable?{query}", timeout=60) as answer:  # noqa: S310
            rows: list[dict[str, Any]] = json.load(answer)["data"]
            return rows
    except OSError:
        return []


def children_of(pid: int) -> list[psutil.Process]:
    """Workers that stand below the process."""
    return [each for each in psutil.Process(pid).children(recursive=True) if "celery" in each.cmdline()]
