"""The runs of the crash campaign: how each kind is started, what it hears from outside, what it must come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from celery import chain, chord

from agentq import AgentqError
from tests.kit.field import shape_of

TIMEOUT = 150.0
"""Seconds for a run to end after the last fault, on two busy cores."""


ENDS = ("succeeded", "failed", "cancelled")

EXPECTED: dict[str, Any] = {
    "chain of 12": 12,
    "fan-out of 200": [2 * number for number in range(200)],
    "nested joins": 9 * (1 + 2 + 3),
    "spawn tree": 7 + 8,
    "canvas": [20 + 3 + 4, 10, 7],
    "everything at once": [2 * (1 + 2 + 3 + 4), 3, 10],
    "payloads": 3 * 100_000,
    "guarded steps": sum(range(1, 13)),
    "cancelled tree": "run_cancelled",
    "undo": "run_failed",
    "signals": list(range(24)),
    "parked": ["go", "True"],
    "chord": 72,
}
"""What a run of each shape comes to."""


@dataclass
class Started:
    """A run on its way.

    Attributes:
        handle: of the run; Celery's result for a canvas.
        nudge: does what the outside does next, if it is time for it.
        alike: whether an undisturbed one has the same steps; which of them a cancel finds at work is chance.
    """

    shape: str
    handle: Any
    nudge: Callable[[], None]
    alike: bool = True

    @property
    def is_agent(self) -> bool:
        """Whether it has a history; a canvas alone keeps none."""
        return hasattr(self.handle, "events")

    def has_ended(self) -> bool:
        """Tell whether it has come to its end."""
        if self.is_agent:
            return str(self.handle.status()) in ENDS
        return bool(self.handle.ready())

    def end(self) -> tuple[Any, Any]:
        """Wait for the end; return the outcome, and how often each (step, status) stands in the run."""
        try:
            outcome = self.handle.get(timeout=TIMEOUT)
        except AgentqError as error:
            # Its words name ids, which differ from run to run.
            outcome = error.code
        return outcome, shape_of(self.handle) if self.is_agent and self.alike else None


def _nothing() -> None:
    return None


def start_all(flows: Any) -> list[Started]:
    """Start one run of each shape; two tenants have some of them, in several lanes."""
    left, right = {"tenant": "left"}, {"tenant": "right", "priority": "low"}
    agents = [
        ("chain of 12", flows.chained.using(**left, priority="high").start(4)),
        ("fan-out of 200", flows.wide.using(**left).start(200)),
        ("nested joins", flows.nested.using(**right).start(2, 3)),
        ("spawn tree", flows.tree.using(**left).start(3, 2)),
        ("canvas", flows.canvas.using(**right).start(4)),
        ("everything at once", flows.mixed.start(4)),
        ("payloads", flows.heavy.using(**left).start(100_000)),
        ("guarded steps", flows.bounded.using(**right).start(12)),
        ("undo", flows.undone.start(3)),
    ]
    doomed = flows.doomed.using(**right).start(2)
    signals, parked = flows.heard.using(**left).start(24, 9, []), flows.parked.start(0.5)
    chords = chord([chain(flows.work.s(n), flows.double.s()) for n in range(8)], flows.total.s())
    return [
        *(Started(shape, handle, _nothing) for shape, handle in agents),
        Started("cancelled tree", doomed, partial(_cancelled, doomed), alike=False),
        Started("signals", signals, _Signals(signals, 24)),
        Started("parked", parked, partial(_person, flows.app, parked)),
        Started("chord", chords.apply_async(), _nothing),
    ]


class _Signals:
    """Sends some numbers each time; the last two thirds of an id's words are repeats."""

    def __init__(self, handle: Any, count: int) -> None:
        self.handle = handle
        self.count = count
        self.sent = 0

    def __call__(self) -> None:
        for number in range(self.sent, min(self.sent + 4, self.count)):
            for _ in range(3):
                self.handle.signal("number", number, id=f"n{number}")
            self.sent = number + 1


def _cancelled(handle: Any) -> None:
    """Cancels a run once it has begun."""
    if len(handle.steps()) > 4:
        handle.cancel()


def _person(app: Any, handle: Any) -> None:
    """Says the word, and answers what is asked."""
    if str(handle.status()) in ENDS:
        return
    handle.signal("word", "go", id="word")
    for ask in app.asks.list(run_id=handle.id):
        app.asks.answer(ask.ask_id, True)
