"""Child processes: how they end, and whether one that somebody else has started is still the same."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

if sys.platform == "linux":
    _PR_SET_PDEATHSIG = 1
    # Loaded before the fork: between fork and exec no lock of the loader may be taken.
    _libc: ctypes.CDLL | None = ctypes.CDLL(None, use_errno=True)
else:
    _libc = None


def die_with_parent() -> None:
    """The child gets SIGTERM when the thread that forked it ends, so a killed command leaves no workers.

    Commands start their members on the main thread, whose end is the process's end. To be called between fork and exec.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def ending(code: int) -> str:
    """How a process ended, in words: `exit code 1`, `signal SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def birth_of(pid: int) -> str | None:
    """What tells the process of this number from a later one; None when there is none, or it is only not yet buried."""
    stat = Path(f"/proc/{pid}/stat")
    if sys.platform == "linux":
        try:
            # The name in parentheses may hold anything; behind it come the state and, as the 20th, the start.
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    try:
        found = subprocess.run(
            ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def send(pid: int, number: signal.Signals, *, group: bool = False) -> None:
    """The process, or its whole group, has the signal, if it is there."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if group else os.kill)(pid, number)
