"""A place for runs that are disturbed: a server, the flows' app, and workers that come and go."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

FLOWS = "tests.projects.flows"

LENIENT = {"AGENTQ_DEATH_LIMIT": "1000"}
"""Who kills at random hits one step alone three times now and then: that is bad luck here, and no poison."""


class Fleet:
    """Workers that serve a project, by default the flows, on one server; killed ones are topped up.

    ``url`` is the workers' way to the server, where that is another one than the tests'; ``env`` what names a mode.
    """

    def __init__(
        self,
        server: PrivateServer,
        make: Callable[..., WorkerProcess],
        *,
        module: str = FLOWS,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.server = server
        self.env = {**LENIENT, **(env or {})}
        self.flows: ModuleType = load_module(module, url=server.celery_url, **self.env)
        self.workers: list[WorkerProcess] = []
        self._make = make
        self._module = module
        self._url = url if url is not None else server.celery_url

    def start(self, **options: Any) -> WorkerProcess:
        """Start one plain worker of two children without waiting for it."""
        worker = self._make(self._module, url=self._url, env=self.env, **options)
        worker.start()
        self.workers.append(worker)
        return worker

    def ensure(self, count: int) -> None:
        """Return when at least ``count`` workers serve."""
        self.workers = [worker for worker in self.workers if worker.running]
        while len(self.workers) < count:
            self.start()
        for worker in self.workers:
            worker.wait_ready()

    def choose(self, rng: random.Random) -> WorkerProcess:
        """Return one worker, chosen at random among those that serve; it waits for the first one that does."""

        def serving() -> list[WorkerProcess]:
            return [worker for worker in self.workers if worker.ready_line in worker.log()]

        return rng.choice(wait_until(lambda: serving() or None, description="a worker serves"))

    def kill(self, rng: random.Random) -> None:
        """SIGKILL the tree of one worker, chosen at random."""
        victim = self.choose(rng)
        victim.kill_tree()
        self.workers.remove(victim)


class Field:
    """One test's view of a fleet: its own folder for effects, its own random choices."""

    def __init__(self, fleet: Fleet, *, folder: Path, rng: random.Random) -> None:
        self.fleet = fleet
        self.server = fleet.server
        self.flows: Any = fleet.flows
        self.app: Any = fleet.flows.app
        self.folder = folder
        self.rng = rng

    def start_workers(self, count: int = 1, **options: Any) -> list[WorkerProcess]:
        """Start more workers and return them when they serve."""
        new = [self.fleet.start(**options) for _ in range(count)]
        for worker in new:
            worker.wait_ready()
        return new

    def kill_one(self) -> None:
        """SIGKILL the tree of one worker."""
        self.fleet.kill(self.rng)

    def replace_one(self) -> None:
        """SIGKILL the tree of one worker; another starts in its place while the rest go on."""
        if len(self.fleet.workers) > 1:
            self.fleet.ensure(2)
        self.fleet.kill(self.rng)
        self.fleet.start()

    def path(self, name: str) -> Path:
        """Return a path in the test's own folder."""
        return self.folder / name


def shape_of(handle: Any) -> Counter[tuple[str, str]]:
    """Return how often each (step, status) stands in a run: what an undisturbed run is compared by."""
    return Counter((step.name, step.status) for step in handle.steps())
