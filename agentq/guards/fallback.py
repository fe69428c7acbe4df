"""Answers in a failed step's place: with the declared fallbacks, in their order, once its attempts are used up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from agentq.core.errors import BreakerOpen, BudgetExceeded, LimitReached, OwnershipLost
from agentq.engine.attempt import Attempt
from agentq.engine.ending import CONTROL, Again
from agentq.guards.admission import call_admitted


class FallbackGuard:
    """Calls each ``fallback`` with the step's own arguments, in the same attempt, until an answer passes.

    One that is a step asks its own breakers, rates and limits first, and does not wait: the next one is asked then. An
    agent among them takes the step's place as a run: what comes behind it in the list is not asked any more.
    """

    def passes(self, _attempt: Attempt) -> bool:
        """Tell that there is nothing to do before the function is called."""
        return True

    def concerns(self, attempt: Attempt) -> bool:
        """Tell whether the step has any."""
        return bool(attempt.task.agentq.fallbacks)

    def __call__(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        """Return the step's value or a fallback's; if all fail, the last error names those before it as its causes."""
        fallbacks = attempt.task.agentq.fallbacks
        if not fallbacks:
            return call()
        try:
            return call()
        except (*CONTROL, OwnershipLost):
            raise
        except Exception as error:
            return _answer(attempt, fallbacks, error)


def _answer(attempt: Attempt, fallbacks: tuple[Any, ...], failure: Exception) -> Any:
    # By one of these its own guards have kept it from being called.
    called = not isinstance(failure, BreakerOpen | BudgetExceeded)
    for fallback in fallbacks:
        told = f"{type(failure).__name__}: {failure}"
        if getattr(fallback, "is_agent", False):
            attempt.note("fallback", fallback=attempt.name_of(fallback), error=told)
            args, kwargs = attempt.arguments
            attempt.task.replace(fallback.s(*args, **kwargs))
        try:
            value = call_admitted(attempt, fallback)
        except (*CONTROL, OwnershipLost):
            raise
        except Exception as error:
            error.__cause__ = failure
            failure = error
        else:
            attempt.note("fallback", fallback=attempt.name_of(fallback), error=told)
            return value
    if isinstance(failure, BreakerOpen | LimitReached):
        # As for the step itself: what is over a limit, or kept away, waits, and holds no worker.
        raise Again(failure, timedelta(seconds=failure.retry_after), counts=called) from failure
    raise failure
