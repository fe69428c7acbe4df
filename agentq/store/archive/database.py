"""Reads and writes the archive's tables through SQLAlchemy; must not know what a field of a record means."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from agentq.core.errors import ArchiveUnavailable
from agentq.store.archive.tables import EVENTS, lines, log_of, metadata, payloads, records, runs, trees

_BUSY_S: Final = 30
"""How long a writer waits for another one of the same SQLite file; each holds it for one chunk."""
_IN_LIST: Final = 500
"""Ids asked for at once: SQLite's older builds take 999 variables in a statement."""


class ArchivedRun(NamedTuple):
    """An agent's run as listings need it."""

    root: str
    run_id: str
    fields: dict[str, str]


class Archive:
    """One database. Safe to use from several threads, and in a child of the process that opened it."""

    def __init__(self, url: str, *, prefix: str) -> None:
        self._url = sa.make_url(url)
        if self._url.drivername in ("postgresql", "postgres"):
            self._url = self._url.set(drivername="postgresql+psycopg")
        self._prefix = prefix
        self._lock = threading.Lock()
        self._engine: sa.Engine | None = None
        self._has_tables = False
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"Archive({self.where!r})"

    @property
    def where(self) -> str:
        """The address, without its password."""
        return self._url.render_as_string(hide_password=True)

    def engine(self) -> sa.Engine:
        """Return SQLAlchemy's engine of this process; nothing is connected before the first use."""
        with self._lock:
            if self._engine is not None and self._pid != os.getpid():
                # The sockets are the parent's, which goes on using them.
                self._engine.dispose(close=False)
                self._engine = None
            if self._engine is None:
                self._engine, self._pid = self._make_engine(), os.getpid()
            return self._engine

    def _make_engine(self) -> sa.Engine:
        if self._file is None:
            return sa.create_engine(self._url, pool_pre_ping=True, pool_size=2)
        engine = sa.create_engine(self._url, connect_args={"timeout": _BUSY_S})

        @sa.event.listens_for(engine, "connect")
        def _prepare(connection: Any, _record: Any) -> None:
            # Readers do not wait for the writer, and what is confirmed to the server survives a loss of power.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")

        return engine

    @property
    def _file(self) -> Path | None:
        if self._url.get_backend_name() != "sqlite" or self._url.database in (None, "", ":memory:"):
            return None
        return Path(str(self._url.database))

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose(close=self._pid == os.getpid())
            self._engine = None

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.OperationalError as error:
            raise ArchiveUnavailable(url=self.where, reason=str(error.orig)) from error
        except OSError as error:
            raise ArchiveUnavailable(url=self.where, reason=str(error)) from error

    # -- writing

    def prepare(self) -> None:
        """Make the tables if they are not there; raises ArchiveUnavailable where that cannot be."""
        if self._has_tables:
            return
        with self._guarded():
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            try:
                metadata.create_all(self.engine())
            except sa.exc.DBAPIError:
                # Another worker makes them at this moment: the second look finds them, or the fault is a real one.
                metadata.create_all(self.engine())
        self._has_tables = True

    def write(self, rows: Mapping[sa.Table, Sequence[Mapping[str, Any]]]) -> None:
        """Put rows in, in place of those that stand there, all in one transaction; a repeat changes nothing."""
        with self._guarded(), self.engine().begin() as connection:
            for table, of_table in rows.items():
                connection.execute(self._upsert(table), [{"prefix": self._prefix, **row} for row in of_table])

    def _upsert(self, table: sa.Table) -> Any:
        insert = postgresql_insert if self.engine().dialect.name == "postgresql" else sqlite_insert
        statement = insert(table)
        keys = [column.name for column in table.primary_key]
        others = {column.name: statement.excluded[column.name] for column in table.columns if column.name not in keys}
        return statement.on_conflict_do_update(index_elements=keys, set_=others)

    # -- reading

    def _read(self, ask: Callable[[sa.Connection], Any], absent: Any) -> Any:
        if self._file is not None and not self._file.exists():
            return absent
        with self._guarded(), self.engine().connect() as connection:
            if not self._has_tables:
                if not sa.inspect(connection).has_table(lines.name):
                    return absent
                self._has_tables = True
            return ask(connection)

    def _rows(self, statement: sa.Select[Any]) -> list[Any]:
        found: list[Any] = self._read(lambda connection: connection.execute(statement).all(), [])
        return found

    def root_of(self, run_id: str) -> str | None:
        """Return the root run's id of an agent's run; None when it is not here."""
        found = self._rows(sa.select(runs.c.root).where(runs.c.prefix == self._prefix, runs.c.run_id == run_id))
        return str(found[0].root) if found else None

    def records(self, root: str, step_ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the records that are here, by id."""
        return {row.id: json.loads(row.fields) for row in self._records(root, step_ids, records.c.fields)}

    def outcomes(self, root: str, step_ids: Sequence[str]) -> dict[str, str]:
        """Return Celery's meta of the outcomes that are here, as JSON, by id."""
        return {row.id: row.outcome for row in self._records(root, step_ids, records.c.outcome) if row.outcome}

    def _records(self, root: str, step_ids: Sequence[str], column: Any) -> Iterator[Any]:
        for at in range(0, len(step_ids), _IN_LIST):
            named = records.c.id.in_(list(step_ids[at : at + _IN_LIST]))
            of_tree = (records.c.prefix == self._prefix, records.c.root == root, named)
            yield from self._rows(sa.select(records.c.id, column).where(*of_tree))

    def member_ids(self, root: str) -> list[str]:
        """Return the ids of a tree's steps and agents, in the order of their making."""
        of_tree = (records.c.prefix == self._prefix, records.c.root == root)
        return [row.id for row in self._rows(sa.select(records.c.id).where(*of_tree).order_by(records.c.place))]

    def records_since(self, archived_ms: int) -> Iterator[dict[str, str]]:
        """Yield the records of all trees that were archived at that time of the server's or later."""
        named = (trees.c.prefix == self._prefix, trees.c.archived_ms >= archived_ms)
        roots = [row.root for row in self._rows(sa.select(trees.c.root).where(*named))]
        for at in range(0, len(roots), _IN_LIST):
            of_trees = (records.c.prefix == self._prefix, records.c.root.in_(roots[at : at + _IN_LIST]))
            for row in self._rows(sa.select(records.c.fields).where(*of_trees)):
                yield json.loads(row.fields)

    def counters(self, root: str) -> dict[str, str]:
        """Return what a tree's counters held."""
        found = self._rows(sa.select(trees.c.counters).where(trees.c.prefix == self._prefix, trees.c.root == root))
        return dict(json.loads(found[0].counters)) if found else {}

    def payload(self, root: str, name: str) -> str | None:
        """Return a large value as JSON; None when it is not here."""
        named = (payloads.c.prefix == self._prefix, payloads.c.root == root, payloads.c.name == name)
        found = self._rows(sa.select(payloads.c.text).where(*named))
        return str(found[0].text) if found else None

    def log(self, root: str, run_id: str, start: int) -> list[str]:
        """Return a run's journal from an entry on."""
        return [row.text for row in self._lines(root, log_of(run_id), start, None)]

    def events(self, root: str, *, after: int, limit: int) -> list[tuple[int, str]]:
        """Return lines of history behind an offset, with their offsets."""
        return [(row.place, row.text) for row in self._lines(root, EVENTS, after + 1, limit)]

    def _lines(self, root: str, stream: str, start: int, limit: int | None) -> list[Any]:
        named = (lines.c.prefix == self._prefix, lines.c.root == root, lines.c.stream == stream)
        statement = sa.select(lines.c.place, lines.c.text).where(*named, lines.c.place >= start)
        return self._rows(statement.order_by(lines.c.place).limit(limit))

    def runs(
        self, *, agent: str | None = None, status: str | None = None, limit: int = 50, roots_only: bool = False
    ) -> list[ArchivedRun]:
        """Return agents' runs, newest first."""
        at = (records.c.prefix == runs.c.prefix) & (records.c.root == runs.c.root) & (records.c.id == runs.c.run_id)
        statement = sa.select(runs.c.root, runs.c.run_id, records.c.fields).join(records, at)
        statement = statement.where(runs.c.prefix == self._prefix)
        if agent is not None:
            statement = statement.where(runs.c.agent == agent)
        if status is not None:
            statement = statement.where(runs.c.status == status)
        if roots_only:
            statement = statement.where(runs.c.root == runs.c.run_id)
        statement = statement.order_by(runs.c.started_ms.desc()).limit(limit)
        return [ArchivedRun(row.root, row.run_id, json.loads(row.fields)) for row in self._rows(statement)]
