"""Catches what Celery would publish and store, so that it can travel in one script.

Celery's tracer and canvas publish and store by themselves, in an order that a crash can cut in the middle. While a
capture is open in this context, the transport and the backend add to it instead of writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from agentq.store.refs import Arrival, Join, Offer


@dataclass(slots=True)
class Capture:
    """What was caught, in order.

    Attributes:
        offers: messages for their queues.
        joins: joins that were opened.
        results: (task id, Celery's meta as JSON).
        arrivals: branches that reached their joins.
    """

    offers: list[Offer] = field(default_factory=list)
    joins: list[Join] = field(default_factory=list)
    results: list[tuple[str, str]] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)

    def merge(self, other: Capture) -> None:
        """Add what ``other`` caught behind what this one holds."""
        self.offers.extend(other.offers)
        self.joins.extend(other.joins)
        self.results.extend(other.results)
        self.arrivals.extend(other.arrivals)


_open: ContextVar[Capture | None] = ContextVar("agentq_capture", default=None)


def active() -> Capture | None:
    """Return the capture that is open in this context; None when publishing goes to the server."""
    return _open.get()


@contextmanager
def capturing() -> Iterator[Capture]:
    """Open a capture; an inner one catches for itself until it is closed."""
    capture = Capture()
    token = _open.set(capture)
    try:
        yield capture
    finally:
        _open.reset(token)
