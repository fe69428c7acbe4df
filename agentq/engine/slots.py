"""What this process may still take: one ``Taker`` per worker, set by the boot step, read by the transport.

Owns the worker's id, the token of the take in flight and what has to be handed back. Must not know Celery's
worker: the boot step passes in functions that look at its pool and its requests.
"""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, Literal

from agentq.core.errors import Unavailable
from agentq.engine.misfits import Misfit, no_misfit
from agentq.store import Store
from agentq.store.refs import TakeReply

Settlement = Literal["drop", "requeue"]


SOON_S = 0.01
"""A step that comes so soon after the one before is one of a row: of a caller who asks one thing after the other."""

ORPHAN_S = 1.0
"""How long what a connection's loss took from memory may still begin: a child may have been sent it just before. Handed
back too soon it would run twice at once."""


def _nothing() -> Iterable[int]:
    return ()


def _none(_payload: dict[str, Any]) -> None:
    return None


class Taker:
    """One worker id of this process: what it holds and how much more it may take.

    Only the consuming thread takes and settles, except ``refuse``, which any thread may call.

    Attributes:
        open_ended: takes of plain Celery messages, which run without a limit of ours.
        paused: whether nothing is taken for now: the worker is drained, or unhealthy.
        left_out: queues of drained pools, from which nothing is taken.
        kept: takes that nobody here knows of and that stay in custody all the same.
        in_hand: takes of steps that a thread runs next, or whose commit is on its way; any thread may change it.
        hurries: whether the last steps came one soon after the other.

    Args:
        store: where takes are recorded.
        label: name for people, such as the Celery node's.
        free: how many slots are idle now; None leaves the limit to the channel's prefetch count.
        idle: whether nothing runs here, which a suspect needs; None when that cannot be told.
        running: take numbers of the attempts that run now.
        misfit: why this process cannot run a message; None when it can.
        adopts: our header for a plain message that starts one of our steps; None for any other.
        on_refused: called once when the store says that this id was marked dead.
        highest: the highest take number among those that the pool's children have taken themselves, going on.
    """

    def __init__(
        self,
        store: Store,
        *,
        label: str,
        free: Callable[[], int] | None = None,
        idle: Callable[[], bool] | None = None,
        running: Callable[[], Iterable[int]] = _nothing,
        misfit: Callable[[dict[str, Any], str], Misfit | None] = no_misfit,
        adopts: Callable[[dict[str, Any]], dict[str, Any] | None] = _none,
        on_refused: Callable[[], None] | None = None,
        highest: Callable[[], int] | None = None,
    ) -> None:
        # Fresh per process start: a dead id is never enrolled again, and a restarted worker is another
        # worker.
        self.id = uuid.uuid4().hex
        self.store = store
        self.label = label
        self.misfit = misfit
        self.adopts = adopts
        self.refused = False
        self.closed = False
        self.used = False
        self._free = free
        self._idle = idle
        self._rests = False
        self._running = running
        self._on_refused = on_refused
        self.paused = False
        self.left_out: frozenset[str] = frozenset()
        self._highest = highest
        self._floor = 0
        self.open_ended: set[int] = set()
        self.kept: set[int] = set()
        self.in_hand: set[int] = set()
        self._token: str | None = None
        self._asked_at = float("-inf")
        self._came_at = float("-inf")
        self.hurries = False
        self._orphans: dict[int, float] = {}
        self._unsettled: dict[int, Settlement] = {}
        self._in_flight: weakref.ref[Any] | None = None

    def __repr__(self) -> str:
        return f"Taker({self.label!r}, id={self.id!r}, refused={self.refused})"

    def credit(self, *, prefetch: int, unacknowledged: int) -> int:
        """Return how many messages may be taken now.

        ``prefetch`` is the channel's limit of unacknowledged messages, 0 for none; a consumer that is no
        worker and has no limit takes one at a time.
        """
        if self.refused or self.closed or self.paused or (self._rests and not self.idle):
            return 0
        allowed = prefetch - unacknowledged if prefetch else None
        if self._free is not None:
            free = self._free()
            return max(0, free if allowed is None else min(free, allowed))
        return 1 if allowed is None else max(0, allowed)

    @property
    def idle(self) -> bool:
        """Whether nothing runs here: a suspect may be taken."""
        return self._idle is not None and self._idle()

    @property
    def may_go_on(self) -> bool:
        """Whether a slot that becomes free may take the next step by itself: this worker would take one for it."""
        return not (self.refused or self.closed or self.paused or self._rests)

    def token(self) -> str:
        """Return the token of the next take: the last one until its reply was read.

        A reply that was lost with its connection is so asked for again instead of a second batch.
        """
        self.used = True
        if self._token is None:
            self._token = self.store.new_token()
            self._asked_at = monotonic()
        return self._token

    def has_asked_since(self, moment: float) -> bool:
        """Tell whether no take is under way that was sent before a moment, by what held then.

        One is sent behind the wait for work, and may take up to a second later.
        """
        return self._token is None or self._asked_at > moment

    @property
    def is_asking(self) -> bool:
        """Whether the reply of the last take has not been read, perhaps because its connection was lost."""
        return self._token is not None

    def answered(self, reply: TakeReply) -> None:
        """Have the next take be a new one: the last reply was read, its messages are being delivered.

        After suspects, or when the store wants this worker free for some, nothing is taken until nothing runs here.
        Asking meanwhile would give nothing, and each wait for work would swallow a ring of the bell that an idle
        worker should have heard.
        """
        self._token = None
        self._rests = reply.rest and self._idle is not None
        self.saw(*(taken.take for taken in reply.taken))
        if reply.taken:
            before, self._came_at = self._came_at, monotonic()
            self.hurries = self._came_at - before <= SOON_S

    @property
    def floor(self) -> int:
        """The highest take number that was seen, also under earlier ids of this process, and by its children."""
        return self._floor if self._highest is None else max(self._floor, self._highest())

    def saw(self, *takes: int) -> None:
        """Note take numbers that were given to this worker."""
        self._floor = max([self._floor, *takes])

    def begin(self, channel: Any) -> bool:
        """Reserve the take for ``channel``; False while another channel's take is under way.

        The store keeps one reply per worker: two takes at once would lose the first one's to a cut
        connection.
        """
        other = self._in_flight() if self._in_flight is not None else None
        if other is not None and other is not channel and other.is_taking():
            return False
        self._in_flight = weakref.ref(channel)
        return True

    def refuse(self) -> None:
        """Stop taking for good: another worker owns what this one held."""
        if self.refused:
            return
        self.refused = True
        if self._on_refused is not None:
            self._on_refused()

    def settle(self, take: int, how: Settlement) -> None:
        """End the custody of a plain message, or hand any message back.

        Raises Unavailable without the server; the wish is kept then and repeated before the next take.
        """
        self._orphans.pop(take, None)
        self.kept.discard(take)
        self._unsettled[take] = how
        if how == "drop":
            self.store.drop(self.id, take)
        else:
            self.store.requeue(self.id, take)
        self._unsettled.pop(take, None)

    def forget(self, take: int) -> None:
        """Take back a wish to hand ``take`` back: its attempt has come to its end."""
        self._orphans.pop(take, None)

    def abandon(self, takes: Iterable[int]) -> None:
        """Note what a closed channel had delivered and not seen acknowledged.

        Celery drops from memory what had not started when a connection is lost; nothing else would give it
        back.
        """
        self._orphans.update(dict.fromkeys(takes, monotonic()))

    def reconcile(self) -> None:
        """Hand back what was dropped from memory, and settle what could not be settled before."""
        # A consumer that is no worker runs nothing.
        patience = ORPHAN_S if self._free is not None else 0.0
        ripe = [take for take, since in self._orphans.items() if monotonic() - since >= patience]
        if ripe:
            running = set(self._running())
            for take in ripe:
                del self._orphans[take]
                if take not in running:
                    self._unsettled.setdefault(take, "requeue")
        for take, how in list(self._unsettled.items()):
            self.settle(take, how)

    def leave(self) -> int:
        """Hand back all that is held and take nothing more; return how many messages went back."""
        self.closed = True
        return self.store.leave(self.id)


_current: Taker | None = None


def publish(taker: Taker) -> None:
    """Make ``taker`` the one of this process, for every channel that it opens."""
    global _current
    _current = taker


def withdraw(taker: Taker) -> None:
    """Undo ``publish``; nothing happens when another taker stands there."""
    global _current
    if _current is taker:
        _current = None


def current() -> Taker | None:
    """Return this process's taker; None in a process that is no worker, also in a worker's child."""
    return _current


def _forget() -> None:
    # Were a child to take under its parent's id, the two would share one token.
    global _current
    _current = None


os.register_at_fork(after_in_child=_forget)


def try_settle(taker: Taker, take: int, how: Settlement) -> None:
    """Settle, as a kombu channel wants it: a server that is away is a ConnectionError."""
    try:
        taker.settle(take, how)
    except Unavailable as error:
        raise ConnectionError(str(error)) from error
