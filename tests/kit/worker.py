"""A real worker process: ``celery -A module worker`` with a log, ready when its log says so."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.kit.process import ManagedProcess, clean_environment
from tests.kit.waiting import wait_until


class WorkerProcess(ManagedProcess):
    """One Celery worker with its pool, in a process group of its own."""

    ready_line = " ready."

    def __init__(
        self,
        app: str,
        *,
        folder: Path,
        url: str | None = None,
        queues: Sequence[str] = (),
        concurrency: int = 2,
        pool: str = "prefork",
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        cwd: Path | None = None,
    ) -> None:
        self.size = concurrency if pool == "prefork" else 0
        self.name = f"w{uuid.uuid4().hex[:8]}"
        argv = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", "-n", f"{self.name}@%h"]
        argv += ["-P", pool, "-c", str(concurrency)]
        if queues:
            argv += ["-Q", ",".join(queues)]
        # Gossip and mingle only delay the start: each asks all workers of the broker and waits for a second.
        argv += ["--without-gossip", "--without-mingle", *options]
        extra = {"C_FORCE_ROOT": "1", **(env or {})}
        if url is not None:
            extra["AGENTQ_REDIS_URL"] = url
        super().__init__(argv, log=folder / f"{self.name}.log", env=clean_environment(extra), cwd=cwd)

    def launch(self) -> WorkerProcess:
        """Start the worker and return it once it serves."""
        self.start()
        self.wait_ready()
        return self

    def pool_children(self) -> list[int]:
        """Return the ids of the pool's children: all descendants but the keeper."""
        found = []
        for process in self.tree()[1:]:
            with suppress(psutil.NoSuchProcess):
                if "agentq.engine.keeper" not in " ".join(process.cmdline()):
                    found.append(process.pid)
        return found

    def whole_pool(self) -> list[int]:
        """Return the ids of the pool's children when all are there: one that has died is replaced a moment later."""

        def look() -> list[int] | None:
            found = self.pool_children()
            return found if len(found) == self.size else None

        return wait_until(look, description=f"{self.size} children", report=self.log) if self.size else []

    def kill_child(self, index: int = 0) -> int:
        """SIGKILL one child by its place among the pool's; returns its id."""
        pid = self.whole_pool()[index]
        os.kill(pid, signal.SIGKILL)
        return pid

    def pause(self) -> None:
        """Stop the whole tree (SIGSTOP), as a machine that stands still."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a stopped tree go on."""
        os.killpg(self.pid, signal.SIGCONT)
