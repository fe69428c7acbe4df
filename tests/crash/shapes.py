"""The runs of the crash campaign: how each kind is started, what it hears from outside, what it must come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from celery import chain, chord

from agentq import AgentqError, UsageError
from tests.kit.field import shape_of

TIMEOUT = 150.0
"""Seconds for a run to end after the last fault, on two busy cores."""


TOLD = ("cached", "hedged", "resumed", "stopped", "won")
"""Kinds of events that a campaign counts: what it had no occasion to disturb it says nothing of."""

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
    "stopped tree": 9 * (1 + 2 + 3),
    "zombie": [2] * 8,
    "hedged steps": 2 * (1 + 2 + 3),
    "kept answers": 2 * 4 * (1 + 2 + 3),
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
        alike: whether an undisturbed one has the same steps; which of them a cancel finds at work is chance, and
            which of them get a hedge.
    """

    shape: str
    handle: Any
    nudge: Callable[[], None]
    alike: bool = True

    @property
    def is_agent(self) -> bool:
        """Whether it has a history; a canvas alone keeps none."""
        return hasattr(self.handle, "events")

    def told(self) -> Counter[str]:
        """Count what its history has of stops, hedges and kept answers, by kind."""
        lines = self.handle.events(follow=False) if self.is_agent else ()
        return Counter(line.kind for line in lines if line.kind in TOLD)

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
    still, zombie = flows.nested.using(**left).start(2, 3), flows.circling.using(**right).start(8)
    remembered = flows.remembered.using(**left).start(12)
    twice = flows.twice.using(**right).start(3)
    doomed = flows.doomed.using(**right).start(2)
    signals, parked = flows.heard.using(**left).start(24, 9, []), flows.parked.start(0.5)
    chords = chord([chain(flows.work.s(n), flows.double.s()) for n in range(8)], flows.total.s())
    return [
        *(Started(shape, handle, _nothing) for shape, handle in agents),
        Started("stopped tree", still, _Stops(still, 2)),
        Started("zombie", zombie, _Stops(zombie, 0)),
        Started("kept answers", remembered, _nothing, alike=False),
        Started("hedged steps", twice, _nothing, alike=False),
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


class _Stops:
    """Has a run and what stands below it stand still so many times while it is under way, and lets it go on again."""

    def __init__(self, handle: Any, times: int) -> None:
        self.handle = handle
        self.times = times

    def __call__(self) -> None:
        status = str(self.handle.status())
        with suppress(UsageError):  # It has ended since.
            if status == "stopped":
                self.handle.resume()
            elif status not in ENDS and self.times and len(self.handle.steps()) > 2:
                self.times -= 1
                self.handle.stop("a person's word")


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
