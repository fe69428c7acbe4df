"""Sees to steps that wait in a pool without a worker: people are told, and what another pool may serve goes there.

A thread of each worker, none of which leads: a step moves once, whoever moves it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from agentq.core.pools import Declared
from agentq.core.routes import Outlook, decide_move
from agentq.engine.background import Background
from agentq.engine.lookout import SHARED_MS
from agentq.store import Store
from agentq.store.stranded import PAGE, Move, Stranded
from agentq.store.survey import Standing, load_of

logger = logging.getLogger(__name__)

LOOKED_AT = 1000
"""Of what is unschedulable, at each look of each worker; those that have waited longest, and the rest when these go."""


class Rerouter(Background):
    """Looks after the pools of one app while its worker lives.

    Args:
        store: with a client of its own.
        pools: the declared pools.
        queues: all queues that the app's steps may go to.
        after_s: a pool is left alone for so long after its last worker: one that restarts is back by then.
    """

    def __init__(
        self,
        store: Store,
        *,
        pools: Callable[[], Declared],
        queues: Callable[[], Sequence[str]],
        after_s: float,
    ) -> None:
        super().__init__(store, name="rerouting", logger=logger)
        self._pools = pools
        self._queues = queues
        self._after_s = after_s
        self._deserted: dict[str, float] = {}
        self._passed: dict[str, int] = {}
        self._named: Sequence[str] | None = None

    def look(self) -> int:
        """Do once what is to be done; return how many steps have moved."""
        if self._named is None:
            self._named = self._queues()
        stands = self.store.survey(self._named, fresh_ms=SHARED_MS)
        outlook = Outlook({name: load_of(standing) for name, standing in stands.items()})
        moved = 0
        for queue in self._long_deserted(stands):
            moved += self._help(queue, outlook)
        self._unmark(stands)
        return moved

    def _long_deserted(self, stands: Mapping[str, Standing]) -> list[str]:
        now = monotonic()
        deserted = {name for name, standing in stands.items() if not standing.workers and any(standing.waiting)}
        self._deserted = {name: self._deserted.get(name, now) for name in deserted}
        # A pool whose workers are there and take nothing is being drained, or is not well: nobody is just restarting.
        return [name for name, since in self._deserted.items() if stands[name].resting or now - since >= self._after_s]

    def _help(self, queue: str, outlook: Outlook) -> int:
        total, _ = self._move_page(queue, 0, outlook)
        # What has to stay keeps its place before what may go: each time one page more is looked at behind it.
        after = self._passed.get(queue, 0) + PAGE
        more, stays = self._move_page(queue, after, outlook)
        self._passed[queue] = after if stays else 0
        if total + more:
            logger.info("rerouted from=%s steps=%d", queue, total + more)
        return total + more

    def _move_page(self, queue: str, after: int, outlook: Outlook) -> tuple[int, bool]:
        """Move all that may go of one page, and of what follows it; return how many, and whether any stays there."""
        total = 0
        waiting: Sequence[Stranded] = ()
        while not self.is_stopping:
            waiting = self.store.strand(queue, words=f"no worker serves {queue}", after=after)
            moves = [move for step in waiting if (move := self._move_of(queue, step, outlook)) is not None]
            moved = self.store.reroute(queue, moves, after=after) if moves else 0
            total += moved
            if not moved:
                break
        return total, bool(waiting)

    def _move_of(self, queue: str, step: Stranded, outlook: Outlook) -> Move | None:
        needs: dict[str, Any] = step.needs or {}
        if not needs.get("n"):
            return None
        route = decide_move(self._pools(), needs["n"], away_from=queue, lane=step.lane, outlook=outlook)
        if route is None:
            return None
        outlook.note(route.queue)
        return Move(step, route.queue, route.why)

    def _unmark(self, stands: Mapping[str, Standing]) -> None:
        """Have what waits in a queue that is served again no longer be unschedulable."""
        served: dict[str, list[Move]] = {}
        for each in self.store.unserved(limit=LOOKED_AT):
            standing = stands.get(each.queue)
            if each.lacks == "worker" and standing is not None and standing.workers:
                step = Stranded(f"{each.root_id}|{each.step_id}|", 0, "", None)
                served.setdefault(each.queue, []).append(Move(step, "", ""))
        for queue, moves in served.items():
            self.store.reroute(queue, moves)
