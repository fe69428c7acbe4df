"""How the queues stand, in one call: who serves them, what waits there, and how long an attempt lasts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from agentq.core.routes import Load
from agentq.store.connection import StoreConnection


@dataclass(frozen=True, slots=True)
class Standing:
    """One queue as it was found.

    Attributes:
        workers, resting: living workers that take from it, and those that do not now (they leave, or are not well).
        slots, busy: of the workers that take; one that serves several queues counts in each.
        waiting, held_back: in each lane, from critical to low. What is held back comes into its lane later.
        oldest_s: for how long the one that is next waits; None when nothing waits, or it is not known.
        service_s: how long an attempt holds a slot, lately; None when none was measured.
        per_second: attempts that ended, lately.
    """

    workers: int
    resting: int
    slots: int
    busy: int
    waiting: tuple[int, ...]
    held_back: tuple[int, ...]
    oldest_s: float | None
    service_s: float | None
    per_second: float


class SurveyReads(StoreConnection):
    """The script that looks at all queues."""

    def expected_wait(self, queue: str, lane: int) -> float | None:
        """Return how many seconds a newcomer in the lane is expected to wait; None where no worker serves the queue."""
        wait = load_of(self.survey([queue])[queue]).wait_s(lane)
        return wait if wait < inf else None

    def survey(self, queues: Sequence[str], *, fresh_ms: int = 0) -> dict[str, Standing]:
        """Return how each queue stands; what another process has found within ``fresh_ms`` is good enough."""
        names = list(dict.fromkeys(queues))
        if not names:
            return {}
        _, *texts = self.run_script("survey", fresh_ms, *names)
        return {name: _standing(json.loads(text)) for name, text in zip(names, texts, strict=True)}


def load_of(standing: Standing) -> Load:
    """Return what the choice among pools asks of one; what is held back will stand in the lane too."""
    return Load(
        workers=standing.workers,
        slots=standing.slots,
        busy=standing.busy,
        waiting=tuple(map(sum, zip(standing.waiting, standing.held_back, strict=True))),
        service_s=standing.service_s,
    )


def _standing(found: dict[str, Any]) -> Standing:
    return Standing(
        workers=found["w"],
        resting=found["x"],
        slots=found["s"],
        busy=found["b"],
        waiting=tuple(found["n"]),
        held_back=tuple(found["hb"]),
        oldest_s=_seconds(found["o"]),
        service_s=_seconds(found["v"]),
        per_second=float(found["r"]),
    )


def _seconds(ms: float) -> float | None:
    return ms / 1000 if ms >= 0 else None
