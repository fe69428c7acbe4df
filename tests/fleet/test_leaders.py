"""Controllers as processes that are killed, or stand still: another leads within seconds, and they never fight."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentq.fleet.children import birth_of
from agentq.store import Store
from tests.kit.process import clean_environment
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until

SLEEPER = "import time; time.sleep(600)"


@pytest.fixture
def start(server: PrivateServer, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start_one() -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "tests.fleet.leader", server.url, str(tmp_path / "fleet")]
        started.append(subprocess.Popen(argv, env=clean_environment()))
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait()
    for pid in sleepers(tmp_path):
        os.kill(pid, signal.SIGKILL)


def sleepers(folder: Path) -> list[int]:
    """The workers that run, by their files."""
    pids = []
    for path in (folder / "fleet").glob("*.json"):
        # A controller may take the file of one that has ended away between the two looks.
        with contextlib.suppress(FileNotFoundError):
            pids.append(int(path.read_text().split('"pid": ')[1].split(",")[0]))
    return sorted(pid for pid in pids if birth_of(pid) is not None)


def test_another_leads_when_the_leader_stands_still_or_is_killed(
    server: PrivateServer, start: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    store = Store(server.url)

    def leader() -> tuple[str, int]:
        lead = store.leaders().get("q")
        return (lead.leader, lead.fence) if lead is not None and lead.left_ms else ("", 0)

    def led_by(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
        return lambda: leader()[0] == str(process.pid)

    first = start()
    wait_until(led_by(first), description="the first leads")
    wait_until(lambda: len(sleepers(tmp_path)) == 2, description="it has started two")
    fence, workers = leader()[1], sleepers(tmp_path)

    second = start()
    os.kill(first.pid, signal.SIGSTOP)
    wait_until(led_by(second), description="the second leads when the first stands still")
    assert leader()[1] > fence
    fence = leader()[1]
    os.kill(first.pid, signal.SIGCONT)
    wait_until(lambda: (store.decisions()["q"].leader, leader()[0]) == (str(second.pid),) * 2, description="it decides")
    assert sleepers(tmp_path) == workers, "it has found what the first had started"

    os.kill(second.pid, signal.SIGKILL)
    wait_until(led_by(first), description="the first leads again when the second is killed")
    assert leader()[1] > fence
    assert sleepers(tmp_path) == workers, "they outlive their controller"
    os.kill(workers[0], signal.SIGKILL)
    wait_until(
        lambda: len(sleepers(tmp_path)) == 2 and sleepers(tmp_path) != workers,
        description="what dies is replaced by who leads now",
    )
    store.close()
