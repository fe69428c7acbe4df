"""A worker's presence in the store: under which id it takes, and the keeper that holds the lease of that id.

An id that was given up is never used again. Where nothing of the old one runs any more, the process goes on under a
fresh one. Must not know Celery's worker: the boot steps look at it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from celery.utils.log import get_logger

from agentq.core.errors import Unavailable
from agentq.engine.keeper import claims
from agentq.engine.keeper.board import Board
from agentq.engine.keeper.guard import Guard
from agentq.engine.keeper.program import Terms as KeeperTerms
from agentq.engine.slots import Taker, publish, withdraw
from agentq.store import Store
from agentq.store.workers import card_of

logger = get_logger(__name__)

LONGEST_CALL_S = 1.0
"""For one call of the keeper. A third of the lease at the most: two renewals may fail before it runs out."""


@dataclass(frozen=True, slots=True)
class Card:
    """What others see of a worker."""

    label: str
    queues: tuple[str, ...]
    concurrency: int
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """See the keeper's ``Terms``."""

    lease_s: float
    renew_s: float
    tick_s: float
    hard_s: float
    grace_s: float


class Presence:
    """The taker and the keeper of one process; used from its consuming thread, except where said.

    Args:
        store: where the worker is enrolled.
        terms: of the lease.
        card: what the worker is now.
        make_taker: makes the taker of a new id.
    """

    def __init__(
        self,
        store: Store,
        terms: LeaseTerms,
        *,
        card: Callable[[], Card],
        make_taker: Callable[[], Taker],
    ) -> None:
        self.store = store
        self._terms = terms
        self._card = card
        self._make_taker = make_taker
        self.board = Board.make()
        self.taker = make_taker()
        self._listed = card().queues
        self._unknown: set[int] = set()
        self._looked = 0.0
        self._guard = self._new_guard()
        self._is_published = False

    def begin(self) -> None:
        """Start the keeper. Before the pool's children: they inherit the page."""
        claims.publish(self.board)
        self._guard.start()

    def wait_enrolled(self, seconds: float) -> bool:
        """Take up the id if the keeper has enrolled it within the time, and tell whether it has."""
        if not self._is_published and self._guard.wait_ready(seconds):
            self._is_published = True
            publish(self.taker)
            logger.info("worker_enrolled worker=%s label=%s", self.taker.id, self.taker.label)
        return self._is_published

    @property
    def is_lost(self) -> bool:
        """Whether the id was given up."""
        return self.taker.refused

    def begin_anew(self) -> None:
        """Have the process go on under a fresh id, once its keeper has enrolled it. Nothing of the old one may run."""
        # It stays the process's taker until the next one is enrolled: without any, channels take in their own name.
        before = self.taker
        self._guard.stop()
        self.taker = self._make_taker()
        # One numbering for all ids of the process: what still speaks of an old take touches no new one.
        self.taker.saw(before.floor)
        self.taker.paused, self.taker.left_out = before.paused, before.left_out
        self._is_published = False
        self._unknown.clear()
        self._listed = self._card().queues
        self._guard = self._new_guard()
        self._guard.start()
        logger.warning("worker_begins_anew worker=%s before=%s", self.taker.id, before.id)

    def beat(self) -> None:
        """Tell the keeper that the loop comes round, and what it cannot see; tell the store of other queues."""
        self.board.beat = monotonic()
        self.board.floor = self.taker.floor
        self.board.open_ended = len(self.taker.open_ended)
        queues = self._card().queues
        if queues != self._listed and self._is_published and not self.is_lost:
            self.store.renew(self.taker.id, int(self._terms.lease_s * 1000), queues=queues)
            self._listed = queues

    def reconcile(self, known: set[int]) -> None:
        """Hand back what the store holds for this worker and nobody here knows of.

        Only up to the last take whose reply was read; and only what was unknown at the last look too, because an
        attempt that was sent to a child before its connection broke shows on the page a moment later. So does one that
        came with the reply to a child's commit, however long that took.
        """
        if self.is_lost or not self._is_published:
            return
        known = known | {running.take for running in self.board.running()} | self.taker.kept | self.taker.in_hand
        before, self._looked = self._looked, monotonic()
        unknown = {take for take in self.store.held_takes(self.taker.id) if take <= self.taker.floor} - known
        if self.board.is_going_on(since=before):
            self._unknown = unknown
            return
        for take in unknown & self._unknown:
            logger.warning("unknown_handed_back worker=%s take=%d", self.taker.id, take)
            self.taker.settle(take, "requeue")
        self._unknown = unknown - self._unknown

    def leave(self) -> None:
        """Hand back what is held and has not started; the id is never used again."""
        withdraw(self.taker)
        self._guard.release()
        if not self.is_lost:
            try:
                returned = self.taker.leave()
                logger.info("worker_left worker=%s returned=%d", self.taker.id, returned)
            except Unavailable as error:
                # The keeper says it, after this process has ended.
                logger.warning("worker_left_without_word worker=%s: %s", self.taker.id, error)
                return
        self._guard.stop()
        claims.withdraw(self.board)
        self.board.close()

    def release(self) -> None:
        """Leave the farewell to the keeper: threads run on until this process has ended."""
        self._guard.release()

    def _new_guard(self) -> Guard:
        card, terms = self._card(), self._terms
        return Guard(
            KeeperTerms(
                worker=self.taker.id,
                main=self.board.main,
                board=self.board.descriptor,
                board_path=self.board.path,
                timeout_s=min(LONGEST_CALL_S, terms.lease_s / 3),
                lease_s=terms.lease_s,
                renew_s=terms.renew_s,
                tick_s=terms.tick_s,
                hard_s=terms.hard_s,
                grace_s=terms.grace_s,
                card=card_of(card.label, queues=card.queues, concurrency=card.concurrency, details=card.details),
                **self.store.lease_access(self.taker.id),
            ),
            self.board,
            # In the guard's thread: the consuming one looks at its next beat.
            on_lost=self.taker.refuse,
        )
