"""pytest-celery nodes over local processes, in place of containers.

A pytest-celery node asks its container for ``status``, ``kill``, ``restart``, ``reload``, ``logs``,
``ready``, ``teardown`` and ``celeryconfig``; these classes answer with a process. A kill reaches the whole
tree, as the kill of a container does.
"""

from __future__ import annotations

import signal as signals
import socket
import uuid
from typing import Any

import celery
from pytest_celery import CeleryTestWorker

from tests.kit.process import ManagedProcess
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess


class LocalContainer:
    """The part of a container that pytest-celery uses, over one process."""

    def __init__(self, process: ManagedProcess, *, name: str) -> None:
        self.process = process
        self.id = uuid.uuid4().hex
        self.name = f"{name}-{self.id[:6]}"

    @property
    def status(self) -> str:
        """Docker's words for alive and gone."""
        return "running" if self.process.running else "exited"

    @property
    def celeryconfig(self) -> dict[str, Any]:
        """Addresses for the app; only servers have them."""
        return {}

    def ready(self) -> bool:
        """Return once the process serves; raises when it ends first."""
        self.process.wait_ready()
        return True

    def reload(self) -> None:
        """Nothing to read again: the process is asked directly."""

    def logs(self) -> str:
        """Return the log since the last start."""
        return self.process.log()

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal and wait for the end: SIGKILL to the whole tree, any other to the main process."""
        number = signal if isinstance(signal, int) else int(signals.Signals[signal])
        if number == signals.SIGKILL:
            self.process.kill_tree()
        else:
            self.process.send(number)
            self.process.wait()

    def restart(self, timeout: float = 60.0) -> None:
        """End the process as a container's restart does, start it again, and return when it serves."""
        self.process.terminate()
        self.process.start()
        self.process.wait_ready(timeout=timeout)

    def teardown(self) -> None:
        """End the process."""
        self.process.terminate()


class ServerContainer(LocalContainer):
    """A private server as broker and backend."""

    process: PrivateServer

    @property
    def celeryconfig(self) -> dict[str, Any]:
        """The server's address, the same from inside and outside."""
        return {"url": self.process.celery_url, "host_url": self.process.celery_url, "vhost": "0"}


class WorkerContainer(LocalContainer):
    """A worker process."""

    process: WorkerProcess

    def __init__(self, process: WorkerProcess, *, queue: str) -> None:
        super().__init__(process, name="worker")
        self._queue = queue

    def worker_queue(self) -> str:
        """The first queue that the worker serves."""
        return self._queue

    def worker_name(self) -> str:
        """The part of the node name before the host."""
        return self.process.name

    def log_level(self) -> str:
        """The level that every worker of the tests logs at."""
        return "INFO"

    def version(self) -> str:
        """Celery's version, the same in all processes here."""
        return str(celery.__version__)


class LocalWorker(CeleryTestWorker):
    """A worker node whose Celery name holds this machine's name."""

    def hostname(self) -> str:
        """The node name by which remote control knows the worker."""
        return f"{self.worker_name}@{socket.gethostname()}"
