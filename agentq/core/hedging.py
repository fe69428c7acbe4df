"""When a step is slow enough for a second one beside it: a time, or a quantile of the times that it took before."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from agentq.core.units import read_duration

HedgeAfter = timedelta | str
"""A time (`timedelta`, `30s`), or a quantile such as `p95`."""

LEAST: Final = timedelta(milliseconds=1)

_QUANTILE: Final = re.compile(r"p([0-9]{2}(?:\.[0-9]+)?)")


def read_hedge(given: object) -> str:
    """The form that a step's record holds: ms as digits, or the quantile; ValueError says what is wrong."""
    found = _QUANTILE.fullmatch(given) if isinstance(given, str) else None
    if found is not None:
        if not 50 <= float(found.group(1)) < 100:
            raise ValueError("a quantile lies between p50 and p99.9: below, every second step would be done twice")
        return f"p{float(found.group(1)):g}"
    span = given
    if isinstance(given, str) and not given.strip()[-1:].isdigit():
        # A number without a unit may be meant as a quantile.
        span = read_duration(given)
    if not isinstance(span, timedelta):
        raise ValueError(
            'it is a time, such as timedelta(seconds=5) or "5s", or a quantile of its times, such as "p95"'
        )
    if span < LEAST:
        raise ValueError("every step would be done twice: give at least a millisecond")
    return str(round(span / LEAST))
