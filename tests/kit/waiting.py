"""Waits for conditions of other processes; the only place in the tests that sleeps.

Deadlines here are generous on purpose: they end a test that hangs, they measure nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE = 60.0
"""Seconds after which a condition counts as never coming, on two busy cores."""


def wait_until(
    predicate: Callable[[], T | None],
    *,
    description: str,
    timeout: float = DEADLINE,
    interval: float = 0.03,
    report: Callable[[], str] | None = None,
) -> T:
    """Return the predicate's first true value.

    Raises AssertionError with the description, and what ``report`` returns, after ``timeout`` seconds.
    """
    end = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= end:
            tail = f"\n{report()}" if report is not None else ""
            raise AssertionError(f"not within {timeout:g} s: {description}{tail}")
        time.sleep(interval)


def holds_for(predicate: Callable[[], bool], *, description: str, seconds: float) -> None:
    """Check that the predicate stays true for some seconds; for what must not happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert predicate(), f"did not hold for {seconds:g} s: {description}"
        time.sleep(0.03)
