"""Starts and ends the processes of a measurement: a private server, and workers that are ready when they say so."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

READY_S = 120.0
"""How long a worker may take to start."""


@contextmanager
def ended_afterwards(
    argv: Sequence[str], *, log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the block ends: then SIGTERM, and SIGKILL after half a minute."""
    with log.open("ab") as sink:
        process = subprocess.Popen(argv, stdout=sink, stderr=sink, env={**compiled(log.parent), **environment})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def compiled(folder: Path) -> dict[str, str]:
    """The environment of a process that finds its modules compiled, as where they are installed for good."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**given, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def await_line(log: Path, line: str, process: subprocess.Popen[bytes]) -> None:
    """Return when ``line`` stands in the log; raises RuntimeError with the log's end if the process never says it."""
    wait_for(lambda: _said(log, line, process), f"{line!r} in {log.name}", timeout=READY_S)


def _said(log: Path, line: str, process: subprocess.Popen[bytes]) -> bool:
    text = log.read_text(errors="replace")
    if line not in text and process.poll() is not None:
        raise RuntimeError(f"A worker of the benchmark ended with {process.returncode}:\n{text[-2000:]}")
    return line in text


def wait_for(predicate: Callable[[], bool], what: str, *, timeout: float = 300.0, pause: float = 0.01) -> None:
    """Return when ``predicate`` holds; raises TimeoutError that names ``what``. Times are in seconds."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {timeout:.0f} s for {what}, in vain.")
        time.sleep(pause)


def celery_worker(app: str, *, pool: str, concurrency: int, queues: str | None) -> list[str]:
    """Return the command of a Celery worker; without ``queues`` it serves all that its app declares."""
    argv = [sys.executable, "-m", "celery", "-A", app, "worker", "-P", pool, "-c", str(concurrency), "-l", "INFO"]
    # Each of these asks every worker of the broker and waits a second for their answers.
    argv += ["--without-gossip", "--without-mingle", "-n", f"bench{os.getpid()}@%h"]
    return argv + (["-Q", queues] if queues else [])


def resident_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants, in bytes; what they share counts once (PSS)."""
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(int(process.memory_full_info().pss) for process in tree)
