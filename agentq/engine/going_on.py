"""Steps that one child, or thread, runs one after the other without the worker's main process between them.

What a short step costs is mostly the way to it: a take, a message to the child, one back. So its commit takes the next
step as well, in the same script, for the slot that has just become free. Nothing is held that another could start, and
every step keeps its own record, attempt and commit.

The main process believes meanwhile that the first of them runs. That is why only steps follow that are known to be
short here, for a moment only, and none that it would have to look at first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from celery import signals
from celery.app import trace as celery_trace
from celery.app.task import Context
from celery.app.trace import task_has_custom
from celery.utils.log import get_logger

from agentq.core.errors import Unavailable
from agentq.engine import paces, tracing
from agentq.engine.delivery import payload_of
from agentq.engine.in_hand import Hand, how_many
from agentq.engine.keeper import claims
from agentq.engine.kin import Kin
from agentq.engine.messages import HOLDER_HEADER, body_of, is_plain_json
from agentq.engine.outcome import keep_trying
from agentq.engine.patience import Patience
from agentq.engine.slots import current
from agentq.store.refs import GoOn, LogPlace, Taken

if TYPE_CHECKING:
    from agentq.engine.ending import Ending
    from agentq.store.steps import CommitUnderWay

logger = get_logger("celery.worker.strategy")

GRANT: Final = "on"
"""Field of the holder's header: that the child may go on, and on which terms."""

LONGEST_S: Final = 0.1
"""So long after its first step nobody goes on: the main process, and what it knows of more urgent, wait no longer. It
counts anew from a step for which the slot has waited: nothing else was there."""

QUIET_S: Final = 1.0
"""So long nobody goes on at all, so that the main process sees all slots now and then."""

SOFT_LIMIT_S: Final = 5.0
"""Steps with a shorter soft limit end alone: the pool counts it from the first step on."""

SHARE_OF_LIMIT: Final = LONGEST_S / SOFT_LIMIT_S
"""Of their soft limit, so much may have passed when the last one begins."""

LINGER_S: Final = 0.01
"""How long a free slot waits for a next step by itself where the one before had come as soon: in a chain, or for a
caller who asks one thing after the other, it comes without the main process."""

