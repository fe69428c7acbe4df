"""The Procfile and the compose file name the processes that ``agentq up`` runs."""

from __future__ import annotations

import re
from pathlib import Path

from workers.app import app

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = (ROOT / "docker" / "compose.yaml").read_text()


def procfile() -> dict[str, str]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return dict(re.split(r":\s*", line, maxsplit=1) for line in lines if not line.startswith("#"))


def test_one_worker_for_each_pool() -> None:
    pools = set(app.pools)
    assert procfile().keys() - {"flower"} == pools
    assert all(procfile()[pool] == f"agentq worker --pool {pool}" for pool in pools)
    assert set(re.findall(r"command: \[worker, --pool, (\w+)\]", COMPOSE)) == pools


def test_flower_has_our_columns_and_is_seen_by_this_machine_alone() -> None:
    command = procfile()["flower"]
    (conf,) = re.findall(r"--conf=(\S+)", command)
    assert (ROOT / conf).is_file()
    assert "--address=${FLOWER_ADDRESS:-127.0.0.1}" in command
    assert re.search(r'"127\.0\.0\.1:\$\{FLOWER_PORT:-5555\}:5555"', COMPOSE)


def test_only_flower_publishes_a_port_and_nobody_is_root() -> None:
    assert COMPOSE.count("ports:") == 1
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert re.search(r"^USER agentq$", dockerfile, re.MULTILINE)
