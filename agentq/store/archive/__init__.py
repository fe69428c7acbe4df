"""The archive: what is kept of finished runs when their keys have ended, in SQLite or PostgreSQL.

SQLAlchemy is imported by this package alone, and only when an archive is used: it takes a while and some memory.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentq.store.archive.database import Archive

_importing = threading.RLock()
# A worker's archivist imports while the pool may fork: a child would have half a module for ever.
os.register_at_fork(before=_importing.acquire, after_in_parent=_importing.release, after_in_child=_importing.release)


def open_archive(url: str, *, prefix: str) -> Archive:
    """Return the archive at a SQLAlchemy URL; ``prefix`` keeps the runs of several applications apart."""
    with _importing:
        from agentq.store.archive.database import Archive

        archive = Archive(url, prefix=prefix)
        # The driver too is imported here.
        archive.engine()
        return archive


__all__ = ["open_archive"]