_CELERYS_OWN: Final = frozenset({*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"})
"""Headers that a task does not see among its request's ``headers``."""

NEAR_MS: Final = 20
"""For so long the server believes that a slot waits: the server ends a short wait when it next has something to do, and
hears when it has ended. A step for a slot that died just then waits for the next look of a worker, a second at most."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What the main process lets a child do: take from these queues in its name; no step of these ids.

    ``hurries``: this step has come soon after the one before, which may have run elsewhere. ``lasts_s``: no step
    begins later, counted from the first one. ``orders``: it holds until another one is carried out: a queue that the
    worker is told to serve no more, a step that is revoked, a rate.
    """

    label: str
    queues: tuple[str, ...]
    low_share: int
    revoked: tuple[str, ...] = ()
    hurries: bool = False
    lasts_s: float = LONGEST_S
    orders: int = 0


class Streak:
    """The steps that follow one that the main process has sent."""

    _attempt: Ending

    def __init__(self, grant: Grant, request: dict[str, Any]) -> None:
        self._following: Taken | None = None
        taker = current()
        self._hand = Hand(taker) if taker is not None else None
        self._grant = grant
        self._limits = request.get("timelimit")
        self._hostname = request.get("hostname")
        self._began = monotonic()
        self._ends = self._began + LONGEST_S
        self._last = self._began + grant.lasts_s
        self._terms: GoOn | None = None
        self._may_linger = False
        self._kin: dict[str, Kin] = {}
        self._hurries = grant.hurries or self._began - getattr(_here, "ended", 0.0) <= 2 * LINGER_S
        self.is_at_first = True

    @property
    def queues(self) -> tuple[str, ...]:
        """From which steps may be taken."""
        return self._grant.queues

    def begin(self) -> None:
        """Note that a step begins which follows."""
        self.is_at_first = False
        self._began = monotonic()

    def terms(self, attempt: Ending) -> GoOn | None:
        """Return on which terms the attempt's commit may take the next step; None: it may not."""
        now, task, self._terms, self._may_linger = monotonic(), attempt.task, None, False
        took = now - self._began
        if task.is_agent:
            paces.note_turn(task.name, took, rested=attempt.has_rested)
        else:
            paces.note(task.name, took)
        self.settle()
        seat, short_s = attempt.claim.seat(), paces.SHORT_TURN_S if task.is_agent else paces.SHORT_S
        if (
            self._hand
            or now >= self._ends
            or took > short_s
            or seat is None
            or not claims.may_go_on(self._grant.orders)
        ):
            return None
        kin = self._kin_of(task)
        if not kin.names:
            return None  # A bell that it heard would be used up for nothing.
        self._attempt = attempt
        attempt.claim.go_on()
        # A turn that is known to be short may last all the same: none waits behind another.
        is_alone = self._hand is None or task.is_agent
        most = 1 if is_alone else how_many(paces.by_name.longest(kin.names))
        # Once for each success: steps that fail one after the other would keep the streak going for ever.
        lingers = self._may_linger = self._hurries and _patience.may_wait(now)
        self._terms = self._terms_for(attempt.claim, seat, kin, most=most, lingers=lingers)
        return self._terms

    def _terms_for(
        self, claim: claims.Claim, seat: str, kin: Kin, *, over: bool = False, most: int = 1, lingers: bool = False
    ) -> GoOn:
        taker = current()
        return GoOn(
            label=self._grant.label,
            seat=seat,
            queues=self._grant.queues,
            names=kin.names,
            low_share=self._grant.low_share,
            floor=claim.floor() if taker is None else taker.floor,
            over=over,
            most=most,
            lingers_ms=NEAR_MS if lingers else 0,
        )

    def own_terms(self, claim: claims.Claim, task: Any, *, over: bool) -> GoOn | None:
        """Return on which terms a turn takes what its slot runs while it waits for this step; None: nothing."""
        kin, seat = self._kin_of(task), claim.seat()
        if seat is None or task.name not in kin.names or not claims.may_go_on(self._grant.orders):
            return None
        if kin.is_async and current() is not None:
            return None  # As in `terms`.
        return self._terms_for(claim, seat, kin, over=over)

    def _kin_of(self, task: Any) -> Kin:
        """Return the steps that may follow ``task``; looked up anew when others have become short, or long."""
        found = self._kin.get(task.name)
        if found is None or found.turn != paces.by_name.turn:
            found = self._kin[task.name] = Kin.of(task)
        return found

    def go_on(self, taken: Sequence[Taken]) -> None:
        """Have what the commit has taken run next."""
        if self._hand is not None:
            self._hand.put(taken)
        elif taken:
            (self._following,) = taken
            return
        self._attempt.claim.stay()

    def ran_ms(self) -> int | None:
        """Return how long the step has run, where it was held for longer; None where the store knows by itself."""
        if self._hand is None or not self._hand.has_several:
            return None
        return int((monotonic() - self._began) * 1000)

    def leave(self, attempt: Ending, under_way: CommitUnderWay) -> bool:
        """Have the next step begin before the answer to this one's commit; False: it is to be read now."""
        if not self._hand or attempt.admitted or attempt.task.is_agent or is_heard(attempt.task):
            return False  # Nobody may hear of a success before it stands.
        if not under_way.leave():
            return False
        self._hand.leave(under_way, attempt.holder.take, attempt.revoke_late)
        return True

    def settle(self) -> None:
        """Read the answer that ``leave`` has left, if any."""
        if self._hand is not None:
            self._hand.settle()

    def next(self, worker: str) -> Taken | None:
        """Return what runs next: taken by the last commit, or a moment later; None: the streak has ended."""
        taken = self._draw()
        if taken is None:
            self.settle()
            self.linger(worker)
            taken = self._draw()
        return taken

    def _draw(self) -> Taken | None:
        if self._hand is not None:
            return self._hand.draw()
        taken, self._following = self._following, None
        return taken

    def ended(self, taken: Taken) -> None:
        """Note that what ``next`` has returned has run, or does not run here."""
        if self._hand is not None:
            self._hand.ended(taken.take)

    def linger(self, worker: str) -> None:
        """Wait a moment for a next step where they come one soon after the other.

        The commit has said that it is waited for here: from then on nobody else is rung for one. So this waits, or says
        that it does not, also when the time is over by now.
        """
        terms, self._may_linger = self._terms if self._may_linger else None, False
        if terms is None:
            return
        store, token, wait_s = self._attempt.store, self._attempt.store.new_token(), LINGER_S
        if not claims.may_go_on(self._grant.orders):
            # What has rung here is told on: a step of no name is none of these.
            terms, wait_s = replace(terms, names=()), 0.0
        self._attempt.claim.go_on()
        try:
            taken = store.follow(worker, token, terms, wait_s=wait_s)
        except Unavailable:
            # It may have been taken all the same, and would then be nobody's.
            taken = keep_trying(lambda: store.follow(worker, token, terms))
        _patience.note(taken is not None)
        if taken is not None:
            self._ends = min(monotonic() + LONGEST_S, self._last)
        self.go_on((taken,) if taken is not None else ())

    def end(self) -> None:
        """Leave no word on the page of a reply that is waited for: while one stands there, nothing is handed back."""
        if self._hand is not None:
            self._hand.close()
        if self._terms is not None:
            self._attempt.claim.stay()

    def hand_back(self, taken: Taken, worker: str, attempt: Ending | None = None) -> None:
        """Leave a step to the worker's own take, unless it has run; one that stays is found by the next reconcile."""
        attempt = self._attempt if attempt is None else attempt
        attempt.claim.stay()
        with suppress(Unavailable):
            attempt.store.requeue(worker, taken.take)

    def call_of(self, taken: Taken, worker: str, *, alike: bool = True) -> tracing.Call:
        """Return what Celery's tracer is called with; raises ValueError for a step that is for the main process.

        ``alike``: it has the time limits of the streak's first step, by which the pool ends it.
        """
        payload, holder = payload_of(taken, worker)
        headers, properties = payload["headers"], payload["properties"]
        if (
            holder is None
            or not is_plain_json(payload)
            or (alike and headers.get("timelimit") != self._limits)
            or headers.get("expires")
            or headers.get("eta")
            or headers["id"] in self._grant.revoked
        ):
            raise ValueError("the main process has to look at it first")
        info = properties.get("delivery_info") or {}
        request = {
            **headers,
            # Celery would find them by taking its own 60 names out of a copy.
            "headers": {name: value for name, value in headers.items() if name not in _CELERYS_OWN},
            "properties": properties,
            "reply_to": properties.get("reply_to"),
            "correlation_id": properties.get("correlation_id"),
            "hostname": self._hostname,
            "delivery_info": {
                "exchange": info.get("exchange"),
                "routing_key": info.get("routing_key"),
                "priority": properties.get("priority"),
                "redelivered": info.get("redelivered", False),
            },
        }
        return headers["task"], headers["id"], request, body_of(payload), None, None


_patience = Patience()

_here = threading.local()


def streak_here() -> Streak | None:
    """Return the streak that this thread is in; None where nobody may go on."""
    found: Streak | None = getattr(_here, "streak", None)
    return found


def settle_here() -> None:
    """Return when the commit that this thread's streak has left is known to stand, or not to."""
    if (streak := streak_here()) is not None:
        streak.settle()


def is_heard(task: Any) -> bool:
    """Tell whether anybody in this process is told of a step's success, who is to hear of none that does not stand."""
    return bool(
        signals.task_success.receivers
        or signals.task_postrun.receivers
        or task_has_custom(task, "on_success")
        or task_has_custom(task, "after_return")
    )


@contextmanager
def _in_streak(streak: Streak) -> Iterator[None]:
    _here.streak = streak
    try:
        yield
    finally:
        _here.streak = None
        streak.end()


def trace(name: str, task_id: str, request: dict[str, Any], *rest: Any, **options: Any) -> Any:
    """Run a task as Celery does, then what its commit and the following ones have taken.

    The target of a pool's calls for steps. Returns the first one's outcome.
    """
    wire = request.get(HOLDER_HEADER) or {}
    grant = wire.pop(GRANT, None)
    if grant is None:
        return celery_trace.fast_trace_task(name, task_id, request, *rest, **options)
    streak = Streak(Grant(**grant), request)
    with _in_streak(streak):
        outcome = celery_trace.fast_trace_task(name, task_id, request, *rest, **options)
        while (taken := streak.next(wire["worker"])) is not None:
            _run_next(streak, taken, wire["worker"])
    _here.ended = monotonic()
    return outcome


@dataclass(slots=True)
class Waiting:
    """A turn that waits in its slot for what runs there.

    Attributes:
        take: of that attempt.
        place: how far the turn has read its log.
        lines: what has come into the log since, as that attempt's commit has read it; None: it did not.
        gone: the turn is given back, and goes on elsewhere.
    """

    take: int
    place: LogPlace
    lines: list[bytes] | None = None
    gone: bool = False


def waiting_here(take: int) -> Waiting | None:
    """Return the turn that waits in this thread for the attempt of this take; None for one that runs by itself."""
    found: Waiting | None = getattr(_here, "waiting", None)
    return found if found is not None and found.take == take and not found.gone else None


@contextmanager
def aside(waiting: Waiting) -> Iterator[None]:
    """Have nobody go on from what runs within: the turn around it goes on itself."""
    streak, _here.streak, _here.waiting = streak_here(), None, waiting
    try:
        yield
    finally:
        _here.streak, _here.waiting = streak, None


def _run_next(streak: Streak, taken: Taken, worker: str) -> None:
    taker = current()
    try:
        if taker is not None and (taker.refused or taker.id != worker):
            logger.warning("step_dropped take=%d: this worker was given up before it began", taken.take)
            return
        call = streak.call_of(taken, worker)
        streak.begin()
        tracing.run_call(call)
    except Exception as error:
        logger.info("handed_back take=%d: %s", taken.take, error)
        streak.hand_back(taken, worker)
    finally:
        streak.ended(taken)
