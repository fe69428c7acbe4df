"""What the keeper does: renew, let time pass, end what runs too long, and speak for a worker that is gone.

A process of its own, because a step may hold the interpreter's lock, and both cores may be busy. It watches the main
process alone: a connection that breaks says nothing of the worker. Imports neither Celery nor the rest of the store, so
that it is small and starts soon.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from agentq.engine.keeper.board import ENDS, SERVES, Board, Running
from agentq.engine.keeper.watch import Brood, Parent
from agentq.store.lease import ALIVE, UNKNOWN, Away, Lease

logger = logging.getLogger("agentq.keeper")

CHILDREN_S = 0.5
"""For the children of a main process that is gone to be gone as well; a killed process needs some ms."""

RELEASE_S = 10.0
"""How long the keeper of a dead worker tries to reach a server that is away; after it the lease has long run out."""

RECOVERY_S = 10.0
"""After the server was away nobody is killed for so long: what ran out of time meanwhile may have waited for it."""

UNHEEDED_S = 10.0
"""A main process that was told that its worker is dead ends its threads, or itself, within this time."""

BREATH_S = 0.015
"""Between two ticks while more waits than one may do: thousands of timers at once, a large tree that has ended."""

BREATHS = 4.0
"""So many times as long as such a tick took comes the next one: most of the server's time is others'."""

LONGEST_PAUSE_S = 1.0
"""Between attempts while the server is away."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the main process tells its keeper; durations in seconds, times of the store in ms.

    Attributes:
        worker: the id.
        main: the main process's id.
        board, board_path: the descriptor of the shared page, and where its file is.
        url, scripts, dead, timeout_s: see ``Lease``.
        lease_s, renew_s, tick_s: the lease, and the mean times between renewals and between ticks.
        hard_s: the hard limit of what has none of its own.
        grace_s: from a hard limit to the end of the child.
        card: the worker's card, field by field.
    """

    worker: str
    main: int
    board: int
    board_path: str
    url: str
    scripts: dict[str, str]
    dead: str
    timeout_s: float
    lease_s: float
    renew_s: float
    tick_s: float
    hard_s: float
    grace_s: float
    card: tuple[str, ...]


class Keeper:
    """One worker's keeper."""

    def __init__(self, terms: Terms, board: Board) -> None:
        self.terms = terms
        self.board = board
        self.lease = Lease(
            terms.url,
            terms.worker,
            lease_ms=int(terms.lease_s * 1000),
            scripts=terms.scripts,
            dead=terms.dead,
            timeout_s=terms.timeout_s,
        )
        self.parent = Parent(terms.main)
        self.brood = Brood(terms.main)
        self._random = random.Random(terms.worker)
        self._failures = 0
        self._reachable_since = float("-inf")
        self._stopped_since: float | None = None
        self._told_ready = False
        self._reported: bytes | None = None
        self._marks: dict[str, str] = {}

    def run(self) -> None:
        """Return when the worker has gone and what it held is back, or when another keeper's turn has come."""
        renew_at = tick_at = monotonic()
        while not self.parent.is_gone:
            self.brood.see(self.board.pids() - {self.terms.main})
            now = monotonic()
            try:
                if now >= renew_at:
                    if not self._renew(now):
                        # After its own farewell the id is used up as well.
                        if self.board.farewell == SERVES:
                            self._end_attempts()
                        return
                    renew_at = now + self.terms.renew_s * self._random.uniform(0.5, 1.5)
                if now >= tick_at:
                    tick_at = self.tick(now)
                self.end_overdue(monotonic())
                self._note_success()
                pause = min(renew_at, tick_at) - monotonic()
            except Away as error:
                pause = self._note_failure(f"store_unreachable worker={self.terms.worker}: {error}")
            self.parent.wait(pause)
        self._speak_for_the_dead()

    # -- while the worker lives

    def tick(self, now: float) -> float:
        """Let time pass; return when to do so again."""
        behind = self.lease.tick()
        pause = self.terms.tick_s
        if behind:
            took = monotonic() - now
            pause = min(pause, max(BREATH_S, took * BREATHS))
        return now + pause * self._random.uniform(0.5, 1.5)

    def _renew(self, now: float) -> bool:
        """Return False when the worker was given up."""
        if not self.may_renew(now):
            return not self.lease.is_dead()
        report = self.board.report.read()
        if report is None or report == self._reported:
            standing, marks = self.lease.renew()
        else:
            standing, marks = self.lease.renew(report, warm=json.loads(report).get("warm", ()))
        self._reported = report if report is not None else self._reported
        if marks != self._marks and self.board.marks.write(json.dumps(marks).encode()):
            self._marks = marks
        if standing == UNKNOWN:
            self._reported = None
            standing = self.lease.enroll(self.terms.card, floor=max(self.board.floor, self.board.highest()))
            self.board.enrolled += standing
            logger.info("worker_enrolled worker=%s times=%d", self.terms.worker, self.board.enrolled)
        if standing == ALIVE and not self._told_ready:
            self._told_ready = True
            say("ready")
        return bool(standing)

    def may_renew(self, now: float) -> bool:
        """Tell whether the worker is one that works: its main process is not stopped, and its loop comes round."""
        if not self.parent.is_stopped():
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = now
        if self._stopped_since is not None and now - self._stopped_since > self.terms.lease_s:
            return False
        beat = self.board.beat
        # A loop that connects anew does not come round either. With messages that have no limit it may stand still
        # for as long as it likes: a pool of one process runs them in it.
        if not beat or self.board.open_ended:
            return True
        longest = max([self.terms.hard_s, *(running.limit_s for running in self.board.running())])
        return now - max(beat, self._reachable_since) <= longest + self.terms.grace_s

    def overdue(self, now: float) -> list[Running]:
        """Return what has passed its hard limit and the grace."""
        if now < self._reachable_since + RECOVERY_S:
            return []
        return [running for running in self.board.running() if now >= running.deadline + self.terms.grace_s]

    def note_outage_over(self, now: float) -> None:
        """Count from now what the server's absence has delayed."""
        self._reachable_since = now

    def end_overdue(self, now: float) -> None:
        """Kill what has passed its hard limit, after its record says so."""
        for running in self.overdue(now):
            self.lease.mark_overdue(running.take)
            # It may have come to its end, or to a rest, while the server was told. It stands still meanwhile: between
            # the look and the kill it could end, and the kill would strike what it begins next.
            self._hold(running.pid)
            if self.board.read(running.slot) == running:
                self._kill(running)
            else:
                self._let_go(running.pid)

    def _hold(self, pid: int) -> None:
        if pid == self.terms.main:
            self.parent.hold()
        else:
            self.brood.hold(pid)

    def _let_go(self, pid: int) -> None:
        if pid == self.terms.main:
            self.parent.let_go()
        else:
            self.brood.let_go(pid)

    def _kill(self, running: Running) -> None:
        logger.error(
            "hard_limit worker=%s take=%d pid=%d: ran longer than %g s, killed",
            self.terms.worker,
            running.take,
            running.pid,
            running.limit_s,
        )
        if running.pid == self.terms.main:
            # A thread cannot be killed. What else runs there did nothing wrong, and is handed back.
            self.board.farewell = ENDS
            self.parent.kill()
            return
        self.brood.kill(running.pid)
        if self.brood.has_ended(running.pid, within_s=CHILDREN_S):
            self.board.clear(running.slot)
            self.lease.give_back(running.take)

    def _end_attempts(self) -> None:
        """End what a worker runs that was given up: its steps are others' now."""
        say("dead")
        mine = [running.pid for running in self.board.running()]
        for pid in mine:
            self.brood.kill(pid)
        if self.terms.main not in mine:
            return
        # Threads end with the main process, which ends by itself, unless one of them holds the interpreter's lock.
        end = monotonic() + UNHEEDED_S
        while not self.parent.is_gone and monotonic() < end:
            self.parent.wait(end - monotonic())
        if not self.parent.is_gone:
            self.parent.kill()

    def _note_success(self) -> None:
        if self._failures:
            self._failures = 0
            self.note_outage_over(monotonic())
            logger.info("store_reachable_again worker=%s", self.terms.worker)

    def _note_failure(self, words: str) -> float:
        if not self._failures:
            logger.warning("%s", words)
        self._failures += 1
        longest = min(LONGEST_PAUSE_S, self.terms.renew_s)
        return min(longest, 0.05 * 2.0 ** min(self._failures, 10)) * self._random.uniform(0.5, 1.0)

    # -- after its death

    def _speak_for_the_dead(self) -> None:
        left = self.brood.end(within_s=CHILDREN_S)
        if left:
            logger.error("children_remain worker=%s pids=%s", self.terms.worker, left)
        counted = self.board.farewell != ENDS
        end = monotonic() + RELEASE_S
        while monotonic() < end:
            try:
                returned = self.lease.leave(counted=counted)
            except Away as error:
                sleep(self._note_failure(f"not_released worker={self.terms.worker}: {error}"))
                continue
            logger.warning(
                "worker_gone worker=%s: its main process has ended, given back: %d", self.terms.worker, returned
            )
            return


def say(word: str) -> None:
    """Tell the main process; it may be gone."""
    with suppress(OSError):
        os.write(1, f"{word}\n".encode())


def main(told: dict[str, Any]) -> None:
    """Keep the worker that ``told``, the terms as JSON holds them, speaks of."""
    # These are meant for the worker, and reach its whole group: it says itself, or by its end, when all is over.
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    level = told.pop("log_level")
    logging.basicConfig(level=level, format="[%(asctime)s: %(levelname)s/keeper] %(message)s", stream=sys.stderr)
    # The reader of the log may end with the worker.
    logging.raiseExceptions = False
    terms = Terms(**{**told, "card": tuple(told["card"])})
    board = Board(terms.board, path=terms.board_path)
    keeper = Keeper(terms, board)
    keeper.run()
    if keeper.parent.is_gone:
        board.close()
