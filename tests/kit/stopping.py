"""The project of steps that are stopped, as its tests see it: one worker of one pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from agentq import RunCancelled
from tests.kit.projects import load_module
from tests.kit.sample import TIMEOUT, wait_for_lines
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.stopping"

SHORT = {"AGENTQ_CANCEL_GRACE": "1s", "AGENTQ_RESULT_LIMIT": "400KiB", "AGENTQ_TURN_LIMIT": "1s"}
"""Limits that tests can wait for."""


@dataclass(frozen=True)
class Stopping:
    """The project on its server, with a folder of the test's own."""

    server: PrivateServer
    worker: WorkerProcess
    folder: Path

    @property
    def app(self) -> Any:
        """The project's app."""
        return load_module(PROJECT, url=self.server.celery_url, **SHORT).app

    @property
    def notes(self) -> Path:
        """Where the test's steps say what becomes of them."""
        return self.folder / "notes"

    def at(self, folder: Path) -> Stopping:
        """Return the same with another folder."""
        return replace(self, folder=folder)

    def step(self, name: str) -> Any:
        """Return a step by its name."""
        return self.app.celery.tasks[f"{PROJECT}.{name}"]

    def start(self, agent: str, *args: Any) -> Any:
        """Start an agent."""
        return self.app.celery.tasks[agent].start(*args)

    def called(self, name: str, *args: Any) -> Any:
        """Return what an agent is told that calls a step."""
        return self.start("calls", name, list(args)).get(timeout=TIMEOUT)

    def cancel_when_started(self, handle: Any) -> None:
        """Cancel a run whose step has started, and wait for its end."""
        wait_for_lines(self.notes, 1)
        handle.cancel("enough")
        with pytest.raises(RunCancelled):
            handle.get(timeout=TIMEOUT)

    def statuses(self, handle: Any) -> list[str]:
        """Return the statuses of a run's steps."""
        return [step.status for step in handle.steps()]


def start_stopping(server: PrivateServer, *, pool: str, start: Callable[..., WorkerProcess]) -> Stopping:
    """Start a worker of the pool and return the project."""
    worker = start(PROJECT, url=server.celery_url, pool=pool, env=SHORT)
    return Stopping(server=server, worker=worker, folder=Path())
