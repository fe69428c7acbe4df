"""Brings ended runs into the archive: a thread of each worker, none of which leads.

Owns when. What is copied is the store's; a tree that nobody confirms is copied again by whoever comes next.
"""

from __future__ import annotations

import logging
import random
import threading
from itertools import takewhile
from typing import Final

from agentq.core.errors import Unavailable
from agentq.store import Store

logger = logging.getLogger(__name__)

PAUSE_S: Final = 2.0
"""Mean time between two looks for ended runs: nobody waits for the archive, the keys stand meanwhile."""
LONGEST_PAUSE_S: Final = 60.0
CLAIM_MS: Final = 60_000
"""A tree that was claimed is another's after so long: by then its archivist has died, or both write the same."""
AT_ONCE: Final = 20


class Archivist:
    """Copies ended trees while its worker lives.

    Args:
        store: with a client of its own, and an archive.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stop = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._run, name="agentq-archivist", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the tree that it copies; what is left is another's, or the next worker's."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5.0)
        self._store.close()

    def _run(self) -> None:
        pause = PAUSE_S
        while not self._stop.wait(pause * random.uniform(0.5, 1.5)):
            try:
                while self.archive_some() and not self._stop.is_set():
                    pass
                pause = PAUSE_S
                if self._away:
                    self._away = False
                    logger.info("archive_reachable_again")
            except Unavailable as error:
                if not self._away:
                    logger.warning("archive_waits: %s", error)
                self._away, pause = True, min(pause * 2, LONGEST_PAUSE_S)
            except Exception:
                logger.exception("archive_failed")
                pause = min(pause * 2, LONGEST_PAUSE_S)

    def archive_some(self) -> bool:
        """Copy some ended trees; False when there are no more."""
        claimed = self._store.claim_ended(limit=AT_ONCE, lease_ms=CLAIM_MS)
        if not claimed:
            return False
        archive = self._store.archive
        if archive is None:
            return False
        from agentq.store.archive.copying import archive_trees

        # What is left when the worker ends is another's as soon as the claim ends.
        archive_trees(self._store, archive, takewhile(lambda _: not self._stop.is_set(), claimed))
        return len(claimed) == AT_ONCE
