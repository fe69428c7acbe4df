"""Catches what Celery would publish and store, so that it can travel in one script.

Celery's tracer and canvas publish and store by themselves, in an order that a crash can cut in the middle. While a
capture is open in this context, the transport and the backend add to it instead of writing.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
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


class capturing:
    """Opens a capture for the block; an inner one catches for itself until it is closed."""

    __slots__ = ("_token",)

    _token: Token[Capture | None]

    def __enter__(self) -> Capture:
        capture = Capture()
        self._token = _open.set(capture)
        return capture

    def __exit__(self, *_error: object) -> None:
        _open.reset(self._token)
