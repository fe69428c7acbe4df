"""Canvas joins: what a chord's body is sent as, and how it finds the results of its header.

The body's message holds a reference; the results are read where they lie, so that 10,000 of them never travel in
one message.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from celery import states
from celery.canvas import Signature, _chain, _chord, group, maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult
from kombu.utils.json import dumps

from agentq.core.errors import UsageError
from agentq.core.lazy import LazyList
from agentq.engine import capture
from agentq.engine.messages import HEADER
from agentq.engine.outcome import keep_trying
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


def body_offer(app: Any, body: Signature, group_id: str, *, parent_id: str | None) -> Offer:
    """Return the one message that starts a chord's body: the body's own, or the internal step that sends it.

    ``parent_id``: a task of the header, which Celery calls the body's parent.
    """
    reference = [{REFERENCE: group_id}]
    simple = not isinstance(body, group | _chain | _chord) and is_step(app, body.task)
    with capture.capturing() as caught:
        if simple:
            body.clone().apply_async(reference, parent_id=parent_id)
        else:
            root = body.options.get("root_id") or group_id
            call = [json.loads(dumps(body)), *reference]
            app.tasks[DISPATCH_TASK].apply_async(call, root_id=root, parent_id=parent_id)
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


def refers(arguments: list[Any]) -> bool:
    """Tell whether one of them is a reference that ``resolve`` replaces."""
    return any(isinstance(value, dict) and set(value) == {REFERENCE} for value in arguments)


def resolve(app: Any, store: Store, arguments: list[Any]) -> list[Any]:
    """Return ``arguments`` with a reference to a join replaced by the header's results, in the header's order.

    They are read when they are used. Raises ChordError when a part of the header failed.
    """
    return [
        joined(app, store, value[REFERENCE]) if isinstance(value, dict) and set(value) == {REFERENCE} else value
        for value in arguments
    ]


def joined(app: Any, store: Store, group_id: str) -> LazyList[Any]:
    """Return the results of a join's members, nested as the header was."""
    join = keep_trying(lambda: store.join_members(group_id, group_id))
    if join is None:
        raise ChordError(f"The join of group {group_id} is gone: its results were kept for the retention only.")
    header = _Header(app, store, json.loads(join.members))
    if join.succeeded < join.size:
        header.raise_failure()
    return LazyList(len(header.tree), header.read)


def members_of(result: GroupResult) -> str:
    """Return the JSON text of a header's task ids, nested as its groups are."""
    return json.dumps(_tree(result), separators=(",", ":"))


def _tree(result: Any) -> Any:
    return [_tree(part) for part in result.results] if isinstance(result, GroupResult) else result.id


class _Header:
    """The results of a chord's header; ``tree`` holds the task ids of its parts, nested."""

    def __init__(self, app: Any, store: Store, tree: list[Any]) -> None:
        self.tree = tree
        self._app = app
        self._store = store

    def read(self, start: int, stop: int) -> list[Any]:
        """Return the results of some parts."""
        parts = self.tree[start:stop]
        results = self._results(list(ids_of(parts)))
        return [_nested(part, results) for part in parts]

    def raise_failure(self) -> None:
        """Raise ChordError for the first task, in the header's order, that has not succeeded."""
        ids = list(ids_of(self.tree))
        for at in range(0, len(ids), _CHUNK):
            self._results(ids[at : at + _CHUNK])

    def _results(self, ids: list[str]) -> dict[str, Any]:
        found = {}
        for task_id, text in zip(ids, keep_trying(lambda: self._store.outcomes(ids)), strict=True):
            meta = json.loads(text) if text is not None else {"status": states.PENDING}
            if meta["status"] != states.SUCCESS:
                cause = _error_in(self._app, meta)
                raise ChordError(f"Dependency {task_id} raised {cause!r}") from cause
            found[task_id] = meta["result"]
        return found


def _error_in(app: Any, meta: dict[str, Any]) -> BaseException:
    """Return the failure of a header's part; what has no outcome was lost with its result's end."""
    found = app.backend.exception_to_python(meta.get("result"))
    return found if isinstance(found, BaseException) else RuntimeError(str(meta.get("status")))


def tell_body(app: Any, body: dict[str, Any], error: BaseException) -> None:
    """Call the errbacks of a body that is never sent, and mark it as failed, as Celery does for a chord's error."""
    app.backend.chord_error_from_stack(maybe_signature(dict(body), app=app), error)


def ids_of(tree: Any) -> Iterator[str]:
    """Yield the ids of the leaves."""
    if isinstance(tree, str):
        yield tree
    else:
        for part in tree:
            yield from ids_of(part)


def _nested(tree: Any, results: dict[str, Any]) -> Any:
    return results[tree] if isinstance(tree, str) else [_nested(part, results) for part in tree]
