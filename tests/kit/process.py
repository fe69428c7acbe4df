"""Runs programs in process groups of their own and ends them without leftovers."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.kit import zygote
from tests.kit.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
"""The repository, which is on the path of every process that the tests start."""

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

SCRUBBED = ("AGENTQ_", "CELERY_", "REDIS_URL", "SENTRY_", "DJANGO_")
"""Variables of the developer's shell that must not reach a process under test."""

OWN = {"AGENTQ_ARCHIVE": "off"}
"""What holds where a test does not say otherwise: keys get their end with their run, without a copy before."""


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without settings of the developer's own, and with ``extra``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SCRUBBED)}
    parts = [str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(part for part in parts if part)
    environment["PYTHONUNBUFFERED"] = "1"
    environment.update(OWN)
    environment.update(extra or {})
    return environment


def _end_with_the_tests() -> None:
    """Have the kernel kill this process when the thread that started it ends: no SIGKILL of pytest leaves it."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def has_ended(process: psutil.Process) -> bool:
    """Tell whether a process is gone, or a zombie: who has inherited one may take a second or two to look at it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for_ends(processes: Sequence[psutil.Process], *, timeout: float = 30.0) -> list[psutil.Process]:
    """Wait until all have ended; return those that still run after the time."""
    end = time.monotonic() + timeout
    left = [each for each in processes if not has_ended(each)]
    while left and time.monotonic() < end:
        time.sleep(0.005)
        left = [each for each in left if not has_ended(each)]
    return left


class ManagedProcess:
    """A program with a log file, alone in its process group, so that one signal reaches its whole tree."""

    ready_line: str = ""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.argv = list(argv)
        self.log_path = log
        self.env = dict(env) if env is not None else clean_environment()
        self.cwd = cwd
        self.killed_at = 0.0
        """When it was killed, in seconds since the epoch: what a server of this machine has for its time."""
        self._process: subprocess.Popen[bytes] | zygote.Forked | None = None
        self._log_start = 0
        self._orphans: list[psutil.Process] = []

    @property
    def pid(self) -> int:
        """The main process's id."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the main process is alive; a stopped one counts as alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """The main process's exit code; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the program; its log goes on in the same file."""
        assert not self.running, "already running"
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        cwd = self.cwd if self.cwd is not None else ROOT
        if zygote.can_fork(self.argv, self.env):
            self._process = zygote.fork(self.argv, env=self.env, cwd=cwd, log=self.log_path)
            return
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.argv,
                env=self.env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_the_tests if sys.platform == "linux" else None,
            )

    def log(self) -> str:
        """Return what the program has written since its last start."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def wait_for_log(self, text: str, *, timeout: float = 60.0) -> None:
        """Return once the log of this start holds ``text``; fails at once when the program has ended."""

        def seen() -> bool:
            if text in self.log():
                return True
            assert self.running, f"{self.argv[0]} ended with {self.returncode}:\n{self.log()[-4000:]}"
            return False

        wait_until(
            seen,
            description=f"the log of {self.argv} says {text!r}",
            timeout=timeout,
            report=lambda: self.log()[-4000:],
        )

    def wait_ready(self, *, timeout: float = 60.0) -> None:
        """Return once the program has said that it serves."""
        self.wait_for_log(self.ready_line, timeout=timeout)

    def tree(self) -> list[psutil.Process]:
        """Return the main process and all its descendants, main first; empty when it is gone."""
        if not self.running:
            return []
        with suppress(psutil.NoSuchProcess):
            main = psutil.Process(self.pid)
            return [main, *main.children(recursive=True)]
        return []

    def children(self) -> list[int]:
        """Return the ids of the main process's descendants."""
        return [process.pid for process in self.tree()[1:]]

    def send(self, number: int) -> None:
        """Send a signal to the main process alone."""
        os.kill(self.pid, number)

    def kill_main(self) -> None:
        """SIGKILL the main process alone; whatever it started must notice by itself."""
        self._orphans += self.tree()[1:]
        self.killed_at = time.time()
        self.send(signal.SIGKILL)
        self.wait()

    def kill_tree(self) -> None:
        """SIGKILL main and all descendants, as the death of a machine or a container would."""
        tree = [*self.tree(), *self._orphans]
        self.killed_at = time.time()
        if self.running:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        for process in tree:
            # psutil knows a process by its start too: a recycled id is not taken for it.
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process is not None:
            self.wait()
        wait_for_ends(tree)

    def terminate(self, *, timeout: float = 60.0) -> None:
        """Ask the program to end (SIGTERM) and wait; its tree is killed if it does not. Again: the same."""
        if self._process is None:
            return
        if self.running:
            self.send(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.wait(timeout=timeout)
        self.kill_tree()

    def wait(self, *, timeout: float = 60.0) -> int:
        """Wait for the main process to end and return its exit code."""
        assert self._process is not None, "not started"
        return self._process.wait(timeout)
