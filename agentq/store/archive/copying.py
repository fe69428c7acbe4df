"""Copies ended trees from the server into the archive, chunk by chunk, and has their keys end."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from agentq.core.errors import Unavailable
from agentq.store.archive.database import Archive
from agentq.store.archive.tables import EVENTS, lines, log_of, payloads, records, runs, trees
from agentq.store.past import MESSAGE, EndedTree
from agentq.store.reading import Reads, status_of

if TYPE_CHECKING:
    from agentq.store import Store

logger = logging.getLogger(__name__)

_CHUNK: Final = 500
"""Members and lines read at once: of usual size, half a megabyte."""
_ROWS_BYTES: Final = 4_000_000
"""Rows are written when they come to so much, so that a large tree needs little memory."""


def archive_trees(store: Store, archive: Archive, trees: Iterable[EndedTree]) -> int:
    """The trees stand in the archive, and the keys of those that have not come back to life get their end.

    Returns how many were copied. One that cannot be copied is passed over and keeps its keys; raises Unavailable when
    server or archive is away, and then none of them is lost. A repeat writes the same again.
    """
    archive.prepare()
    rows = _Rows(archive)
    copied: list[EndedTree] = []
    for tree in trees:
        try:
            _copy_tree(store, rows, tree.root)
        except Unavailable:
            raise
        except Exception:
            logger.exception("archive_failed run=%s", tree.root)
        else:
            copied.append(tree)
    # Many small trees in one transaction: each costs the disk a write that is waited for.
    rows.write()
    for tree in copied:
        store.confirm_archived(tree)
    return len(copied)


def _copy_tree(store: Store, rows: _Rows, root: str) -> None:
    counters = store.tree_fields(root)
    place = 0
    for members in _members(store, root):
        steps = [(kind, member) for kind, member in members if kind in ("s", "a")]
        ids = [member for _, member in steps]
        _copy_payloads(store, rows, root, [name for kind, name in members if kind == "p"])
        of_chunk = zip(steps, Reads.records(store, root, ids), store.outcomes(ids), strict=True)
        for (kind, member), fields, outcome in of_chunk:
            if not fields:
                continue
            text = outcome.decode(errors="replace") if outcome is not None else None
            if kind == "a":
                fields[MESSAGE] = store.quote(root, member)
            written = _json(fields)
            row = {"root": root, "id": member, "place": place, "fields": written, "outcome": text}
            rows.add(records, row, size=len(written) + len(text or ""))
            place += 1
            if kind == "a":
                rows.add(runs, _run(root, member, fields), size=200)
                _copy_lines(store, rows, root, log_of(member), store.keys.log(root, member), first=0)
    _copy_lines(store, rows, root, EVENTS, store.keys.events(root), first=int(counters.get("cut", 0)) + 1)
    rows.add(trees, {"root": root, "counters": _json(counters), "archived_ms": store.now_ms()}, size=200)


class _Rows:
    """Rows on their way into the archive."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._of: dict[sa.Table, list[dict[str, Any]]] = {}
        self._size = 0

    def add(self, table: sa.Table, row: dict[str, Any], *, size: int) -> None:
        self._of.setdefault(table, []).append(row)
        self._size += size
        if self._size > _ROWS_BYTES:
            self.write()

    def write(self) -> None:
        self._archive.write(self._of)
        self._of, self._size = {}, 0


def _copy_payloads(store: Store, rows: _Rows, root: str, names: list[str]) -> None:
    # One by one: each may be as large as a result may be.
    for name in names:
        value = store.payload(root, name)
        # A step's arguments are gone with the step.
        if value is not None:
            rows.add(payloads, {"root": root, "name": name, "text": value.decode(errors="replace")}, size=len(value))


def _copy_lines(store: Store, rows: _Rows, root: str, stream: str, key: str, *, first: int) -> None:
    place = first
    for texts in _chunks(store, key):
        for text in texts:
            rows.add(lines, {"root": root, "stream": stream, "place": place, "text": text}, size=len(text))
            place += 1


def _members(store: Store, root: str) -> Iterator[list[tuple[str, str]]]:
    # The root's own record is a member without being listed.
    yield [(Reads.record(store, root, root).get("k", "s"), root)]
    for names in _chunks(store, store.keys.members(root)):
        yield [(kind, member) for kind, _, member in (name.partition("|") for name in names)]


def _chunks(store: Store, key: str) -> Iterator[list[str]]:
    start = 0
    while found := store.guarded(lambda start=start: store.client.lrange(key, start, start + _CHUNK - 1)):  # type: ignore[misc]
        yield [line.decode(errors="replace") for line in found]
        start += len(found)


def _run(root: str, run_id: str, fields: dict[str, str]) -> dict[str, Any]:
    card = json.loads(fields["cd"]) if "cd" in fields else {}
    return {
        "root": root,
        "run_id": run_id,
        "agent": fields.get("nm", ""),
        "status": status_of(fields),
        "tenant": card.get("tenant"),
        "start_key": card.get("key"),
        "started_ms": int(fields.get("c", 0)),
        "finished_ms": int(fields["f"]) if "f" in fields else None,
    }


def _json(fields: dict[str, str]) -> str:
    return json.dumps(fields, separators=(",", ":"))
