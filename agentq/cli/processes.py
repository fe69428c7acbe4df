"""Child processes of a command: started together, watched, started again, stopped together.

Owns processes and their output. What to run, and how long to wait before starting again, it is told.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import IO

from agentq.fleet.children import die_with_parent, ending

WriteLine = Callable[[str, str], None]
"""Called with the member's name and one line of its output, from a thread of its own."""

DecideWait = Callable[[int], timedelta]
"""From the deaths in a row to the pause before the next start."""

STEADY_SECONDS = 60.0
"""A member that lived so long did not die of its start: its deaths before do not count."""

POLL_SECONDS = 0.1


@dataclass
class Member:
    """One child process, by name."""

    name: str
    make_argv: Callable[[], Sequence[str]]
    """Called for each start, so that each process may have a name of its own."""
    env: Mapping[str, str]
    needed: bool = True
    """Whether it is started again when it ends by itself with exit code 0."""
    deaths: int = field(default=0, init=False)
    """Deaths in a row, each before `STEADY_SECONDS` were over."""
    restart_at: float | None = field(default=None, init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    started_at: float = field(default=0.0, init=False)

    @property
    def alive(self) -> bool:
        """Whether the process runs now."""
        return self.process is not None and self.process.poll() is None


class Company:
    """Members that live together: `start`, then `tend` again and again, then `stop`."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        write_line: WriteLine,
        decide_wait: DecideWait | None = None,
    ) -> None:
        """`decide_wait` gives the pause before a dead member starts again; without it, none does."""
        self.members = list(members)
        self._write_line = write_line
        self._decide_wait = decide_wait
        self._readers: list[threading.Thread] = []
        self._is_asked = False

    def start(self) -> None:
        """Every member has a process."""
        members, self.members, self._is_asked = self.members, [], False
        self.add(members)

    def add(self, members: Sequence[Member]) -> None:
        """The members belong to the company and have a process."""
        self.members.extend(members)
        for member in members:
            self._launch(member)

    def tend(self) -> list[Member]:
        """Members whose time has come are started again; gives those found dead since the last call."""
        dead = []
        for member in self.members:
            if member.restart_at is not None:
                if time.monotonic() >= member.restart_at:
                    member.restart_at = None
                    self._launch(member)
            elif member.process is not None and member.process.poll() is not None:
                dead.append(member)
                self._bury(member)
        return dead

    def _bury(self, member: Member) -> None:
        assert member.process is not None
        code = member.process.returncode
        _kill_group(member.process)
        member.process = None
        if self._decide_wait is None or (code == 0 and not member.needed):
            return
        steady = time.monotonic() - member.started_at >= STEADY_SECONDS
        member.deaths = 1 if steady else member.deaths + 1
        pause = self._decide_wait(member.deaths)
        member.restart_at = time.monotonic() + pause.total_seconds()
        self._write_line(member.name, f"ended ({ending(code)}); starts again in {pause.total_seconds():.1f} s")

    def ask(self) -> None:
        """All members are asked by SIGTERM to finish what they do; none starts again. A second call does nothing."""
        if self._is_asked:
            return
        self._is_asked = True
        for member in self.members:
            member.restart_at = None
            if member.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    member.process.send_signal(signal.SIGTERM)

    def stop(self, *, grace: timedelta, hurry: threading.Event | None = None) -> None:
        """No member runs: asked by SIGTERM to finish what they do, killed with their children after `grace`.

        `hurry`, once set, ends the grace at once. A second call does nothing.
        """
        running = [member.process for member in self.members if member.process is not None]
        self.ask()
        deadline = time.monotonic() + grace.total_seconds()
        while any(process.poll() is None for process in running) and time.monotonic() < deadline:
            if hurry is not None and hurry.is_set():
                break
            time.sleep(POLL_SECONDS / 2)
        for process in running:
            _kill_group(process)
            process.wait()
        for reader in self._readers:
            reader.join(timeout=1)
        for member in self.members:
            member.process = None

    def _launch(self, member: Member) -> None:
        # A session of its own: Ctrl-C in the terminal reaches this command alone, which then stops the
        # members in its own way; and their children can be killed with them as one group.
        process = subprocess.Popen(
            list(member.make_argv()),
            env=dict(member.env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        member.process, member.started_at = process, time.monotonic()
        assert process.stdout is not None
        reader = threading.Thread(target=self._read, args=(member.name, process.stdout), daemon=True)
        reader.start()
        self._readers = [thread for thread in self._readers if thread.is_alive()] + [reader]

    def _read(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._write_line(name, line.decode("utf-8", errors="replace").rstrip("\r\n"))


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The group, not the process: the children of a pool would go on working for nobody.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
