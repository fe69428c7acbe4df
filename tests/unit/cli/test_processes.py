"""Child processes are started again after a pause, and stopped with their children."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import pytest

from agentq.cli.processes import Company, Member
from agentq.fleet.children import ending
from tests.kit.waiting import wait_until

IGNORES_TERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(60)
"""
WITH_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def member(code: str, name: str = "one") -> Member:
    return Member(name, lambda: [sys.executable, "-c", code], dict(os.environ))


def test_what_dies_is_started_again_after_the_pause() -> None:
    lines: list[str] = []
    counted: list[int] = []

    def decide_wait(deaths: int) -> timedelta:
        counted.append(deaths)
        return timedelta(0)

    company = Company(
        [member("print('here'); raise SystemExit(3)")],
        write_line=lambda name, line: lines.append(f"{name}: {line}"),
        decide_wait=decide_wait,
    )
    company.start()

    def started_three_times() -> bool:
        company.tend()
        return lines.count("one: here") >= 3

    wait_until(started_three_times, description="three starts")
    company.stop(grace=timedelta(0))
    assert counted[:2] == [1, 2]
    assert "one: ended (exit code 3); starts again in 0.0 s" in lines


def test_stop_kills_what_does_not_listen_after_the_grace() -> None:
    lines: list[str] = []
    company = Company([member(IGNORES_TERM)], write_line=lambda _name, line: lines.append(line))
    company.start()
    wait_until(lambda: "up" in lines, description="the member is up")
    process = company.members[0].process
    assert process is not None
    company.stop(grace=timedelta(seconds=0.1))
    assert process.returncode == -9
    assert not company.members[0].alive


def test_stop_takes_the_children_too() -> None:
    lines: list[str] = []
    company = Company([member(WITH_CHILD)], write_line=lambda _name, line: lines.append(line))
    company.start()
    wait_until(lambda: bool(lines), description="the member's child is up")
    child = int(lines[0])
    company.stop(grace=timedelta(seconds=2))
    wait_until(lambda: not running(child), description="the child is gone")


def running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("code", "words"), [(0, "exit code 0"), (-9, "signal SIGKILL"), (-99, "signal 99")])
def test_ending_in_words(code: int, words: str) -> None:
    assert ending(code) == words
