"""Whether a worker is fit to take work, by what it measures of itself. A rule without a clock or a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

Ailment = Literal["delay", "errors", "memory"]

ATTEMPTS_AT_LEAST: Final = 20
"""Of fewer attempts in the window no share is told: three failures of four may be chance."""

RELIEF: Final = 1.25
"""So many times the least memory must be free again before work is taken: else it would come and go by the second."""

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Beyond which a worker takes nothing; None looks at nothing.

    Attributes:
        delay_s: for so long an event loop may stand still.
        errors: share of attempts that may fail, 0 to 1, while they do not elsewhere.
        free_bytes: memory that must be free.
    """

    delay_s: float | None = None
    errors: float | None = None
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a worker measures.

    Attributes:
        delay_s: how long its event loop, or that of its async steps, has stood still.
        attempts, failed: that ended in the last minute, and those of them that failed.
        others: the same two of the other workers of its queues, added up; None where they were not asked.
        free_bytes: memory; None where it cannot be told.
    """

    delay_s: float = 0.0
    attempts: int = 0
    failed: int = 0
    others: tuple[int, int] | None = None
    free_bytes: int | None = None


def is_suspicious(vitals: Vitals, limits: Thresholds) -> bool:
    """Whether so many attempts fail here that it is worth asking how others fare."""
    return (
        limits.errors is not None
        and vitals.attempts >= ATTEMPTS_AT_LEAST
        and vitals.failed > limits.errors * vitals.attempts
    )


def decide_health(
    vitals: Vitals, limits: Thresholds, *, before: Mapping[Ailment, str] = MappingProxyType({})
) -> dict[Ailment, str]:
    """What is wrong with the worker, each in words; empty for one that is fit. `before`: what was wrong so far."""
    found: dict[Ailment, str | None] = {
        "delay": _delay(vitals, limits, "delay" in before),
        "errors": _errors(vitals, limits, before.get("errors")),
        "memory": _memory(vitals, limits, "memory" in before),
    }
    return {ailment: words for ailment, words in found.items() if words is not None}


def _delay(vitals: Vitals, limits: Thresholds, ails: bool) -> str | None:
    if limits.delay_s is None or vitals.delay_s <= (limits.delay_s / 2 if ails else limits.delay_s):
        return None
    return f"an event loop stands still for {vitals.delay_s:.1f} s (limit {limits.delay_s:g} s): a step blocks it"


def _errors(vitals: Vitals, limits: Thresholds, before: str | None) -> str | None:
    if not is_suspicious(vitals, limits):
        # Nothing is taken meanwhile, so that the last minute empties by itself, and the worker tries again.
        return None
    if before is not None:
        # What it was found ill by stays its reason: how others fare meanwhile, without it, is another question.
        return before
    assert limits.errors is not None
    attempts, failed = vitals.others if vitals.others is not None else (0, 0)
    # Where they fail elsewhere too, or nobody else has tried, the work may be to blame: stopping would only hold it up.
    if attempts < ATTEMPTS_AT_LEAST or failed >= attempts * limits.errors / 2:
        return None
    here = f"{vitals.failed} of {vitals.attempts} attempts of the last minute failed here"
    return f"{here}, and {failed} of {attempts} elsewhere"


def _memory(vitals: Vitals, limits: Thresholds, ails: bool) -> str | None:
    if limits.free_bytes is None or vitals.free_bytes is None:
        return None
    if vitals.free_bytes >= limits.free_bytes * (RELIEF if ails else 1):
        return None
    return f"{vitals.free_bytes / MIB:.0f} MiB of memory are free (least {limits.free_bytes / MIB:.0f} MiB)"
