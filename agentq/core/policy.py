"""When a dead process is started again."""

from datetime import timedelta
from typing import Final

_RESTART_FIRST: Final = 0.5
"""Seconds: long enough that a process that dies at once does not fill the log, short enough for a person."""

_RESTART_MOST: Final = 30.0
"""Seconds: a broken configuration is mended by a person, who does not want to wait longer for the effect."""


def decide_restart_wait(deaths: int) -> timedelta:
    """The pause before a supervisor starts a dead process again; `deaths` counts those in a row, from 1."""
    # 2 ** 6 is past the cut already; a greater exponent would only overflow.
    doubled = min(max(deaths - 1, 0), 6)
    return timedelta(seconds=min(_RESTART_FIRST * 2**doubled, _RESTART_MOST))
