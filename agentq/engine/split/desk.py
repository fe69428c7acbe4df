"""Where hints arrive: claims in one script what free slots there are for, and hands the claimed steps to Celery.

A hint is acknowledged as soon as its claim was answered, yes or no: custody is the store's from then on, and no message
of the broker is held while a step runs or an agent waits. A worker without a free slot keeps what was delivered for a
moment; then it gives the hints back and consumes no more until a slot is free, so that idle workers get them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, time
from typing import Any

from celery.utils.log import get_logger
from kombu.transport import virtual

from agentq.core.errors import Unavailable
from agentq.core.lanes import PRIORITIES
from agentq.engine.custody import QoS
from agentq.engine.delivery import deliver
from agentq.engine.slots import Taker
from agentq.engine.split import hints
from agentq.engine.split.intake import Intake
from agentq.store import Store
from agentq.store.unsent import Hint

logger = get_logger(__name__)

PATIENCE_S = 0.2
"""How long a hint waits here for a slot: short steps follow one another without the broker, long ones hold up none."""

SETTLING_S = 0.02
"""After consuming has begun again: the lanes deliver one by one, and the first to do so need not be the most urgent."""

AWAY_S = 0.5
"""Between claims while the store is away."""

UPKEEP_S = 1.0


class Hands:
    """What ``delivery`` and Celery need of a kombu channel: messages are delivered, acknowledged and rejected."""

    Message = virtual.Message
    no_ack_consumers = None

    def __init__(self, store: Store, taker: Callable[[], Taker], errors: tuple[type[BaseException], ...]) -> None:
        self.store = store
        self._give_taker = taker
        self.connection_errors = errors
        self.qos = QoS(self)
        self.handler: Callable[[Any], Any] | None = None
        self.connection = self
        self._queue_cycle = self

    @property
    def taker(self) -> Taker:
        """Who claims now: a worker that was given up goes on under another id."""
        return self._give_taker()

    @property
    def _callbacks(self) -> Hands:
        return self

    def get(self, queue: str) -> Callable[[Any], Any]:
        """Return who takes the payload of a claimed message, whatever its queue."""
        return self._receive

    def rotate(self, queue: str) -> None:
        """Do nothing: the broker decides whose turn it is."""

    def _receive(self, payload: dict[str, Any]) -> None:
        message = self.Message(payload, channel=self)
        self.qos.append(message, message.delivery_tag)
        if self.handler is not None:
            self.handler(message)

    def decode_body(self, body: Any, encoding: str | None = None) -> Any:
        """Return a virtual message's body as it was sent."""
        return virtual.Base64().decode(body) if encoding == "base64" else body

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Note that Celery is done with a message; a step's custody ends with its commit."""
        self.qos.ack(delivery_tag)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Let go of a message; with ``requeue`` it waits again."""
        self.qos.reject(delivery_tag, requeue=requeue)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A hint on the desk; ``since``: by the monotonic clock."""

    message: Any
    queue: str
    lane: int
    since: float

    @property
    def hint(self) -> Hint:
        """What the store is told of it."""
        return Hint(hints.name_in(self.message), self.queue, self.lane)


