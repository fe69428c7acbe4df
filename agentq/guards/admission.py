"""Asks cache, breakers, rates, limits and budgets before a step's function is called; tells breakers how it went."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from agentq.core.codec import loads
from agentq.core.errors import InvalidResult, OwnershipLost
from agentq.engine.admission import admit, asks
from agentq.engine.attempt import Attempt
from agentq.engine.ending import CONTROL


class AdmissionGuard:
    """Admits the call; how it went is settled with the attempt's commit.

    While a breaker is open a step with a fallback takes that; one without waits in the breaker's line, as one over a
    limit does. Neither burns an attempt. What the cache answers is the step's value, and its function is not called.
    """

    def passes(self, attempt: Attempt) -> bool:
        """Tell whether there is nothing to ask before the function is called."""
        return not asks(attempt)

    def concerns(self, attempt: Attempt) -> bool:
        """Tell whether there is anything to ask."""
        return asks(attempt)

    def __call__(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        """Return the step's value; raises what ``admit`` does."""
        reply = admit(attempt)
        if reply is not None and reply.verdict == "cached":
            value = loads(reply.value)
            if _fits(attempt, value):
                attempt.cached = True
                return value
            reply = admit(attempt, refresh=True)
        if reply is None:
            return call()
        value = _told_of(attempt, attempt.task, call)
        attempt.fresh = value
        return value


def _fits(attempt: Attempt, value: Any) -> bool:
    """Tell whether an answer of earlier code still is one: the return hint may have changed since."""
    try:
        attempt.task.schema.decode_result(value)
    except InvalidResult:
        return False
    return True


def call_admitted(attempt: Attempt, fallback: Any) -> Any:
    """Return what a fallback answers in the step's place, once its own guards let it through.

    Raises what it raises, BreakerOpen and LimitReached.
    """
    options = getattr(fallback, "agentq", None)
    if options is None or not options.is_guarded:
        return attempt.call_other(fallback)
    admit(attempt, instead=fallback)
    return _told_of(attempt, fallback, lambda: attempt.call_other(fallback))


def _told_of(attempt: Attempt, task: Any, call: Callable[[], Any]) -> Any:
    """Return what the call returns; the task's breakers hear with the commit how it went."""
    began = time.monotonic()
    try:
        value = call()
    except (*CONTROL, OwnershipLost):
        raise
    except Exception as error:
        attempt.call_went_well = not any(isinstance(error, each.on) for each in task.agentq.breakers)
        raise
    seconds = time.monotonic() - began
    slow = [each.slow_after for each in task.agentq.breakers if each.slow_after is not None]
    attempt.call_went_well = not any(seconds > each.total_seconds() for each in slow)
    return value
