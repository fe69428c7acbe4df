"""The archive's tables. A row's key begins with the key prefix, so that applications may share a database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

_ID = String(200)
_PREFIX = String(40)

trees = Table(
    "agentq_trees",
    metadata,
    Column("prefix", _PREFIX, primary_key=True),
    Column("root", _ID, primary_key=True),
    Column("counters", Text, nullable=False),
    Column("archived_ms", BigInteger, nullable=False),
)
"""A row per tree: what was used, as JSON."""

runs = Table(
    "agentq_runs",
    metadata,
    Column("prefix", _PREFIX, primary_key=True),
    Column("run_id", _ID, primary_key=True),
    Column("root", _ID, nullable=False),
    Column("agent", Text, nullable=False),
    Column("status", String(20), nullable=False),
    Column("tenant", Text),
    Column("start_key", Text),
    Column("started_ms", BigInteger, nullable=False),
    Column("finished_ms", BigInteger),
    Index("agentq_runs_by_start", "prefix", "started_ms"),
)
"""A row per agent's run, for listings."""

records = Table(
    "agentq_records",
    metadata,
    Column("prefix", _PREFIX, primary_key=True),
    Column("root", _ID, primary_key=True),
    Column("id", _ID, primary_key=True),
    Column("place", Integer, nullable=False),
    Column("fields", Text, nullable=False),
    Column("outcome", Text),
)
"""A row per step, in the order of their making: the record's fields as JSON, and Celery's meta of the outcome."""

lines = Table(
    "agentq_lines",
    metadata,
    Column("prefix", _PREFIX, primary_key=True),
    Column("root", _ID, primary_key=True),
    Column("stream", String(210), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("text", Text, nullable=False),
)
"""A row per line of a journal (stream `log:` and the run's id, from 0) or of the history (`events`, from 1)."""

payloads = Table(
    "agentq_payloads",
    metadata,
    Column("prefix", _PREFIX, primary_key=True),
    Column("root", _ID, primary_key=True),
    Column("name", String(250), primary_key=True),
    Column("text", Text, nullable=False),
)
"""A row per large value beside a record: arguments of an agent, the result of a local call; JSON."""

EVENTS = "events"


def log_of(run_id: str) -> str:
    """Return the name of a run's journal among the streams."""
    return f"log:{run_id}"
