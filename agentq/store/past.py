"""Reads that go on in the archive where the server holds nothing any more, and the calls that bring trees there.

A tree stands in the server, in both, or in the archive alone: what the server holds counts first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from agentq.core.errors import ArchiveUnavailable, RunNotFound
from agentq.core.models import Event, RunSummary
from agentq.store.archive import open_archive
from agentq.store.reading import EVENT_CHUNK, Reads, event_of, final, summary_of

if TYPE_CHECKING:
    from agentq.store.archive.database import Archive

MESSAGE: Final = "m"
"""The field of an archived run that holds its message, which in the server is a key of its own."""

_NEVER: Final = datetime.fromtimestamp(0, tz=UTC)

logger = logging.getLogger(__name__)


class EndedTree(NamedTuple):
    """A tree to archive, and the mark that tells this end of it from a later one."""

    root: str
    mark: str


class Served(NamedTuple):
    """A step that has ended: when it was queued, by the server's clock, and how long its last attempt ran."""

    at_s: float
    service_s: float


class Past(Reads):
    """What people and programs look at, also when it is long over."""

    @cached_property
    def archive(self) -> Archive | None:
        """The archive; None where ended runs are not kept."""
        if self.archive_url is None:
            return None
        return open_archive(self.archive_url, prefix=self.keys.prefix)

    def close(self) -> None:
        """Close the connections, those of the archive too; a later call opens them again."""
        super().close()
        if "archive" in self.__dict__ and self.archive is not None:
            self.archive.close()

    # -- into the archive

    def claim_ended(self, *, limit: int, lease_ms: int) -> list[EndedTree]:
        """Return trees that have ended and are to be archived; for ``lease_ms`` nobody else is given them."""
        reply = self.run_script("retire", "claim", limit, lease_ms)
        return [EndedTree(reply[at].decode(), reply[at + 1].decode()) for at in range(0, len(reply), 2)]

    def confirm_archived(self, tree: EndedTree) -> bool:
        """Have the keys of an archived tree end after the retention; False when it has come back to life meanwhile."""
        return int(self.run_script("retire", "confirm", tree.root, tree.mark)) == 1

    def awaiting_archive(self) -> tuple[int, float]:
        """Return how many ended trees the archive lacks, and for how many seconds the first of them has waited.

        A tree that is being copied counts as waiting from the end of its claim on.
        """
        now, key = self.now_ms(), self.keys.of("ended")
        count = int(self.guarded(lambda: self.client.zcard(key)))
        first = self.guarded(lambda: self.client.zrange(key, 0, 0, withscores=True))
        return count, max(0.0, (now - float(first[0][1])) / 1000) if first else 0.0

    def quote(self, root: str, run: str) -> str:
        """Return the message with which a run was started or goes on, without its name; empty while it is queued.

        Also of a run that stands in the archive alone.
        """
        found = str(self.run_script("quote", root, run).decode())
        return found or self.record(root, run).get(MESSAGE, "")

    # -- out of it

    def is_recorded(self, root: str, step_id: str) -> bool:
        """Tell whether the server holds a step's record; the archive is not asked."""
        return bool(self.query("EXISTS", self.keys.step(root, step_id)))

    def root_of(self, run_id: str) -> str | None:
        """Return the root run's id of an agent's run; None when no such run is known."""
        found = super().root_of(run_id)
        return found if found is not None or self.archive is None else self.archive.root_of(run_id)

    def record(self, root: str, step_id: str) -> dict[str, str]:
        """Return a step's record as text; empty when there is none."""
        return self.records(root, [step_id])[0]

    def records(self, root: str, step_ids: Sequence[str]) -> list[dict[str, str]]:
        """Return the records of several steps of a tree, in order; empty ones for what is not there."""
        found = super().records(root, step_ids)
        absent = [step_id for step_id, record in zip(step_ids, found, strict=True) if not record]
        if not absent or self.archive is None:
            return found
        past = self.archive.records(root, absent)
        return [record or past.get(step_id, {}) for step_id, record in zip(step_ids, found, strict=True)]

    def past_outcome(self, root: str, run_id: str) -> dict[str, Any] | None:
        """Return the outcome of a run whose keys have ended; None for one whose keys stand.

        Raises RunNotFound for a run that is neither in the server nor in the archive.
        """
        if self.is_recorded(root, run_id):
            return None
        meta = self.archive.outcomes(root, [run_id]).get(run_id) if self.archive is not None else None
        if meta is None:
            raise RunNotFound(run_id=run_id)
        return final(meta.encode())

    def past_outcomes(self, root: str, task_ids: Sequence[str]) -> list[bytes | None]:
        """Return Celery's meta of each task of a tree, also when it stands in the archive alone."""
        found = self.outcomes(task_ids)
        absent = [task_id for task_id, meta in zip(task_ids, found, strict=True) if meta is None]
        if not absent or self.archive is None:
            return found
        past = self.archive.outcomes(root, absent)
        return [
            meta if meta is not None or task_id not in past else past[task_id].encode()
            for task_id, meta in zip(task_ids, found, strict=True)
        ]

    def past_payload(self, root: str, name: str) -> bytes | None:
        """Return a large value as JSON, also one that stands in the archive alone; None when it is gone."""
        found: bytes | None = self.guarded(lambda: self.client.get(self.keys.payload(root, name)))
        if found is not None or self.archive is None:
            return found
        past = self.archive.payload(root, name)
        return past.encode() if past is not None else None

    def past_log(self, root: str, run: str) -> list[bytes]:
        """Return a journal, also one that stands in the archive alone; empty for a run without one."""
        found: list[bytes] = self.guarded(lambda: self.client.lrange(self.keys.log(root, run), 0, -1))
        if found or self.archive is None:
            return found
        return [line.encode() for line in self.archive.log(root, run, 0)]

    def recorded_load(self, queue: str, *, since_s: float) -> list[Served]:
        """Return the steps of a queue that were queued within the last so many seconds, of ended trees, in that order.

        What a worker has never begun is left out. Raises ArchiveUnavailable; empty where no archive is kept.
        """
        since = self.now_ms() - int(since_s * 1000)
        found = []
        for record in self.archive.records_since(since) if self.archive is not None else ():
            queued, begun, finished = (int(record.get(field, 0)) for field in ("c", "b", "f"))
            queued = int(record.get("sq", queued))
            if record.get("k") == "s" and record.get("q") == queue and begun and finished > begun and queued >= since:
                found.append(Served(at_s=queued / 1000, service_s=(finished - begun) / 1000))
        return sorted(found)

    def run(self, run_id: str) -> RunSummary | None:
        """Return what a listing says of an agent's run; None when it is not known (any more)."""
        root = self.root_of(run_id)
        if root is None:
            return None
        record = self.record(root, run_id)
        return summary_of(root, run_id, record) if record else None

    def runs(
        self,
        *,
        agent: str | None = None,
        status: str | None = None,
        limit: int = 50,
        roots_only: bool = False,
    ) -> list[RunSummary]:
        """Return agents' runs, newest first; those of the server alone while the archive is away."""
        found = super().runs(agent=agent, status=status, limit=limit, roots_only=roots_only)
        if self.archive is None:
            return found
        try:
            past = self.archive.runs(agent=agent, status=status, limit=limit, roots_only=roots_only)
        except ArchiveUnavailable as away:
            logger.warning("archive_unavailable: %s", away)
            return found
        known = {summary.run_id for summary in found}
        found += [summary_of(*each) for each in past if each.run_id not in known]
        return sorted(found, key=lambda summary: summary.started_at or _NEVER, reverse=True)[:limit]

    def tree_fields(self, root: str) -> dict[str, str]:
        """Return a tree's counters as they stand."""
        found = self.guarded(lambda: self.client.hgetall(self.keys.tree(root)))
        if not found and self.archive is not None:
            return self.archive.counters(root)
        return {name.decode(): value.decode() for name, value in found.items()}

    def tree(self, root: str) -> dict[str, int]:
        """Return a tree's counters: live steps, limits (``b_``), what was used (``n_``)."""
        return {name: int(value) for name, value in self.tree_fields(root).items()}

    def member_ids(self, root: str) -> list[str]:
        """Return the ids of a tree's steps and agents, in the order of their making."""
        found = super().member_ids(root)
        return found if found or self.archive is None else self.archive.member_ids(root)

    def events(self, root: str, *, after: int = 0, limit: int = EVENT_CHUNK) -> list[Event]:
        """Return the lines of a tree's history behind offset ``after``; offsets count from 1 and never move."""
        found = super().events(root, after=after, limit=limit)
        if found or self.archive is None or self.guarded(lambda: self.client.exists(self.keys.events(root))):
            return found
        return [event_of(root, place, text) for place, text in self.archive.events(root, after=after, limit=limit)]
