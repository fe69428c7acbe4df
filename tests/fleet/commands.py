"""Commands that scale the pool `naps` with real workers, and what can be seen of them from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from agentq.fleet.children import birth_of
from tests.fleet.scaled import PROJECT, Nap, naps_in
from tests.kit.process import ManagedProcess, clean_environment
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer

POOL: dict[str, Any] = {
    "max": 2,
    "best_effort": True,
    "slo_wait": "2s",
    "idle_to_zero": "2s",
    "shrink_after": "0s",
}


class Commands:
    """A folder in which commands are started, for one store.

    Args:
        env: settings of commands, workers and of who sends.
        pool: fields of the pool, instead of or beside those of `POOL`.
    """

    def __init__(self, server: PrivateServer, folder: Path, *, env: Mapping[str, str] | None = None, **pool: Any):
        self.folder = folder
        self.notes = folder / "notes"
        settings = {"NAPS": str(self.notes), "NAPS_POOL": json.dumps({**POOL, **pool}), **(env or {})}
        self._env = clean_environment(
            {"AGENTQ_REDIS_URL": server.celery_url, "AGENTQ_APP": f"{PROJECT}:app", **settings}
        )
        self.project = load_module(PROJECT, url=server.celery_url, **settings)
        self.store = self.project.app.store
        self._started: list[ManagedProcess] = []

    def start(self, *argv: str) -> ManagedProcess:
        """`agentq` with these arguments, which runs on."""
        log = self.folder / f"{argv[0]}-{len(self._started)}.log"
        made = ManagedProcess([sys.executable, "-m", "agentq.cli", *argv], log=log, env=self._env, cwd=self.folder)
        made.start()
        self._started.append(made)
        return made

    def become(self, *argv: str) -> NoReturn:
        """Have this process, a fork on a terminal of its own, go on as `agentq` with these arguments."""
        os.chdir(self.folder)
        os.execve(  # noqa: S606 — no shell is wanted
            sys.executable,
            [sys.executable, "-m", "agentq.cli", *argv],
            {**self._env, "TERM": "xterm", "COLUMNS": "110", "LINES": "30"},
        )

    def send(self, numbers: range, seconds: float) -> None:
        """Queue one nap for each number."""
        for number in numbers:
            self.project.nap.delay(number, seconds)

    def naps(self) -> dict[int, Nap]:
        """What the steps have left, by number."""
        return naps_in(self.notes)

    def each_once(self, numbers: range) -> bool:
        """Tell whether each of these has begun once and ended once, and nothing else has."""
        found = self.naps()
        return found.keys() == set(numbers) and all(len(nap.begins) == len(nap.ends) == 1 for nap in found.values())

    def workers(self) -> list[int]:
        """The workers that the local driver has, by their files."""
        files = [path.read_text() for path in self.folder.glob(".agentq/fleet/*/*.json")]
        found = [json.loads(text) for text in files if text]
        return sorted(each["pid"] for each in found if birth_of(each["pid"]) == each["birth"])

    def leader(self) -> str:
        """Who leads the pool now, by its process's number; empty for nobody."""
        lead = self.store.leaders().get("naps")
        return "" if lead is None or not lead.left_ms else lead.leader.rpartition(":")[2]

    def close(self) -> None:
        """No command runs any more, and no worker."""
        workers = self.workers()
        for process in reversed(self._started):
            process.kill_tree()
        for pid in workers:
            kill(pid)


def kill(pid: int) -> None:
    """SIGKILL a worker with its children; they are one group."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def address_in(log: str, words: str) -> str:
    """The address that the log tells after these words; empty while it does not."""
    found = re.search(rf"{re.escape(words)}(?:http://)?([0-9.]+:[0-9]+)", log)
    return found[1] if found is not None else ""
