"""Steps that wait in a queue which nobody serves: told with what they need, and moved to another queue."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from agentq.store.connection import StoreConnection

PAGE: Final = 200
"""So many of each lane and tenant are looked at in one go: a script holds up everybody."""


@dataclass(frozen=True, slots=True)
class Stranded:
    """One such step.

    Attributes:
        name: ``root|step|generation``.
        lane: its number.
        tenant: '' for none.
        needs: what chose its queue, as ``routing`` writes it; None where it was named.
    """

    name: str
    lane: int
    tenant: str
    needs: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Move:
    """Where one of them goes; an empty queue: it stays, and is not unschedulable any more."""

    step: Stranded
    queue: str
    why: str


class StrandedCalls(StoreConnection):
    """The scripts for them."""

    def strand(self, queue: str, *, words: str, after: int = 0) -> list[Stranded]:
        """Return a page of what waits there, behind the ``after`` oldest of each lane and tenant.

        That of the first page is noted as unschedulable.
        """
        return [
            Stranded(
                name=name.decode(),
                lane=int(lane),
                tenant=tenant.decode(),
                needs=json.loads(needs) if needs else None,
            )
            for name, lane, tenant, needs in self.run_script("strand", queue, PAGE, words, after)
        ]

    def reroute(self, queue: str, moves: Sequence[Move], *, after: int = 0) -> int:
        """Move steps of one page out of a queue; return how many were still there. ``after`` as in ``strand``."""
        parts = [
            part for move in moves for part in (move.step.name, move.step.lane, move.step.tenant, move.queue, move.why)
        ]
        return int(self.run_script("reroute", queue, PAGE, after, *parts)) if parts else 0
