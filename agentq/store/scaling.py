"""The controllers of pools in the store: who leads, what was decided, and what it was decided by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agentq.store.connection import StoreConnection
from agentq.store.wire import dump

if TYPE_CHECKING:
    # Every worker opens a store, and few processes look at decisions.
    from agentq.core.sizing import Decision

KEPT_MS: Final = 7 * 24 * 3600 * 1000
"""How long decisions are kept: a week."""

KEPT_AT_MOST: Final = 5000
"""Of one pool, some 1 KB each: a nervous one has a shorter memory, and no other's suffers."""

READ_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Lead:
    """How a pool's lease stands for one who asked for it.

    Attributes:
        fence: of whoever leads; grows with each new leader.
        leader: what the other one calls itself; empty where the asker leads.
        left_ms: for how long the other's lease lasts at least.
    """

    is_mine: bool
    fence: int
    leader: str = ""
    left_ms: int = 0


class ScalingCalls(StoreConnection):
    """The scripts of controllers, and what others read of them."""

    def lead(self, controller: str, label: str, pools: Sequence[str], *, lease_ms: int) -> dict[str, Lead]:
        """Take or keep the lease on pools that nobody else leads, and say how each stands."""
        found = json.loads(self.run_script("lead", controller, label, lease_ms, dump(list(pools)))) if pools else []
        return {pool: _lead(reply) for pool, reply in zip(pools, found, strict=True)}

    def yield_lead(self, controller: str, pools: Sequence[str]) -> dict[str, int]:
        """Give the lease on these pools back, so that another takes over at once.

        Return the fence of each that was the caller's still: another has taken over the rest already.
        """
        given = self.lead(controller, "", pools, lease_ms=0)
        return {pool: lead.fence for pool, lead in given.items() if lead.is_mine}

    def decide(
        self,
        controller: str,
        decisions: Sequence[tuple[Decision, bool]],
        *,
        drains: Mapping[str, Sequence[str]] | None = None,
        undrains: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, int]:
        """Publish decisions, those marked as events to be kept; return the newest fence of each pool.

        One that differs from the decision's own means that another leads: nothing of that pool was written, and
        nothing of it may be acted on. ``drains`` and ``undrains``: by pool, ids of workers that are to take nothing
        more, and of those that may take again; what a person has drained stays so.
        """
        if not decisions:
            return {}
        lines = []
        for decision, lasts in decisions:
            marks = [list((each or {}).get(decision.pool) or ()) for each in (drains, undrains)]
            lines.append(dump([decision.pool, decision.fence, int(lasts), *marks]))
            lines.append(decision.model_dump_json(exclude_defaults=True))
        said = self.run_script("decide", controller, KEPT_AT_MOST, KEPT_MS, "\n".join(lines) + "\n")
        found = json.loads(said)
        return {decision.pool: int(newest) for (decision, _), newest in zip(decisions, found, strict=True)}

    def decisions(self) -> dict[str, Decision]:
        """Return how each pool stood when its leader last looked; `at_ms` says when. For all who show or serve it.

        What nobody has led for a week is forgotten.
        """
        found: Mapping[bytes, bytes] = self.guarded(lambda: self.client.hgetall(self.keys.of("sized")))
        read = {pool.decode(): _decision(said) for pool, said in sorted(found.items())}
        newest = max((each.at_ms for each in read.values() if each is not None), default=0)
        return {pool: each for pool, each in read.items() if each is not None and each.at_ms > newest - KEPT_MS}

    def decision_history(self, pool: str, *, since_ms: int = 0, most: int = READ_AT_ONCE) -> list[Decision]:
        """Return the last decisions of a pool that changed something, the oldest first."""
        key = self.keys.of("decisions", pool)
        found = self.guarded(lambda: self.client.xrevrange(key, "+", since_ms, count=most))
        read = [_decision(entry[b"d"]) for _, entry in reversed(found)]
        return [each for each in read if each is not None]

    def leaders(self) -> dict[str, Lead]:
        """Return who leads each pool that was ever led."""
        now = self.now_ms()
        found: Mapping[bytes, bytes] = self.guarded(lambda: self.client.hgetall(self.keys.of("leaders")))
        leads = {}
        for pool, standing in sorted(found.items()):
            fence, upto, _, label = standing.decode().split("|", 3)
            leads[pool.decode()] = Lead(False, int(fence), label, max(0, int(upto) - now))
        return leads


def _decision(said: bytes) -> Decision | None:
    """What was decided; None where a later version wrote it, which this one cannot read."""
    from pydantic import ValidationError

    from agentq.core.sizing import Decision

    try:
        return Decision.model_validate_json(said)
    except ValidationError:
        return None


def _lead(reply: Sequence[Any]) -> Lead:
    if int(reply[0]) == 1:
        return Lead(True, int(reply[1]))
    return Lead(False, int(reply[1]), reply[2], int(reply[3]))
