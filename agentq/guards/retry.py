"""Runs a failed step again later, as its policy decides; the wait is a timer of the store and holds no slot."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from agentq.core.errors import BreakerOpen, OwnershipLost
from agentq.core.policy import decide_retry
from agentq.engine.attempt import Attempt
from agentq.engine.ending import CONTROL, Again


class RetryGuard:
    """Asks the policy of ``Retry`` after a failure."""

    def __call__(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        """Return the step's value; raises Again when another attempt is to be made."""
        policy = attempt.task.agentq.retry
        if policy is None:
            return call()
        try:
            return call()
        except (*CONTROL, OwnershipLost, BreakerOpen):
            # An open breaker is no failed attempt: the fallback answers at once.
            raise
        except Exception as error:
            delay = decide_retry(policy, attempt.number, error, random.random())
            if delay is None:
                raise
            raise Again(error, delay) from error
