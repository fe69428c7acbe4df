"""A page of memory that a worker's processes and its keeper share: who runs what, until when, and how the worker is.

Beside its words there are two sheets for texts: the main process's report, which the keeper brings to the store with
the lease, and the marks of draining, which it brings back.

Each field is one word that one side writes; a reader may see an old value, never half of one. It says nothing of the
store: it is as good while the server is away, and costs no round trip.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

SLOTS = 4096
"""Attempts at once in one worker; those beyond have no hard limit. 256 KB of memory, used as far as needed."""

_WORD = 8
_HEADER = 16
_SLOT = 8
_SHEETS = (_HEADER + SLOTS * _SLOT) * _WORD
_SHEET = 32 * 1024
_SIZE = _SHEETS + 2 * _SHEET

_MAIN, _BEAT, _FLOOR, _OPEN_ENDED, _FAREWELL, _ENROLLED, _USED, _CLOSED, _WARM_MAIN, _ORDERS = range(10)
_PID, _TAKE, _LIMIT, _DEADLINE, _DONE, _FAILED, _WARM, _GOING_ON = range(8)

_HEAD = struct.Struct("II")
"""Of a sheet: the length and the checksum of its text."""

SERVES, ENDS = 0, 1
"""Of the main process's end: nothing is said yet; it ends on purpose, so that what it held did not die by itself."""


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt that runs: in which process, under which take, how long it may, and until when (monotonic seconds).

    The end is infinite where only the commit is missing.
    """

    slot: int
    pid: int
    take: int
    limit_s: float
    deadline: float


class Sheet:
    """A place for a text that one process writes and another reads."""

    def __init__(self, page: mmap.mmap, start: int) -> None:
        self._page = page
        self._start = start

    def write(self, text: bytes) -> bool:
        """Put a text there; False when there is no room for it, and the one before stays."""
        if len(text) > _SHEET - _HEAD.size:
            return False
        self._page[self._start : self._start + _HEAD.size] = _HEAD.pack(0, 0)
        self._page[self._start + _HEAD.size : self._start + _HEAD.size + len(text)] = text
        self._page[self._start : self._start + _HEAD.size] = _HEAD.pack(len(text), crc32(text))
        return True

    def read(self) -> bytes | None:
        """Return the text; None while there is none, or it is being written just now."""
        length, checksum = _HEAD.unpack(self._page[self._start : self._start + _HEAD.size])
        text = self._page[self._start + _HEAD.size : self._start + _HEAD.size + min(length, _SHEET)]
        return text if length and crc32(text) == checksum else None


class Board:
    """The page, seen by one process.

    Attributes:
        report: what the main process tells of its worker, as JSON.
        marks: which workers, nodes and pools are drained, as the keeper has heard it last, as JSON.
    """

    def __init__(self, descriptor: int, *, path: str) -> None:
        self.descriptor = descriptor
        self.path = path
        self._page = mmap.mmap(descriptor, _SIZE)
        self._whole = memoryview(self._page).cast("q")
        self._float = memoryview(self._page).cast("d")
        self.report = Sheet(self._page, _SHEETS)
        self.marks = Sheet(self._page, _SHEETS + _SHEET)
        self._free: list[int] = []
        self._lock = threading.Lock()

    @classmethod
    def make(cls) -> Board:
        """Return a new page of this process, which is the worker's main process."""
        if sys.platform == "linux":
            descriptor = os.memfd_create("agentq-board")
            path = f"/proc/{os.getpid()}/fd/{descriptor}"
        else:
            descriptor, path = tempfile.mkstemp(prefix="agentq-board-")
        os.ftruncate(descriptor, _SIZE)
        board = cls(descriptor, path=path)
        board._whole[_MAIN] = os.getpid()
        return board

    @classmethod
    def open(cls, path: str) -> Board:
        """Return another process's page; raises OSError when it is gone."""
        return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC), path=path)

    def close(self) -> None:
        """Let go of the page; its file, where it has one, is deleted."""
        self._whole.release()
        self._float.release()
        self._page.close()
        os.close(self.descriptor)
        if not self.path.startswith("/proc/"):
            with suppress(OSError):
                Path(self.path).unlink()

    # -- of the main process

    @property
    def main(self) -> int:
        """The main process's id."""
        return self._whole[_MAIN]

    @property
    def beat(self) -> float:
        """When the main process's loop last came round, in monotonic seconds; 0 while it has not begun."""
        return self._float[_BEAT]

    @beat.setter
    def beat(self, moment: float) -> None:
        self._float[_BEAT] = moment

    @property
    def floor(self) -> int:
        """The highest take number that the worker has seen."""
        return self._whole[_FLOOR]

    @floor.setter
    def floor(self, take: int) -> None:
        self._whole[_FLOOR] = take

    @property
    def open_ended(self) -> int:
        """How many messages the worker holds that have no limit: plain Celery tasks."""
        return self._whole[_OPEN_ENDED]

    @open_ended.setter
    def open_ended(self, number: int) -> None:
        self._whole[_OPEN_ENDED] = number

    @property
    def farewell(self) -> int:
        """``SERVES`` or ``ENDS``."""
        return self._whole[_FAREWELL]

    @farewell.setter
    def farewell(self, word: int) -> None:
        self._whole[_FAREWELL] = word

    @property
    def enrolled(self) -> int:
        """How often the keeper has enrolled the worker: more than once when the server lost its data."""
        return self._whole[_ENROLLED]

    @enrolled.setter
    def enrolled(self, times: int) -> None:
        self._whole[_ENROLLED] = times

    @property
    def closed(self) -> bool:
        """Whether the worker is to take nothing: it is drained, or unhealthy."""
        return bool(self._whole[_CLOSED])

    @closed.setter
    def closed(self, word: bool) -> None:
        self._whole[_CLOSED] = int(word)

    @property
    def orders(self) -> int:
        """How many orders by remote control the main process has carried out."""
        return self._whole[_ORDERS]

    @orders.setter
    def orders(self, number: int) -> None:
        self._whole[_ORDERS] = number

    # -- of the attempts

    def seat(self, slot: int) -> bool:
        """Give a slot to this process, which is a child of the pool; False when the page has no such slot."""
        if not 0 <= slot < SLOTS:
            return False
        at = _HEADER + slot * _SLOT
        self._float[at + _DEADLINE] = self._float[at + _GOING_ON] = 0.0
        self._whole[at + _WARM] = 0
        self._whole[at + _PID] = os.getpid()
        self._whole[_USED] = max(self._whole[_USED], slot + 1)
        return True

    def vacate(self, slot: int) -> None:
        """Note that the slot's process goes and no other follows: its id may be another program's soon."""
        if 0 <= slot < SLOTS:
            self.clear(slot)
            self.go_on(slot, 0.0)
            self.note_warm(slot, 0)
            self._whole[_HEADER + slot * _SLOT + _PID] = 0

    def take_slot(self) -> int | None:
        """Return a free slot for a thread of this process; None when all are taken."""
        with self._lock:
            if self._free:
                slot = self._free.pop()
            else:
                slot = self._whole[_USED]
                if not self.seat(slot):
                    return None
        return slot

    def give_slot(self, slot: int) -> None:
        """Let another thread of this process have the slot."""
        with self._lock:
            self._free.append(slot)

    def write(self, slot: int, *, take: int, limit_s: float, deadline: float) -> None:
        """Note an attempt; the deadline last, since it is what makes a reader look at the rest."""
        at = _HEADER + slot * _SLOT
        self._whole[at + _TAKE] = take
        self._float[at + _LIMIT] = limit_s
        self._float[at + _DEADLINE] = deadline
        self._float[at + _GOING_ON] = 0.0

    def go_on(self, slot: int, since: float) -> None:
        """Note since when a commit that may bring the next attempt waits for its reply; 0.0: none does."""
        self._float[_HEADER + slot * _SLOT + _GOING_ON] = since

    def clear(self, slot: int) -> None:
        """Note that nothing runs there."""
        self._float[_HEADER + slot * _SLOT + _DEADLINE] = 0.0

    def count(self, slot: int, *, failed: bool) -> None:
        """Count an attempt that has ended."""
        at = _HEADER + slot * _SLOT
        self._whole[at + _DONE] += 1
        self._whole[at + _FAILED] += failed

    def counts(self) -> tuple[int, int]:
        """Return how many attempts have ended since the worker's start, and how many of them failed."""
        at = [_HEADER + slot * _SLOT for slot in range(self._used)]
        return sum(self._whole[each + _DONE] for each in at), sum(self._whole[each + _FAILED] for each in at)

    def highest(self) -> int:
        """Return the highest take number that an attempt has ever had here; 0 where none was."""
        return max((self._whole[_HEADER + slot * _SLOT + _TAKE] for slot in range(self._used)), default=0)

    def is_going_on(self, since: float) -> bool:
        """Tell whether somebody has waited since before that moment for a reply that may bring the next attempt."""
        waits = (self._float[_HEADER + slot * _SLOT + _GOING_ON] for slot in range(self._used))
        return any(0.0 < began <= since for began in waits)

    def is_busy(self, pid: int) -> bool:
        """Tell whether a process runs an attempt, or is between two of them; also of one that has just died in it."""
        at = (_HEADER + slot * _SLOT for slot in range(self._used))
        return any(
            self._whole[each + _PID] == pid and (self._float[each + _DEADLINE] or self._float[each + _GOING_ON])
            for each in at
        )

    @property
    def _used(self) -> int:
        return min(self._whole[_USED], SLOTS)

    def note_warm(self, slot: int | None, word: int) -> None:
        """Note what the process of a slot, or the main process, has open; see ``engine.resources``."""
        self._whole[_WARM_MAIN if slot is None else _HEADER + slot * _SLOT + _WARM] = word

    def warm(self) -> int:
        """Return what any of the worker's processes has open."""
        word = self._whole[_WARM_MAIN]
        for slot in range(self._used):
            word |= self._whole[_HEADER + slot * _SLOT + _WARM]
        return word

    def pids(self) -> set[int]:
        """Return the processes that have a slot, alive or not; the main process too when its threads run steps."""
        return {self._whole[_HEADER + slot * _SLOT + _PID] for slot in range(self._used)} - {0}

    def running(self) -> Iterator[Running]:
        """Yield the attempts that run."""
        for slot in range(self._used):
            found = self.read(slot)
            if found is not None:
                yield found

    def read(self, slot: int) -> Running | None:
        """Return the attempt in a slot; None when nothing runs there, or it is being written just now."""
        at = _HEADER + slot * _SLOT
        deadline = self._float[at + _DEADLINE]
        if not deadline:
            return None
        pid, take, limit = self._whole[at + _PID], self._whole[at + _TAKE], self._float[at + _LIMIT]
        if self._float[at + _DEADLINE] != deadline:
            return None
        return Running(slot=slot, pid=pid, take=take, limit_s=limit, deadline=deadline)
