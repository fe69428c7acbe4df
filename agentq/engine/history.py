"""What happened in a run, step by step, from its log and its records."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from agentq.core.ids import step_id as id_under
from agentq.core.lanes import priority_of
from agentq.core.models import Saved, StepSummary, Usage
from agentq.store import Store
from agentq.store.reading import moment, status_of

_CHUNK = 1000


def steps_of(store: Store, root: str, run_id: str) -> list[StepSummary]:
    """Return the steps of an agent's run, or of a canvas run, in the order in which they were asked for."""
    entries = [json.loads(line) for line in store.past_log(root, run_id)]
    if not entries:
        ids = store.member_ids(root)
        return _recorded(store, root, [(step_id, None) for step_id in ids])
    outcomes = {entry["id"]: entry for entry in entries if entry["k"] == "result"}
    found: list[StepSummary] = []
    waiting: list[tuple[str, dict[str, Any] | None]] = []
    asked = set()
    for entry in entries:
        # A fork's ask stands there again once it was sent.
        if entry["k"] != "ask" or entry["id"] in asked:
            continue
        asked.add(entry["id"])
        kind = entry["kind"]
        if kind == "local":
            found.extend(_recorded(store, root, waiting))
            waiting = []
            found.append(_local(entry, outcomes.get(entry["id"])))
        elif kind == "map":
            waiting.extend((id_under(entry["id"], str(index)), entry) for index in range(int(entry["n"])))
        elif kind in ("call", "spawn", "undo", "canvas"):
            waiting.append((entry["id"], entry))
    found.extend(_recorded(store, root, waiting))
    return found


def _recorded(store: Store, root: str, asked: list[tuple[str, dict[str, Any] | None]]) -> list[StepSummary]:
    found = []
    for at in range(0, len(asked), _CHUNK):
        chunk = asked[at : at + _CHUNK]
        records = store.records(root, [name for name, _ in chunk])
        hedges = _hedges(store, root, records)
        for (step_id, ask), record in zip(chunk, records, strict=True):
            if record:
                found.append(_summary(step_id, ask, record))
            if ask is not None and step_id in hedges:
                hedge_id, hedge = hedges[step_id]
                found.append(_summary(hedge_id, None, hedge))
    return found


def _hedges(store: Store, root: str, records: list[dict[str, str]]) -> dict[str, tuple[str, dict[str, str]]]:
    """Return the hedges of these steps, id and record, by the step's id; no ask names them."""
    ids = [record["tw"] for record in records if "tw" in record and "hd" not in record]
    found = zip(ids, store.records(root, ids), strict=True) if ids else ()
    return {record["hd"]: (hedge_id, record) for hedge_id, record in found if record}


def _summary(step_id: str, ask: dict[str, Any] | None, record: dict[str, str]) -> StepSummary:
    card = json.loads(record["cd"]) if "cd" in record else {}
    return StepSummary(
        step_id=step_id,
        name=record.get("nm") or (ask or {}).get("name", ""),
        status=status_of(record),
        attempts=int(record.get("a", 0)),
        queue=record.get("q"),
        worker=record.get("wl"),
        queued_at=moment(record.get("c")),
        started_at=moment(record.get("b")),
        finished_at=moment(record.get("f")),
        error=record.get("e"),
        priority=priority_of(int(record["l"])) if "l" in record else None,
        why=f"hedge of {record['hd']}" if "hd" in record else card.get("why"),
    )


def _local(ask: dict[str, Any], outcome: dict[str, Any] | None) -> StepSummary:
    finished = moment(str(outcome["t"])) if outcome is not None else None
    failed = outcome is not None and outcome["s"] != "ok"
    return StepSummary(
        step_id=ask["id"],
        name=ask["name"],
        status="running" if outcome is None else "failed" if failed else "succeeded",
        attempts=1,
        queue=None,
        worker=None,
        queued_at=None,
        started_at=None,
        finished_at=finished,
        error=str(outcome["v"]) if outcome is not None and failed else None,
        why="in place",
    )


def usage_of(store: Store, root: str) -> Usage:
    """Return what a tree has used so far."""
    counters = store.tree(root)
    return Usage(
        tokens_in=counters.get("n_tokens_in", 0),
        tokens_out=counters.get("n_tokens_out", 0),
        usd=Decimal(counters.get("n_usd_micro", 0)) / 1_000_000,
        model=None,
    )


def saved_of(store: Store, root: str) -> Saved:
    """Return what kept answers have saved a tree so far."""
    counters = store.tree(root)
    return Saved(
        answers=counters.get("n_cached", 0),
        tokens=counters.get("n_saved_tokens", 0),
        usd=Decimal(counters.get("n_saved_usd_micro", 0)) / 1_000_000,
    )
