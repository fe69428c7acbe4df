"""What a start does where too many wait in its pool already: it fails at once, or tries again until there is room."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Final, TypeVar

from agentq.core.errors import QueueFull
from agentq.engine.binding import binding_of
from agentq.engine.options import CallOptions

T = TypeVar("T")

SHORTEST_S: Final = 0.05
LONGEST_S: Final = 1.0
"""Between two tries: a hundred callers that wait ask the server a hundred times in that time."""


def patiently(app: Any, call: CallOptions, send: Callable[[], T]) -> T:
    """Return ``send()``; where there is no room and the call waits for it, that of a later try.

    Raises QueueFull when there is none for the time that is set.
    """
    limits = binding_of(app).limits
    ends = monotonic() + limits.full_wait_s
    while True:
        try:
            return send()
        except QueueFull as full:
            left = ends - monotonic()
            if (limits.on_full if call.on_full is None else call.on_full) != "wait" or left <= 0:
                raise
            pause = LONGEST_S if full.wait_s is None else full.wait_s / 2
            # Not all at once: those who wait would come together, and all but one in vain.
            sleep(min(max(pause, SHORTEST_S), LONGEST_S, left) * random.uniform(0.5, 1.0))
