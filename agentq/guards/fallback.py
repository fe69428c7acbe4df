"""Answers in a failed step's place: with the declared fallback, once its attempts are used up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentq.core.errors import OwnershipLost
from agentq.engine.attempt import Attempt
from agentq.engine.ending import CONTROL


class FallbackGuard:
    """Calls ``fallback`` with the step's own arguments, in the same attempt."""

    def __call__(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        """Return the step's value or its fallback's; if both fail, the fallback's error names the first as cause."""
        fallback = attempt.task.agentq.fallback
        if fallback is None:
            return call()
        try:
            return call()
        except (*CONTROL, OwnershipLost):
            raise
        except Exception as error:
            try:
                value = attempt.call_other(fallback)
            except Exception as second:
                raise second from error
            attempt.note("fallback", fallback=attempt.name_of(fallback), error=f"{type(error).__name__}: {error}")
            return value