class Desk:
    """The hints of a worker's queues, on a channel of their own.

    Args:
        connection: the worker's connection to the broker.
        hub: the worker's event loop; None where Celery runs without one.
        taker: gives the worker's taker.
        store: with a short time-out, since claims are made on the event loop.
        slots: of the worker; so many hints of each lane are delivered ahead.
        queues: gives the names of the queues that the worker serves now.
        low_share: of what is claimed every N-th is for the lower lanes; 0 never.
        age_s: what has waited for longer goes first in that share.
    """

    def __init__(
        self,
        connection: Any,
        hub: Any,
        taker: Callable[[], Taker],
        store: Store,
        *,
        prefix: str,
        kind: str,
        slots: int,
        queues: Callable[[], Iterable[str]],
        low_share: int,
        age_s: float,
    ) -> None:
        self.hands = Hands(store, taker, connection.connection_errors)
        self._connection = connection
        self._hub = hub
        self._give_taker = taker
        self._store = store
        self._prefix = prefix
        self._kind = kind
        self._slots = max(slots, 1)
        self._queues = queues
        self._low_share = low_share
        self._age_s = age_s
        self._intake: Intake | None = None
        self._waiting: dict[int, deque[_Waiting]] = {lane: deque() for lane in PRIORITIES.values()}
        self._asked: list[_Waiting] = []
        self._claimed = 0
        self._paused = False
        self._flushing = False
        self._not_before = 0.0
        self._timers: list[Any] = []

    @property
    def _taker(self) -> Taker:
        return self._give_taker()

    # -- the broker's side

    def open(self) -> None:
        """Begin to consume."""
        self._intake = Intake(
            self._connection, prefix=self._prefix, kind=self._kind, ahead=self._slots, arrived=self._arrived
        )
        self._intake.follow(self._served())
        if self._hub is not None:
            self._hub.on_tick.add(self.look)
            self._timers.append(self._hub.call_repeatedly(UPKEEP_S, self._upkeep))

    def close(self) -> None:
        """Stop consuming; hints go back to the broker, and what Celery has not started goes back to the store."""
        if self._hub is not None:
            self._hub.on_tick.discard(self.look)
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._taker.abandon(self.hands.qos.takes())
        intake, self._intake = self._intake, None
        if intake is not None:
            # A lost connection has given back by itself what was not acknowledged.
            with suppress(Exception):
                intake.follow(())
                self._give_back()
            intake.close()

    def _arrived(self, queue: str, lane: int, message: Any) -> None:
        if self._paused or self._intake is None:
            message.requeue()
            return
        self._waiting[lane].append(_Waiting(message, queue, lane, monotonic()))
        if self._hub is None:
            self.flush()
        elif not self._flushing:
            # Once for all that this reading of the socket brings.
            self._flushing = True
            self._hub.call_soon(self.flush)

    def _give_back(self) -> None:
        for lane in self._waiting.values():
            while lane:
                lane.popleft().message.requeue()

    # -- claims

    def look(self) -> None:
        """See whether slots have come free; called at every turn of the event loop."""
        if self._intake is None:
            return
        free = self._taker.credit(prefetch=0, unacknowledged=0)
        if self._waiting_any() and free > 0:
            self.flush()
        elif self._paused and free > 0:
            self._paused = False
            self._intake.follow(self._served())
            self._wait(SETTLING_S)
        elif not self._paused and free <= 0 and self._overdue():
            self._pause()

    def flush(self) -> None:
        """Claim as many of the waiting hints as there are free slots."""
        self._flushing = False
        if self._intake is None or monotonic() < self._not_before:
            return
        if self._taker.is_asking and not self._asked and not self._claim([]):
            # What the desk before this one, on a lost connection, was not answered: with its token it comes now.
            return
        while True:
            asked = self._asked = self._asked or self._chosen(self._taker.credit(prefetch=0, unacknowledged=0))
            if not asked:
                break
            if not self._claim(asked):
                return
        if self._waiting_any() and self._hub is not None:
            self._hub.call_later(PATIENCE_S, self.look)

    def _claim(self, asked: list[_Waiting]) -> bool:
        taker = self._taker
        try:
            taker.reconcile()
            reply = self._store.claim(
                taker.id,
                taker.token(),
                [each.hint for each in asked],
                label=taker.label,
                floor=taker.floor,
                idle=taker.idle,
            )
        except Unavailable as error:
            # Asked again with the same token and the same hints: the claim may have happened.
            logger.warning("claim_waits worker=%s: %s", taker.id, error)
            self._wait(AWAY_S)
            return False
        taker.answered(reply)
        self._asked = []
        if reply.refused:
            for each in asked:
                each.message.requeue()
            taker.refuse()
            return False
        failures: list[Exception | None] = []
        try:
            for each in asked:
                each.message.ack()
        finally:
            # Also when the broker is gone: they are in this worker's custody now.
            failures += [deliver(self.hands, taken) for taken in reply.taken]
        for failure in failures:
            if failure is not None:
                raise failure
        return True

    def _wait(self, seconds: float) -> None:
        """Claim nothing for so long."""
        self._not_before = monotonic() + seconds
        if self._hub is not None:
            self._hub.call_later(seconds + 0.001, self.flush)

    def _chosen(self, free: int) -> list[_Waiting]:
        """Return up to ``free`` of the waiting hints: most urgent lane first, but for the lower lanes' share."""
        if free <= 0 or not self._waiting_any():
            return []
        most = min(free, sum(len(lane) for lane in self._waiting.values()))
        share = (self._claimed + most) // self._low_share - self._claimed // self._low_share if self._low_share else 0
        self._claimed += most
        chosen: list[_Waiting] = []
        self._choose(chosen, sorted(self._waiting), most - share)
        self._choose(chosen, self._lower_lanes() if share else (), most)
        return chosen

    def _choose(self, chosen: list[_Waiting], lanes: Iterable[int], most: int) -> None:
        for lane in lanes:
            while self._waiting[lane] and len(chosen) < most:
                chosen.append(self._waiting[lane].popleft())

    def _lower_lanes(self) -> list[int]:
        """Return the lanes as their share goes to them: what has waited too long first, then from the lowest."""
        heads = {lane: hints.since_in(waiting[0].message) for lane, waiting in self._waiting.items() if waiting}
        ages = {lane: time() - since for lane, since in heads.items() if since is not None}
        old = [lane for lane in ages if ages[lane] > self._age_s]
        return [*sorted(old, key=ages.__getitem__, reverse=True)[:1], *sorted(self._waiting, reverse=True)]

    def _served(self) -> list[str]:
        left_out = self._give_taker().left_out
        return [queue for queue in self._queues() if queue not in left_out]

    def _waiting_any(self) -> bool:
        return any(self._waiting.values())

    def _overdue(self) -> bool:
        oldest = min((lane[0].since for lane in self._waiting.values() if lane), default=None)
        return oldest is not None and monotonic() - oldest >= PATIENCE_S

    def _pause(self) -> None:
        self._paused = True
        if self._intake is not None:
            self._intake.follow(())
        self._give_back()

    def _upkeep(self) -> None:
        if self._intake is None:
            return
        if not self._paused:
            self._intake.follow(self._served())
        if monotonic() < self._not_before:
            return
        try:
            self._taker.reconcile()
        except Unavailable as error:
            logger.warning("reconcile_waits worker=%s: %s", self._taker.id, error)
