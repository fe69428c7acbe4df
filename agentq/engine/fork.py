"""Makes a fork of a run: its message, the journal that it begins with, and the checkpoints that this names.

A fork is a new run with ids of its own, so that no checkpoint is ever written twice. Where it begins is
``core.forking``'s; how it is laid down is the store's.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentq.core.codec import loads
from agentq.core.errors import RunNotFound, UsageError
from agentq.core.forking import Prefix, ask_of, find_failed, journal_of, prefix_before, undone_by
from agentq.core.guards import Budget
from agentq.core.ids import new_run_id, retry_id, step_id
from agentq.core.journal import Ask, Entry, Result, Signal, decode, encode
from agentq.engine.budgets import ACCOUNTS, DEPTH, limited
from agentq.engine.messages import HEADER, PAYLOAD, offer_of, unstowed
from agentq.store import Store
from agentq.store.forks import CopiedJoin, CopiedStep, Fork

_CHUNK: Final = 500
_QUEUED_S: Final = 5.0
"""How long to wait for the message of a run that stands in a lane: its worker takes it in a moment, if it has one."""

_OF_THE_MESSAGE: Final[tuple[str, ...]] = ("pr", "ak", "jr", "jn", "ji", "ud", "sp", "n", "sd", "ad")
"""Fields of our header that tie a message to its parent, its place in a join or its start key."""
_OF_THE_RECORD: Final[tuple[str, ...]] = ("s", "o", "nm", "c", "b", "f", "a", "q", "l", "wl", "e", "cd")
"""What a copied record keeps: what people see of the step."""


@dataclass(frozen=True, slots=True)
class _Origin:
    """The run that is forked, as it stood at one moment."""

    store: Store
    root: str
    id: str
    record: dict[str, str]
    entries: list[Entry]
    message: dict[str, Any]

    @classmethod
    def read(cls, store: Store, root: str, run_id: str) -> _Origin:
        """Read it; raises RunNotFound, or UsageError where there is nothing to begin with."""
        while True:
            lines = store.past_log(root, run_id)
            record = store.record(root, run_id)
            if not record:
                raise RunNotFound(run_id=run_id)
            if not lines:
                raise UsageError(f"Run {run_id} has no journal to begin with: only an agent's run can be forked.")
            message = _await_message(store, root, run_id)
            # A run that goes on as new in between has another message, and another journal.
            if store.past_log(root, run_id)[:1] == lines[:1]:
                return cls(store, root, run_id, record, [decode(line) for line in lines], message)


def fork_run(
    store: Store,
    root: str,
    run_id: str,
    *,
    step: str | None,
    budget: Budget | None = None,
    version: str | None = None,
) -> str:
    """Start a fork of a run and return its id; that of the earlier one for a run that was retried before.

    Args:
        step: id of the step that is done again, with all that the agent did after it had seen its outcome; None to
            retry a run that has failed or was cancelled, from where it did: once, however often this is called.
        budget: in place of the run's.
        version: of the agent that goes on; None for the run's own.

    Raises:
        UsageError: the run does not stand so that this can be done, or has no such step.
        RunNotFound: it is not known.
    """
    retry = step is None
    new = retry_id(run_id) if retry else new_run_id()
    if retry and store.record(new, new):
        # Also when it stands in the archive alone.
        return new
    origin = _Origin.read(store, root, run_id)
    prefix, at = _retried(origin) if step is None else _forked(origin, step)
    counters = store.tree(root)
    limits = budget.limits() if budget is not None else _counted(counters, "b_")
    text = _forked_message(origin.message, new, limits=limits, version=version, keyed=retry)
    copies = _Copies(origin, new, prefix, whole=step)
    used = {f"n_{name}": amount for name, amount in _counted(counters, "n_").items() if name != "steps"}
    return store.start_fork(
        Fork(
            offer=offer_of(origin.record["q"], text),
            origin=run_id,
            at=at,
            lines=[encode(entry) for entry in journal_of(prefix, origin=run_id, new=new, now_ms=store.now_ms())],
            steps=copies.steps,
            joins=copies.joins,
            used={**used, "n_steps": len(copies.steps)},
            signals=[entry.id for entry in (*prefix.inputs, *prefix.carried) if isinstance(entry, Signal)],
            payloads=_local_results(store, root, new, prefix),
            origin_root=root,
            retries=retry,
            key_digest=origin.record.get("sd") if retry else None,
        )
    )


def _forked(origin: _Origin, step: str) -> tuple[Prefix, str]:
    """Return what the fork begins with, and the ask that is done again."""
    ask = ask_of([entry for entry in origin.entries if isinstance(entry, Ask)], step)
    if ask is None or ask.kind == "emit" or ask.undoes is not None:
        raise UsageError(
            f"Run {origin.id} has no step {step} that it could be forked from. "
            f'"agentq runs show {origin.id}" shows its own steps; a step of a sub-agent is of the sub-agent\'s run.'
        )
    return prefix_before(origin.entries, frozenset({ask.id})), ask.id


def _retried(origin: _Origin) -> tuple[Prefix, str | None]:
    """Return what the retry begins with, and the ask that had failed; None where the agent itself had."""
    outcome = origin.record.get("o") if origin.record.get("s") == "d" else None
    if outcome in (None, "SUCCESS"):
        state = "has not ended" if outcome is None else "has succeeded"
        raise UsageError(f"Run {origin.id} {state}: only a run that has failed or was cancelled is retried; fork it.")
    cancelled = outcome == "REVOKED"
    failed = None if cancelled else find_failed(origin.entries, origin.id, _error_of(origin))
    redo = undone_by(origin.entries) | ({failed} if failed is not None else frozenset())
    return prefix_before(origin.entries, redo, uncancel=cancelled), failed


def _error_of(origin: _Origin) -> Any:
    meta = origin.store.past_outcomes(origin.root, [origin.id])[0]
    result = loads(meta).get("result") if meta is not None else None
    return result.get("agentq") if isinstance(result, dict) else None


def _await_message(store: Store, root: str, run_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + _QUEUED_S
    while not (text := store.quote(root, run_id)):
        if time.monotonic() >= deadline or store.record(root, run_id).get("s") == "d":
            raise UsageError(
                f"The message of run {run_id} cannot be read: the run waits in its queue (fork it when a worker has "
                "taken it) or stands among the dead letters, or was dropped there."
            )
        time.sleep(0.05)
    message = dict(json.loads(text))
    name = message["headers"][HEADER].get(PAYLOAD)
    if name is None:
        return message
    arguments = store.past_payload(root, name)
    if arguments is None:
        raise UsageError(f"The arguments of run {run_id} are gone: it cannot be forked.")
    return unstowed(message, arguments)


def _local_results(store: Store, root: str, new: str, prefix: Prefix) -> list[tuple[str, str]]:
    """Return the large results of local calls by their new names."""
    settled, found = prefix.settled(), []
    for ask in prefix.asks:
        result = settled.get(ask.id)
        if ask.kind == "local" and isinstance(result, Result) and result.large:
            value = store.past_payload(root, ask.id)
            if value is not None:
                found.append((step_id(new, ask.key), value.decode()))
    return found


def _counted(counters: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): amount for name, amount in counters.items() if name.startswith(prefix)}


def _forked_message(
    message: dict[str, Any], new: str, *, limits: dict[str, int], version: str | None, keyed: bool
) -> dict[str, Any]:
    """Return the message of the new run: the other one's arguments, alone in its tree, with nothing behind it."""
    headers = dict(message["headers"])
    ours = {name: value for name, value in headers[HEADER].items() if name not in _OF_THE_MESSAGE}
    card = {name: value for name, value in ours.get("cd", {}).items() if keyed or name != "key"}
    # What stands above a sub-agent that is forked alone is not its own any more; what is summed up by the day is.
    daily = [account for account in ours.get(ACCOUNTS) or [] if account["k"].startswith("=")]
    own = [account for account in ours.get(ACCOUNTS) or [] if account["k"] == "self"]
    asked = {"x": own[0]["x"]} if own and "x" in own[0] else {}
    accounts = daily + [{**account, **asked} for account in limited(limits)]
    ours = {**ours, "cd": card, "bu": limits, ACCOUNTS: accounts, DEPTH: 0}
    if version is not None:
        ours["v"] = version
    headers.update(id=new, root_id=new, parent_id=None, group=None, group_index=None, eta=None, expires=None, retries=0)
    properties = {**message["properties"], "correlation_id": new, "delivery_tag": new}
    return {
        **message,
        "body": _alone(message),
        "headers": {**headers, HEADER: {name: value for name, value in ours.items() if value}},
        "properties": properties,
    }


