"""The lease of a leader whose platform takes its time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from agentq.core.errors import StoreUnavailable

HELD_AT_MOST_S: Final = 60.0
"""Whoever waits for its platform for longer is followed by another."""


@contextmanager
def held(renew: Callable[[], None], *, every_s: float) -> Iterator[None]:
    """Renew again and again while the block runs, in a thread of its own; no longer than a minute.

    Without it two leaders of a slow platform take turns: each loses its lease while it looks, and neither ever acts.
    """
    done = threading.Event()

    def go_on() -> None:
        until = monotonic() + HELD_AT_MOST_S
        while not done.wait(every_s) and monotonic() < until:
            try:
                renew()
            except StoreUnavailable:
                # Whoever has waited asks the store next, and finds out by itself.
                return

    thread = threading.Thread(target=go_on, name="agentq-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        # What is given back after the block must not be taken again.
        thread.join()
