"""Keeps calls away from what fails: a breaker shared by all workers through one script."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from agentq.core.errors import BreakerOpen, OwnershipLost
from agentq.core.models import Breaker
from agentq.engine.attempt import Attempt
from agentq.engine.ending import CONTROL, Again
from agentq.engine.outcome import keep_trying


class BreakerGuard:
    """Admits a call, and tells the breaker how it went.

    While the breaker is open a step with a fallback takes it; one without waits as a timer until the breaker may
    close. Neither burns an attempt.
    """

    def __call__(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        """Return the step's value; raises BreakerOpen for the fallback, or Again to wait."""
        breaker = attempt.task.agentq.breaker
        if breaker is None:
            return call()
        wait_ms = keep_trying(lambda: attempt.store.admit_breaker(breaker.name, reset_ms=_ms(breaker.reset_after)))
        if wait_ms > 0:
            error = BreakerOpen(name=breaker.name, retry_after=wait_ms / 1000)
            if attempt.task.agentq.fallback is not None:
                raise error
            raise Again(error, timedelta(milliseconds=wait_ms), counted=False)
        try:
            value = call()
        except (*CONTROL, OwnershipLost):
            raise
        except Exception:
            self._report(attempt, breaker, failed=True)
            raise
        self._report(attempt, breaker, failed=False)
        return value

    @staticmethod
    def _report(attempt: Attempt, breaker: Breaker, *, failed: bool) -> None:
        keep_trying(
            lambda: attempt.store.report_breaker(
                breaker.name,
                failed=failed,
                attempt=f"{attempt.holder.worker}|{attempt.holder.take}",
                failures=breaker.failures,
                window_ms=_ms(breaker.window),
                reset_ms=_ms(breaker.reset_after),
            )
        )


def _ms(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)
