"""A pool of real workers that a controller sizes by the local driver, and what became of its steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentq.core.pools import PoolSpec
from agentq.core.sizing import Decision
from agentq.fleet.controller import Controller, Terms
from agentq.fleet.drivers import Setup
from agentq.fleet.drivers.local import Local
from tests.kit import zygote
from tests.kit.process import clean_environment
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer

PROJECT = "tests.projects.naps"
LOOK_S = 0.25


class ForkingLocal(Local):
    """Starts workers as forks of a process that has imported Celery already, where that can be."""

    def _spawn(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> Any:
        if zygote.can_fork(argv, env):
            return zygote.fork(argv, env=env, cwd=log.parent, log=log)
        return super()._spawn(argv, env, log)


@dataclass(frozen=True)
class Nap:
    """What a step has left: when it was begun and ended, each time that it was."""

    begins: tuple[float, ...]
    ends: tuple[float, ...]


def naps_in(notes: Path) -> dict[int, Nap]:
    """What steps have left in a file, by number."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    found: dict[int, dict[str, list[float]]] = {}
    for line in lines:
        number, what, when = line.split()
        found.setdefault(int(number), {"begins": [], "ends": []})[what].append(float(when))
    return {number: Nap(tuple(each["begins"]), tuple(each["ends"])) for number, each in found.items()}


class ScaledPool:
    """The pool `naps`, its controller and its workers.

    Args:
        env: settings of the workers and of who sends; such as a broker's address.
        spec: fields of the pool.
    """

    def __init__(
        self, server: PrivateServer, folder: Path, *, env: Mapping[str, str] | None = None, **spec: Any
    ) -> None:
        fields: dict[str, Any] = {
            "max": 2,
            "best_effort": True,
            "slo_wait": timedelta(seconds=2),
            "idle_to_zero": timedelta(seconds=1),
            "shrink_after": timedelta(seconds=0),
        }
        self.pools = {"naps": PoolSpec(name="naps", **{**fields, **spec})}
        self.notes = folder / "notes"
        self._env = {"AGENTQ_REDIS_URL": server.celery_url, "NAPS": str(self.notes), **(env or {})}
        self.project = load_module(PROJECT, url=server.celery_url, **(env or {}))
        self.store = self.project.app.store
        setup = Setup(lambda: self.pools, self.store, self._command, folder / "fleet", grace_s=0.0)
        self.driver = ForkingLocal(setup)
        self.controller = Controller(self.store, self.driver, Terms(pools=lambda: dict(self.pools)))
        self.decisions: list[Decision] = []

    def _command(self, pool: str, instance: str) -> tuple[list[str], Mapping[str, str]]:
        label = instance.rpartition("/")[2]
        argv = [sys.executable, "-m", "celery", "-A", PROJECT, "worker", "-l", "WARNING", "-n", f"{label}@%h"]
        argv += ["-P", "threads", "-c", "1", "-Q", pool, "--without-gossip", "--without-mingle"]
        return argv, clean_environment({**self._env, "AGENTQ_INSTANCE": instance})

    def change(self, **fields: Any) -> None:
        """Declare the pool otherwise, from the next round on."""
        self.pools["naps"] = self.pools["naps"].model_copy(update=fields)

    def send(self, numbers: range, seconds: float) -> float:
        """Queue one nap for each number; returns when."""
        began = time.time()
        for number in numbers:
            self.project.nap.delay(number, seconds)
        return began

    def run_until(self, reached: Callable[[], object], *, what: str, timeout: float = 60.0) -> None:
        """Have the controller go round until that is so."""
        deadline = time.monotonic() + timeout
        while True:
            self.decisions += self.controller.round()
            if reached():
                return
            assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}; {self.decisions[-1]!r}"
            time.sleep(LOOK_S)

    def naps(self) -> dict[int, Nap]:
        """What the steps have left, by number."""
        return naps_in(self.notes)

    def each_once(self, numbers: range) -> bool:
        """Tell whether each of these has begun once and ended once, and nothing else has."""
        found = self.naps()
        return found.keys() == set(numbers) and all(len(nap.begins) == len(nap.ends) == 1 for nap in found.values())

    @property
    def up(self) -> int:
        """Workers that have enrolled."""
        return len(self.store.workers())

    def close(self) -> None:
        """Nothing of it runs any more."""
        self.controller.close(keep=False)
