"""A place for runs that are disturbed: a server of one test, the flows' app, workers that come and go."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess

FLOWS = "tests.projects.flows"


class Field:
    """Starts runs of the flows' agents and kills the workers under them."""

    def __init__(
        self, *, server: PrivateServer, start: Callable[..., WorkerProcess], folder: Path, rng: random.Random
    ) -> None:
        self.server = server
        self.folder = folder
        self.rng = rng
        self.flows: ModuleType = load_module(FLOWS, url=server.celery_url)
        self.app: Any = self.flows.app
        self.workers: list[WorkerProcess] = []
        self._start = start

    def start_workers(self, count: int = 1, **options: Any) -> list[WorkerProcess]:
        """Start plain workers of two children each."""
        new = [self._start(FLOWS, url=self.server.celery_url, **options) for _ in range(count)]
        self.workers += new
        return new

    def kill_one(self) -> None:
        """SIGKILL the tree of one live worker, chosen at random."""
        victim = self.rng.choice([worker for worker in self.workers if worker.running])
        victim.kill_tree()
        self.workers.remove(victim)

    def replace_one(self) -> None:
        """SIGKILL the tree of one live worker and start another in its place."""
        self.kill_one()
        self.start_workers(1)

    def path(self, name: str) -> Path:
        """Return a path in the test's own folder."""
        return self.folder / name


def shape_of(handle: Any) -> Counter[tuple[str, str]]:
    """Return how often each (step, status) stands in a run: what an undisturbed run is compared by."""
    return Counter((step.name, step.status) for step in handle.steps())
