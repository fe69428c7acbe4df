"""The step that a turn waits for, run by the turn's own process: nobody else has to be told of it, nor tell of its end.

An agent that calls one step rests until that has ended, and its slot with it. So the script that sends a short step
takes it for that slot at once, or what is to come before it: the step keeps its record, attempt and commit. What turns
out long must not keep the agent from its inputs: its turn is then given back, and goes on elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from celery.utils.log import get_logger

from agentq.core.errors import StaleHolder, Unavailable
from agentq.engine import exits, going_on, later, paces, tracing
from agentq.engine.kin import suits
from agentq.engine.slots import current
from agentq.store.refs import GoOn, LogPlace, Offer, Taken

if TYPE_CHECKING:
    from agentq.engine.attempt import Attempt

logger = get_logger(__name__)

LONG_S: Final = 0.25
"""After so long a turn is given back for the step in its slot: until then the agent hears of nothing, as while it
computes."""

AGAIN_S: Final = 1.0
"""So long after a server was away it is tried again."""

GRANTED_S: Final = 60.0
"""So long after its begin a turn believes what the main process said then: which steps were revoked, that no rate is
limited."""


class OwnSteps:
    """What one turn runs in its slot."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        streak = going_on.streak_here()
        # Of a turn that follows another one the main process does not know: it would have two to find by one seat.
        self._streak = streak if streak is not None and streak.is_at_first else None
        self._began = monotonic()
        self._sent: dict[bytes, tuple[str, float]] = {}

    def terms(self, step: Any, offers: Sequence[Offer]) -> GoOn | None:
        """Return on which terms the one step that the turn waits for may be taken as it is sent; None: it may not."""
        streak, claim = self._streak, self._attempt.claim
        if (
            streak is None
            or len(offers) != 1
            or step.is_agent
            or not suits(step)
            or offers[0].queue not in streak.queues
        ):
            return None
        began = monotonic()
        if not paces.is_short(step.name):
            # It is not known yet: how long its outcome takes to come says how long it takes at most.
            self._sent[offers[0].id.encode()] = step.name, began
            return None
        passed = began - self._began
        terms = streak.own_terms(claim, step, over=passed < going_on.LONGEST_S) if passed < GRANTED_S else None
        if terms is not None:
            claim.go_on()
        return terms

    def heard(self, lines: Sequence[bytes]) -> None:
        """Learn from what has come into the log how long a step takes."""
        for ask_id in [each for each in self._sent if any(each in line and b'"result"' in line for line in lines)]:
            name, began = self._sent.pop(ask_id)
            paces.note(name, monotonic() - began, known=False)

    def run(self, taken: Taken | None, seen: int) -> going_on.Waiting | None:
        """Run what was taken with the send; None where nothing was. Raises StaleHolder for a turn given back.

        ``seen``: how far the turn has read its log.
        """
        attempt, streak = self._attempt, self._streak
        if taken is None or streak is None:
            attempt.claim.stay()
            return None
        worker = attempt.holder.worker
        if (taker := current()) is not None:
            taker.saw(taken.take)
        try:
            call = streak.call_of(taken, worker, alike=False)
        except Exception as error:
            logger.info("handed_back take=%d: %s", taken.take, error)
            streak.hand_back(taken, worker, attempt)
            return None
        waiting = going_on.Waiting(taken.take, LogPlace(attempt.holder, seen))
        with self._watched(call, waiting):
            tracing.run_call(call)
        return waiting

    @contextmanager
    def _watched(self, call: tracing.Call, waiting: going_on.Waiting) -> Iterator[None]:
        """Give the turn back if this takes long, and end a step in time that the pool does not know of."""
        attempt, began = self._attempt, monotonic()
        given_back: list[float] = []
        soft_s = _soft_limit(call)

        def look() -> float | None:
            if not given_back:
                # Before: whoever has the turn next is to be rung for.
                waiting.gone = True
                try:
                    attempt.store.requeue(attempt.holder.worker, attempt.holder.take)
                except Unavailable:
                    return AGAIN_S
                given_back.append(monotonic())
                logger.info("turn_given_back id=%s: %s takes long", attempt.holder.id, call[0])
            if soft_s is None:
                return None
            if (left := began + soft_s - monotonic()) > 0:
                return left
            exits.end_in_time()
            return None

        with exits.one_step() if soft_s is not None else nullcontext():
            guard = later.after(LONG_S if soft_s is None else min(LONG_S, soft_s), look)
            try:
                with going_on.aside(waiting):
                    yield
            finally:
                guard.call_off()
                paces.note(call[0], monotonic() - began)
                attempt.claim.finish()
        if given_back:
            holder = attempt.holder
            raise StaleHolder(
                step=attempt.task.name, run_id=holder.root, holder="", take=0, mine=holder.worker, my_take=holder.take
            )


def _soft_limit(call: tracing.Call) -> float | None:
    """Return after how many seconds this process is to interrupt the step; None where nobody does, or its loop does."""
    if not exits.hears_soft_limit():
        return None
    limits = call[2].get("timelimit") or (None, None)
    return float(limits[1]) if limits[1] else None
