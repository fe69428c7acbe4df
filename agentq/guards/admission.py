"""Asks breakers, rates, limits and budgets before a step's function is called, and tells breakers how it went."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from agentq.core.errors import OwnershipLost
from agentq.engine.admission import admit
from agentq.engine.attempt import Attempt
from agentq.engine.ending import CONTROL


class AdmissionGuard:
    """Admits the call; how it went is settled with the attempt's commit.

    While a breaker is open a step with a fallback takes that; one without waits in the breaker's line, as one over a
    limit does. Neither burns an attempt.
    """

    def __call__(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        """Return the step's value; raises what ``admit`` does."""
        if not admit(attempt):
            return call()
        began = time.monotonic()
        try:
            value = call()
        except (*CONTROL, OwnershipLost):
            raise
        except Exception as error:
            attempt.call_went_well = not any(isinstance(error, each.on) for each in attempt.task.agentq.breakers)
            raise
        seconds = time.monotonic() - began
        slow = [each.slow_after for each in attempt.task.agentq.breakers if each.slow_after is not None]
        attempt.call_went_well = not any(seconds > each.total_seconds() for each in slow)
        return value
