"""Runs a failed step again, as its policy decides: at once in place, or later, as a timer that holds no slot."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from agentq.core.errors import BreakerOpen, OwnershipLost, ResultRefused
from agentq.core.retry import Retry, asked_pause, changed_arguments, decide_retry, spread_pause, told
from agentq.engine.attempt import Attempt
from agentq.engine.cached import NOTHING
from agentq.engine.ending import CONTROL, Again
from agentq.engine.trying import state_of


class RetryGuard:
    """Asks the policy of ``Retry`` after each try."""

    def passes(self, _attempt: Attempt) -> bool:
        """Tell that there is nothing to do before the function is called."""
        return True

    def concerns(self, attempt: Attempt) -> bool:
        """Tell whether the step has a policy."""
        return attempt.task.agentq.retry is not None

    def __call__(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        """Return the step's value; raises Again when another attempt is to be made later."""
        policy = attempt.task.agentq.retry
        if policy is None:
            return call()
        while True:
            value, error = None, None
            try:
                value = call()
            except (*CONTROL, OwnershipLost, BreakerOpen):
                # An open breaker is no failed attempt: the fallback answers at once.
                raise
            except Exception as failure:
                error = failure
            if error is None and isinstance(policy.on, tuple):
                return value
            if not self._try_again(attempt, policy, error):
                return value

    def _try_again(self, attempt: Attempt, policy: Retry, error: Exception | None) -> bool:
        """Return once the function is to be called again in place: True; False when the result stands.

        Raises Again for a later attempt, and the error where it is final.
        """
        number = attempt.tries()
        state = _state_of(attempt, number, error) if policy.has_strategies else None
        pause = decide_retry(policy, number, error, random.random(), state=state)
        if pause is None:
            if error is not None:
                raise told(attempt.earlier, error)
            if not callable(policy.on) or not policy.on(state):
                return False
            raise told(attempt.earlier, _refused(attempt))
        failure = error if error is not None else _refused(attempt)
        pause = spread_pause(pause, asked_pause(error, now=datetime.now(UTC)), random.random())
        changed = {}
        if policy.change is not None:
            named = attempt.named_arguments()
            changed = changed_arguments(policy.change, number + 1, error, named, step=attempt.task.name)
        # Other arguments must be in the step's message: it comes again after a crash, or from a guard's line.
        if not changed and pause <= policy.in_place and attempt.may_stay(pause):
            attempt.stay(failure, pause, number=number + 1)
            return True
        raise Again(failure, pause, changed=changed) from error


def _refused(attempt: Attempt) -> ResultRefused:
    attempt.fresh = NOTHING
    reason = "the strategy that retry= names found fault with it"
    return ResultRefused(step=attempt.task.name, value=attempt.returned, reason=reason)


def _state_of(attempt: Attempt, number: int, error: Exception | None) -> Any:
    seconds = attempt.seconds_since_first_try()
    outcome = attempt.returned if error is None else error
    return state_of(attempt.task.run, attempt.arguments, number, outcome, seconds=seconds)
