"""A process that has loaded Celery and agentq, from which workers are forked: most of a worker's start is imports.

What is forked goes on as ``python -m celery …`` does, with an environment, a folder and a process group of its own. It
loads the app by itself, and makes its pool and its keeper as ever.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_PRELOADED: Final = (
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.apps.worker",
    "celery.worker.consumer",
    "celery.concurrency.prefork",
    "celery.concurrency.thread",
    "celery.app.amqp",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.backends.redis",
    "celery.fixups.django",
    "celery.loaders.app",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.control",
    "celery.worker.loops",
    "celery.worker.strategy",
    "kombu.asynchronous.hub",
    "kombu.transport.redis",
    "kombu.utils.json",
    "billiard.pool",
    "agentq.app",
    "agentq.engine.bootsteps",
    "agentq.engine.transport",
    "agentq.runtime.port",
    "agentq.store.store",
)

_OF_THE_START: Final = (
    "PYTHONHASHSEED",
    "PYTHONFAULTHANDLER",
    "PYTHONWARNINGS",
    "PYTHONDEVMODE",
    "REMAP_SIGTERM",
)
"""Variables that count at the start of Python, or of Celery's import, alone."""

_PR_SET_CHILD_SUBREAPER: Final = 36

_POOLS: Final = ("prefork", "threads", "solo")
"""Others change Python itself before anything else is imported."""


def can_fork(argv: Sequence[str], env: Mapping[str, str]) -> bool:
    """Tell whether a command may be a fork; else it needs a Python of its own."""
    return (
        sys.platform == "linux"
        and list(argv[:3]) == [sys.executable, "-m", "celery"]
        and any(pool in argv for pool in _POOLS)
        and all(env.get(name) == os.environ.get(name) for name in _OF_THE_START)
        and "TEST_FRESH_WORKERS" not in os.environ
    )


class Forked:
    """What ``subprocess.Popen`` is for a program of its own: here the fork's id and how it ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return the exit code; None while it runs."""
        if self.returncode is None and self._has_ended(0.0):
            self.returncode = _zygote().code_of(self.pid)
            os.close(self._descriptor)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code."""
        if self.returncode is None and not self._has_ended(timeout):
            raise subprocess.TimeoutExpired(["celery"], timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def _has_ended(self, seconds: float | None) -> bool:
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        return bool(waiting.poll(None if seconds is None else seconds * 1000))


def fork(argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> Forked:
    """Start ``python -m celery …`` as a fork; its output is appended to the log."""
    log.touch()
    return _zygote().fork({"argv": list(argv[3:]), "env": dict(env), "cwd": str(cwd), "log": str(log)})


class Zygote:
    """The process, as its one user sees it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._codes: dict[int, int] = {}
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=Path(__file__).parents[2],
            )
        self._lines = self._socket.makefile("r")
        atexit.register(self._end)

    def fork(self, request: dict[str, Any]) -> Forked:
        """Have it fork, and return the fork."""
        with self._lock:
            self._socket.sendall(f"{json.dumps(request)}\n".encode())
            while True:
                told = self._hear()
                if "started" in told:
                    return Forked(told["started"])

    def code_of(self, pid: int) -> int:
        """Return the exit code of a fork that has ended."""
        with self._lock:
            while pid not in self._codes:
                self._hear()
            return self._codes.pop(pid)

    def _end(self) -> None:
        self._lines.close()
        self._socket.close()
        self._process.wait(timeout=10)

    def _hear(self) -> dict[str, int]:
        line = self._lines.readline()
        assert line, "the zygote has ended"
        told: dict[str, int] = json.loads(line)
        if "ended" in told:
            self._codes[told["ended"]] = told["code"]
        return told


_made: list[Zygote] = []


def _zygote() -> Zygote:
    if not _made:
        _made.append(Zygote())
    return _made[0]


# -- the program


def _serve(ours: socket.socket) -> dict[str, Any]:
    """Fork for each request, and tell of each fork's end; returns in a fork, with what it is to be."""
    woken, wakes = socket.socketpair()
    for each in (woken, wakes):
        each.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rest, forks = b"", set[int]()
    while True:
        ready, _, _ = select.select([ours, woken], [], [])
        if woken in ready:
            with suppress(BlockingIOError):
                woken.recv(4096)
            _tell_of_ends(ours, forks)
        if ours not in ready:
            continue
        heard = ours.recv(1 << 20)
        if not heard:
            # The tests have ended; so does what they have started, by the signal of its parent's end.
            os._exit(0)
        *requests, rest = (rest + heard).split(b"\n")
        for text in requests:
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for each in (woken, wakes, ours):
                    each.close()
                request: dict[str, Any] = json.loads(text)
                return request
            forks.add(pid)
            ours.sendall(f'{{"started": {pid}}}\n'.encode())


def _tell_of_ends(ours: socket.socket, forks: set[int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid not in forks:
            continue  # one that a worker has left behind
        forks.remove(pid)
        ours.sendall(json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


def _become(request: dict[str, Any]) -> None:
    """Have all that a program of its own would have."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for source, number in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(source, number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    paths = [request["cwd"], *filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:] = [*paths, *(path for path in sys.path if path not in paths)]
    celery = importlib.import_module("celery")
    sys.argv = [str(Path(str(celery.__file__)).parent / "__main__.py"), *request["argv"]]


def main() -> None:
    """Serve until the tests end, which closes the socket; in a fork, be a worker."""
    for name in _PRELOADED:
        importlib.import_module(name)
    # What a killed worker leaves behind comes to this process, which looks at its end at once: whom it would come to
    # else may take a second or two, in which the tests would take it for alive.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    # Ends with the zygote. That one has no such signal: it would come when the thread ends that has started it.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    _become(request)
    importlib.import_module("celery.__main__").main()


if __name__ == "__main__":
    main()