def _alone(message: dict[str, Any]) -> Any:
    """Return the body without callbacks and without a chain or chord that goes on behind it."""
    if message["properties"].get("body_encoding") != "base64" or message.get("content-type") != "application/json":
        return message["body"]
    args, kwargs, _ = json.loads(base64.b64decode(message["body"]))
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return base64.b64encode(json.dumps([args, kwargs, nothing]).encode()).decode()


class _Copies:
    """The checkpoints of a prefix under the new run's ids."""

    def __init__(self, origin: _Origin, new: str, prefix: Prefix, *, whole: str | None) -> None:
        """Read them; the fan-out or member ``whole`` is done again as a whole, of others only what has failed."""
        self.steps: list[CopiedStep] = []
        self.joins: list[CopiedJoin] = []
        self._store, self._root, self._new = origin.store, origin.root, new
        settled = prefix.settled()
        names: list[tuple[str, str]] = []
        for ask in prefix.asks:
            renamed = step_id(new, ask.key)
            if ask.kind == "map":
                members = [(step_id(ask.id, str(at)), step_id(renamed, str(at))) for at in range(ask.members or 0)]
                if ask.id in settled:
                    names += members
                elif ask.id in prefix.again and ask.id != whole:
                    self._keep_members(renamed, members, but=whole)
            elif ask.id in settled and ask.kind in ("call", "canvas", "spawn"):
                names.append((ask.id, renamed))
        for at in range(0, len(names), _CHUNK):
            self.steps += [copy for _, copy in self._read(names[at : at + _CHUNK])]

    def _keep_members(self, join_id: str, members: list[tuple[str, str]], *, but: str | None) -> None:
        """Keep what has succeeded of a fan-out that is done again."""
        arrived: list[int] = []
        for at in range(0, len(members), _CHUNK):
            chunk = members[at : at + _CHUNK]
            for index, copy in self._read(chunk):
                if copy.fields.get("o") == "SUCCESS" and copy.meta is not None and chunk[index][0] != but:
                    arrived.append(at + index)
                    self.steps.append(copy)
        if arrived:
            self.joins.append(CopiedJoin(join_id, len(members), tuple(arrived)))

    def _read(self, names: list[tuple[str, str]]) -> list[tuple[int, CopiedStep]]:
        olds = [old for old, _ in names]
        records = self._store.records(self._root, olds)
        outcomes = self._store.past_outcomes(self._root, olds)
        found = []
        for at, ((_, new_id), record, meta) in enumerate(zip(names, records, outcomes, strict=True)):
            fields = {name: record[name] for name in _OF_THE_RECORD if name in record}
            if "aw" in record and meta is not None:
                # Its hedge has answered for it; it may still be on its way to its own end.
                fields.update(s="d", o=json.loads(meta)["status"])
            if fields.get("s") == "d":
                fields.update(k="s", g="1", pr=self._new)
            else:
                # Refused before it had a record: its outcome is all there is.
                fields = {}
            if fields or meta is not None:
                found.append((at, CopiedStep(new_id, fields, _renamed(meta, new_id))))
        return found


def _renamed(meta: bytes | None, new_id: str) -> str | None:
    if meta is None:
        return None
    return json.dumps({**json.loads(meta), "task_id": new_id}, separators=(",", ":"))
