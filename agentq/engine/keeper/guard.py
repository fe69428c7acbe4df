"""Starts the keeper from the worker's main process, starts another when it dies, and hears what it says."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from time import monotonic

from agentq.engine.keeper.board import ENDS, Board
from agentq.engine.keeper.program import Terms

logger = logging.getLogger(__name__)

_BOOT = (
    "import json, sys; told = json.loads(sys.stdin.readline()); sys.path[:] = told.pop('path'); "
    "from agentq.engine.keeper.program import main; main(told)"
)
"""The keeper finds modules where the worker does, without a search of its own, as an interpreter makes at its start."""

_BRIEF_S = 5.0
"""A keeper that lived for less did not die by accident; the next one waits a moment, so that they do not spin."""


class Guard:
    """The keeper of one worker id, as its main process sees it.

    Args:
        terms: what the keeper is told.
        board: the page that it shares.
        on_lost: called once, in a thread, when the keeper says that the worker was given up.
    """

    def __init__(self, terms: Terms, board: Board, *, on_lost: Callable[[], None]) -> None:
        self.terms = terms
        self.board = board
        self._on_lost = on_lost
        self._ready = threading.Event()
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._attend, name="agentq-guard", daemon=True)

    @property
    def pid(self) -> int | None:
        """The keeper's process id."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the keeper; raises OSError when it cannot be."""
        self._process = self._launch()
        self._thread.start()

    def wait_ready(self, seconds: float) -> bool:
        """Tell whether the worker is enrolled and its lease stands; waits for it for the time given."""
        return self._ready.wait(seconds)

    def release(self) -> None:
        """Let the keeper be the last: it hands back what is held when this process has ended."""
        self._over.set()
        self.board.farewell = ENDS

    def stop(self) -> None:
        """End the keeper; the lease runs out unless the worker leaves. Again: nothing happens."""
        self._over.set()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)

    def _launch(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self.board.descriptor,),
        )
        assert process.stdin is not None
        # Not on the command line, nor in the environment: the URL may hold a password.
        told = {**asdict(self.terms), "log_level": logging.getLogger("agentq").getEffectiveLevel(), "path": sys.path}
        try:
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already, and another one is started
        return process

    def _attend(self) -> None:
        while not self._over.is_set():
            assert self._process is not None
            began = monotonic()
            if self._hear(self._process):
                return
            self._process.wait()
            if self._over.is_set():
                return
            if monotonic() - began < _BRIEF_S:
                self._over.wait(0.2)
            logger.error(
                "keeper_died worker=%s status=%s: another is started", self.terms.worker, self._process.returncode
            )
            try:
                self._process = self._launch()
            except OSError as error:
                logger.critical("keeper_not_started worker=%s: %s", self.terms.worker, error)
                self._over.wait(1.0)
        # ``stop`` may have looked at the one before.
        if self._process is not None and self.board.farewell != ENDS:
            self._process.kill()
            self._process.wait()

    def _hear(self, process: subprocess.Popen[bytes]) -> bool:
        """Return True when the worker was given up, False when the keeper has ended without a word."""
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if line == b"ready\n":
                    self._ready.set()
                elif line == b"dead\n" and not self._over.is_set():
                    self._on_lost()
                    return True
        return False
