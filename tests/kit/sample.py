"""One project with its server and its worker, as the Celery tests see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

TIMEOUT = 60.0
"""Seconds to wait for a result: generous, two busy cores."""


@dataclass(frozen=True)
class Library:
    """The library's steps in one kind of app, served by one plain worker."""

    kind: str
    app: Any
    server: PrivateServer
    worker: WorkerProcess

    def task(self, name: str) -> Any:
        """Return a task by the last part of its name."""
        return self.app.tasks[f"library.{name}"]


def start_library(kind: str, *, server: PrivateServer, start: Callable[..., WorkerProcess]) -> Library:
    """Load the project ``kind`` and start a plain worker for it: no queue is named."""
    name = f"tests.projects.{kind}"
    env = {"EXISTING_URL": server.celery_url} if kind == "existing_app" else {}
    worker = start(name, url=server.celery_url, env=env)
    module = load_module(name, url=server.celery_url, **env)
    return Library(kind=kind, app=module.app, server=server, worker=worker)


def lines(path: Path) -> list[str]:
    """Return the lines that steps have noted in a file so far."""
    return path.read_text().splitlines() if path.exists() else []


def wait_for_lines(path: Path, count: int, *, timeout: float = TIMEOUT) -> list[str]:
    """Return a file's lines once there are ``count`` of them."""
    wait_until(
        lambda: len(lines(path)) >= count,
        description=f"{count} lines in {path.name}",
        timeout=timeout,
        report=lambda: "\n".join(lines(path)[-20:]),
    )
    return lines(path)
