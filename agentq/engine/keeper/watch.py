"""Looks at other processes, and ends them, without taking a recycled id for the process that had it before."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress

_POLL_S = 0.1
"""Where the kernel tells nobody of a parent's end, how often is looked."""


_STANDS_S = 0.2
"""A process stands still within microseconds, but for one in a call that nothing interrupts: it does nothing else."""


class Parent:
    """The process that started this one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = _open(pid)
        # It may have ended before the descriptor was there; then the id may be another process's already.
        self.is_gone = os.getppid() != pid

    def wait(self, seconds: float) -> None:
        """Return when it has ended or the time has passed."""
        if self._descriptor is None:
            time.sleep(max(0.0, min(seconds, _POLL_S)))
            self.is_gone = os.getppid() != self.pid
        elif _ended(self._descriptor, seconds):
            self.is_gone = True

    def is_stopped(self) -> bool:
        """Tell whether it stands still by a signal; False where that cannot be seen."""
        return _state_of(self.pid) in ("T", "t")

    def hold(self) -> None:
        """Have it stand still."""
        _hold(self.pid, self._descriptor)

    def let_go(self) -> None:
        """Let it go on."""
        _send(self.pid, self._descriptor, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        _send(self.pid, self._descriptor, signal.SIGKILL)


class Brood:
    """The children of one process, as far as they were seen while it lived."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._descriptors: dict[int, int | None] = {}

    def see(self, pids: set[int]) -> None:
        """Get hold of those that are new, and let go of those that are not named any more."""
        for pid in pids - self._descriptors.keys():
            descriptor = _open(pid)
            # A slot may name a process that has ended, whose id is another's by now.
            if _parent_of(pid) in (self._parent, None) and pid > 1:
                self._descriptors[pid] = descriptor
            elif descriptor is not None:
                os.close(descriptor)
        for pid in self._descriptors.keys() - pids:
            self._forget(pid)

    def hold(self, pid: int) -> None:
        """Have one of them stand still; nothing happens to a process that is none of them."""
        if pid in self._descriptors:
            _hold(pid, self._descriptors[pid])

    def let_go(self, pid: int) -> None:
        """Let it go on."""
        if pid in self._descriptors:
            _send(pid, self._descriptors[pid], signal.SIGCONT)

    def kill(self, pid: int) -> None:
        """End one of them at once; nothing happens to a process that is none of them."""
        if pid in self._descriptors:
            _send(pid, self._descriptors[pid], signal.SIGKILL)

    def has_ended(self, pid: int, *, within_s: float = 0.0) -> bool:
        """Tell whether it is gone, or was never seen."""
        if pid not in self._descriptors:
            return True
        descriptor = self._descriptors[pid]
        if descriptor is not None:
            return _ended(descriptor, within_s)
        end = time.monotonic() + within_s
        while _lives(pid):
            if time.monotonic() >= end:
                return False
            time.sleep(0.01)
        return True

    def end(self, *, within_s: float) -> list[int]:
        """Kill all of them; return those that are still there after the time."""
        for pid in self._descriptors:
            self.kill(pid)
        end = time.monotonic() + within_s
        return [pid for pid in self._descriptors if not self.has_ended(pid, within_s=max(0.0, end - time.monotonic()))]

    def _forget(self, pid: int) -> None:
        descriptor = self._descriptors.pop(pid)
        if descriptor is not None:
            os.close(descriptor)


def _open(pid: int) -> int | None:
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    with suppress(OSError):
        return int(opener(pid))
    return None


def _ended(descriptor: int, seconds: float) -> bool:
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(max(0, round(seconds * 1000))))


def _send(pid: int, descriptor: int | None, number: int) -> None:
    with suppress(OSError):
        if descriptor is not None and sys.platform == "linux":
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(pid, number)


def _hold(pid: int, descriptor: int | None) -> None:
    if not _state_of(pid):
        return  # gone, or nobody could see when it stands
    _send(pid, descriptor, signal.SIGSTOP)
    end = time.monotonic() + _STANDS_S
    while _state_of(pid) not in ("T", "t", "Z", "X", "") and time.monotonic() < end:
        time.sleep(0.001)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _stat(pid: int) -> list[str]:
    """Return the fields of a process from its state on; empty where there is no such process or no such file."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _state_of(pid: int) -> str:
    return (_stat(pid) or [""])[0]


def _parent_of(pid: int) -> int | None:
    """Return a process's parent; None where that cannot be seen."""
    fields = _stat(pid)
    if fields:
        return int(fields[1])
    return 0 if sys.platform == "linux" else None
