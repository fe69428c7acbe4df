"""Notes on the shared page what this process runs, and until when it may.

Without a page (no worker, or one whose children could not open it) nothing is noted, and nothing ends by a hard limit.
"""

from __future__ import annotations

import math
import os
import threading
from contextlib import suppress
from time import monotonic

from agentq.engine.keeper.board import Board

PLACE = "_AGENTQ_BOARD"
"""Variable by which a child that was not forked finds the page."""

_board: Board | None = None
_slot: int | None = None


def publish(board: Board) -> None:
    """Make ``board`` the page of this process and of the children that it will have."""
    global _board
    _board = board
    os.environ[PLACE] = board.path


def withdraw(board: Board) -> None:
    """Undo ``publish``; nothing happens when another page stands there."""
    global _board
    if _board is board:
        _board = None
        os.environ.pop(PLACE, None)


def sit(index: int) -> None:
    """Take the place of a pool's child that has just started; ends it if its worker is gone already.

    A negative index is no child's: a solo pool says so of its main process, whose parent is anybody.

    A child asks the kernel to end it with its parent; one that ended before that leaves it for good.
    """
    global _board, _slot
    if index < 0:
        return
    if _board is None and (path := os.environ.get(PLACE)):
        with suppress(OSError):
            _board = Board.open(path)
    if _board is None:
        return
    if _board.main != os.getppid():
        os._exit(1)
    _slot = index if _board.seat(index) else None


def orders() -> int:
    """Return how many orders by remote control this worker has carried out, as far as its page says."""
    return _board.orders if _board is not None else 0


def note_order() -> None:
    """Note that an order was carried out: what was granted before may go by what holds no more."""
    if _board is not None:
        _board.orders += 1


def may_go_on(granted: int) -> bool:
    """Tell whether this worker takes work as far as its page says: it is neither drained nor unhealthy.

    ``granted``: the orders that had been carried out when the main process said how.
    """
    return _board is None or (not _board.closed and _board.orders == granted)


def is_busy(pid: int) -> bool:
    """Tell whether a child of this worker runs a step, or did when it died, as far as its page says."""
    return _board is not None and _board.is_busy(pid)


def note_warm(word: int) -> None:
    """Note what this process has open; see ``engine.resources``."""
    if _board is not None and (_slot is not None or _board.main == os.getpid()):
        _board.note_warm(_slot, word)


class Claim:
    """An attempt on the page, for the time of a block.

    Attributes:
        failed: whether its function has failed.
        counts: whether it was an attempt at all; not where its guards have put the step into a line, or sent it back.
    """

    __slots__ = ("_board", "_has_begun", "_limit_s", "_own", "_slot", "_take", "counts", "failed")

    def __init__(self, board: Board | None, *, take: int, limit_s: float) -> None:
        self._board = board
        self._own = board is not None and board.main == os.getpid()
        self._slot = None if self._own else _slot
        self._take = take
        self._limit_s = limit_s
        self._has_begun = False
        self.failed = False
        self.counts = True

    def begin(self) -> None:
        """Put it on the page, before the block that then takes it off begins."""
        self._has_begun = True
        if self._own and self._board is not None:
            self._slot = self._board.take_slot()
        self.extend()

    def __enter__(self) -> Claim:
        if not self._has_begun:
            self.begin()
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()
        if self._own and self._board is not None and self._slot is not None:
            self._board.give_slot(self._slot)

    def extend(self, seconds: float | None = None) -> None:
        """Let it run for another ``seconds`` from now; None: for its whole limit."""
        limit = self._limit_s if seconds is None else seconds
        if self._board is not None and self._slot is not None:
            self._board.write(self._slot, take=self._take, limit_s=limit, deadline=monotonic() + limit)

    def finish(self) -> None:
        """Note that only its commit is missing: that may wait for the server, for however long, and is not killed.

        It stays on the page: who lost sight of the attempt with a connection must not take its step for one that nobody
        runs.
        """
        if self._board is not None and self._slot is not None:
            self._board.write(self._slot, take=self._take, limit_s=self._limit_s, deadline=math.inf)

    def seat(self) -> str | None:
        """Return what tells this place in the worker from its others; None where it has none."""
        if self._board is None or self._slot is None:
            return None
        return f"thread{threading.get_ident()}" if self._own else str(os.getpid())

    def floor(self) -> int:
        """Return the highest take number that is known of in this worker, as its children see it."""
        return max(self._board.floor, self._board.highest()) if self._board is not None else 0

    def go_on(self) -> None:
        """Note that the commit may bring the next attempt, until that has begun or ``stay`` says that there is none."""
        if self._board is not None and self._slot is not None:
            self._board.go_on(self._slot, monotonic())

    def stay(self) -> None:
        """Note that the commit has brought nothing."""
        if self._board is not None and self._slot is not None:
            self._board.go_on(self._slot, 0.0)

    def fail_in_place(self) -> None:
        """Count a try that failed, and is followed by another in the same attempt: the worker failed as often."""
        if self._board is not None and self._slot is not None:
            self._board.count(self._slot, failed=True)

    def end(self) -> None:
        """Take it off the page."""
        if self._board is not None and self._slot is not None:
            if self.counts:
                self._board.count(self._slot, failed=self.failed)
            self._board.clear(self._slot)


def claim(take: int, limit_s: float) -> Claim:
    """Note the attempt under ``take`` for the time within; past its limit and a grace the keeper ends its process."""
    return Claim(_board, take=take, limit_s=limit_s)
