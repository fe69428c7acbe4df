"""Brings ended runs into the archive: a thread of each worker, none of which leads.

Owns when. What is copied is the store's; a tree that nobody confirms is copied again by whoever comes next.
"""

from __future__ import annotations

import logging
from itertools import takewhile
from typing import Final

from agentq.engine.background import Background
from agentq.store import Store

logger = logging.getLogger(__name__)

CLAIM_MS: Final = 60_000
"""A tree that was claimed is another's after so long: by then its archivist has died, or both write the same."""
AT_ONCE: Final = 20


class Archivist(Background):
    """Copies ended trees while its worker lives.

    Args:
        store: with a client of its own, and an archive.
    """

    pause_s = 2.0
    """Nobody waits for the archive, the keys stand meanwhile."""
    longest_pause_s = 60.0

    def __init__(self, store: Store) -> None:
        super().__init__(store, name="archive", logger=logger)

    def look(self) -> None:
        """Copy all that has ended by now."""
        while self.archive_some() and not self.is_stopping:
            pass

    def archive_some(self) -> bool:
        """Copy some ended trees; False when there are no more."""
        claimed = self.store.claim_ended(limit=AT_ONCE, lease_ms=CLAIM_MS)
        if not claimed:
            return False
        archive = self.store.archive
        if archive is None:
            return False
        from agentq.store.archive.copying import archive_trees

        # What is left when the worker ends is another's as soon as the claim ends.
        archive_trees(self.store, archive, takewhile(lambda _: not self.is_stopping, claimed))
        return len(claimed) == AT_ONCE
