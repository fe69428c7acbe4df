"""Stops runs that hang: of which something runs and nothing is heard, or which do not end. A thread of each worker.

None of them leads: a run is stopped once, whoever finds it. Owns when; the rules are ``core.zombies``'.
"""

from __future__ import annotations

import logging
from typing import Final

from agentq.core.zombies import decide_watched
from agentq.engine.background import Background
from agentq.store import Store

logger = logging.getLogger(__name__)

LEAST_MS: Final = 1000
"""Between two looks at a run."""


class ZombieWatch(Background):
    """Looks after runs while its worker lives.

    Args:
        store: with a client of its own.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store, name="zombie_watch", logger=logger)

    def look(self) -> int:
        """Look at all that are due; return how many were stopped."""
        stopped = 0
        for root, run in self.store.watched():
            if self.is_stopping:
                break
            stopped += self._look_at(root, run)
        return stopped

    def _look_at(self, root: str, run: str) -> bool:
        found = self.store.standing(root, run)
        if found is None:
            self.store.look_again(root, run, None)
            return False
        now = found.standing.now_ms
        verdict, following = decide_watched(found.standing, found.watch)
        if found.is_stopped or verdict is not None:
            following = now + min(found.watch.values())
        self.store.look_again(root, run, max(following, now + LEAST_MS) if following else None)
        if found.is_stopped or verdict is None:
            return False
        # What the log has got since then may be what was missed.
        if self.store.stop(root, run, verdict.why, rule=verdict.rule, seen=found.lines) != "new":
            return False
        logger.warning("run_stopped run=%s rule=%s: %s", run, verdict.rule, verdict.why)
        return True
