"""Canvas joins: what a chord's body is sent as, and how it finds the results of its header.

The body's message holds a reference; the results are read where they lie, so that 10,000 of them never travel in
one message.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from celery import states
from celery.canvas import Signature, _chain, _chord, group
from celery.exceptions import ChordError
from celery.result import GroupResult

from agentq.core.errors import UsageError
from agentq.engine import capture
from agentq.engine.messages import HEADER
from agentq.store import Store
from agentq.store.refs import Offer

REFERENCE: Final = "agentq:join"
DISPATCH_TASK: Final = "agentq.dispatch"
"""The internal step that sends a body which is more than one message."""

_CHUNK: Final = 500


def leaves(result: Any) -> Iterator[Any]:
    """Yield the single results below a (nested) group result, in order."""
    if isinstance(result, GroupResult):
        for part in result.results:
            yield from leaves(part)
    else:
        yield result


def body_offer(app: Any, body: Signature, group_id: str) -> Offer:
    """Return the one message that starts a chord's body: the body's own, or the internal step that sends it."""
    reference = [{REFERENCE: group_id}]
    simple = not isinstance(body, group | _chain | _chord) and is_step(app, body.task)
    with capture.capturing() as caught:
        if simple:
            body.clone().apply_async(reference)
        else:
            root = body.options.get("root_id") or group_id
            app.tasks[DISPATCH_TASK].apply_async([json.loads(json.dumps(body)), *reference], root_id=root)
    if len(caught.offers) != 1:
        raise UsageError(f"The body {body!r} of chord {group_id} makes {len(caught.offers)} messages, not one.")
    return caught.offers[0]


def ends_of(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the signatures in a body whose ids others may wait for: tasks of chains and groups, bodies of chords.

    What stands behind a chord in a chain is among the options of its body.
    """
    inner = body.get("kwargs") or {}
    if body.get("subtask_type") in ("chain", "group"):
        for part in inner["tasks"]:
            yield from ends_of(part)
    elif body.get("subtask_type") == "chord":
        yield from ends_of(inner["body"])
    else:
        yield body
    for part in (body.get("options") or {}).get("chain") or []:
        yield from ends_of(part)


def is_step(app: Any, name: str) -> bool:
    """Tell whether a task name is a step's or an agent's of this app."""
    task = app.tasks.get(name)
    return task is not None and hasattr(task, HEADER)


def resolve(app: Any, store: Store, arguments: list[Any]) -> list[Any]:
    """Return ``arguments`` with a reference to a join replaced by the header's results, in the header's order.

    Raises ChordError when a part of the header failed.
    """
    if not arguments or not any(isinstance(value, dict) and set(value) == {REFERENCE} for value in arguments):
        return arguments
    return [
        joined(app, store, value[REFERENCE]) if isinstance(value, dict) and set(value) == {REFERENCE} else value
        for value in arguments
    ]


def joined(app: Any, store: Store, group_id: str) -> list[Any]:
    """Return the results of a join's members, nested as the header was."""
    text = store.join_members(group_id, group_id)
    if text is None:
        raise ChordError(f"The join of group {group_id} is gone: its results were kept for the retention only.")
    tree = json.loads(text)
    ids = list(_ids(tree))
    metas: dict[str, Any] = {}
    for at in range(0, len(ids), _CHUNK):
        chunk = ids[at : at + _CHUNK]
        for task_id, meta in zip(chunk, store.outcomes(chunk), strict=True):
            metas[task_id] = json.loads(meta) if meta is not None else {"status": states.PENDING, "result": None}
    for task_id in ids:
        meta = metas[task_id]
        if meta["status"] != states.SUCCESS:
            raise ChordError(f"Dependency {task_id} raised {_described(meta)}")
    nested: list[Any] = _nested(tree, metas)
    return nested


def _described(meta: dict[str, Any]) -> str:
    result = meta.get("result")
    if isinstance(result, dict) and "exc_type" in result:
        return f"{result['exc_type']}({result.get('exc_message')!r})"
    return str(meta.get("status"))


def _ids(tree: Any) -> Iterator[str]:
    """Yield the ids of the leaves of ``as_tuple``: ``((id, parent), None)`` or ``((id, parent), [parts])``."""
    (identity, _), parts = tree[0], tree[1]
    if parts is None:
        yield identity
    else:
        for part in parts:
            yield from _ids(part)


def _nested(tree: Any, metas: dict[str, Any]) -> Any:
    (identity, _), parts = tree[0], tree[1]
    if parts is None:
        return metas[identity]["result"]
    return [_nested(part, metas) for part in parts]
