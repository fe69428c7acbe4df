"""Durations and sizes as people write them in settings. It owns the spelling and no setting."""

import re
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ByteSize

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "days": 86400.0}
_DURATION: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*")


def read_duration(value: Any) -> Any:
    """The duration that a number (seconds) or a text such as `250ms`, `3 s`, `10m`, `1h`, `7d` stands for.

    What it does not know is returned as it is, for pydantic to read (ISO 8601) or to refuse.
    """
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and (found := _DURATION.fullmatch(value)):
        number, unit = found.groups()
        if (unit or "s") in _SECONDS:
            return timedelta(seconds=float(number) * _SECONDS[unit or "s"])
    return value


Duration = Annotated[timedelta, BeforeValidator(read_duration)]
"""A duration; numbers are seconds."""

Size = ByteSize
"""A number of bytes; text may say `64KiB`."""
