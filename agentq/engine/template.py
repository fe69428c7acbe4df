"""Messages of one step that differ in their ids, places and arguments only, made from the first of them.

Celery's publishing path costs a message more than the step's record does. What the first one went through decides for
all of them: headers, limits, embedded callbacks, queue, lane.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Final

from agentq.core.routes import Route
from agentq.engine.messages import HEADER
from agentq.store.refs import Offer

_SHOWN: Final = 1024
"""Characters of the arguments that people see in a message's headers, as in Celery."""

_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


class Template:
    """The message of a step with holes in it.

    Args:
        first: the offer that Celery made of the first message; its body is plain JSON.
        shows_arguments: its headers show the arguments, rather than what the caller has put there instead.
        route: says where each goes, where several pools may serve them; None: where the first one goes.
    """

    def __init__(self, first: Offer, *, shows_arguments: bool = True, route: Callable[[], Route] | None = None) -> None:
        message = json.loads(first.message)
        headers, properties = message["headers"], message["properties"]
        self._first = first
        self._fields = {each.name: getattr(first, each.name) for each in fields(first)}
        self._own_root = first.root == first.id
        self._shows_arguments = shows_arguments
        self._route = route
        self._embedded = _encode(json.loads(base64.b64decode(message["body"]))[2])
        ours = dict(headers[HEADER])
        if "ji" in ours:
            ours["ji"] = _Hole("place")
        if first.ask is not None:
            ours["ak"] = _Hole("id")
        if route is not None:
            ours["cd"] = {**(ours.get("cd") or {}), "why": _Hole("why")}
            properties = {
                **properties,
                "delivery_info": {**(properties.get("delivery_info") or {}), "routing_key": _Hole("queue")},
            }
        filled = {"id": _Hole("id"), HEADER: ours}
        if self._own_root:
            filled["root_id"] = _Hole("id")
        if headers.get("group_index") is not None:
            filled["group_index"] = _Hole("place")
        if shows_arguments:
            filled |= {"argsrepr": _Hole("args"), "kwargsrepr": _Hole("kwargs")}
        own = {"correlation_id": _Hole("id"), "delivery_tag": _Hole("id")}
        self._header = _with_holes({**first.header(), "root": _Hole("id"), "id": _Hole("id")})
        self._text = _with_holes(
            {**message, "body": _Hole("body"), "headers": {**headers, **filled}, "properties": {**properties, **own}}
        )

    def texts(self, task_id: str, args: list[Any], kwargs: dict[str, Any]) -> tuple[str, str]:
        """Return header and message of the offer of a step for which, as for the first, no run and no join waits."""
        return self._header % {"id": _encode(task_id)}, self._filled(task_id, 0, args, kwargs)

    def offer(self, task_id: str, place: int, args: list[Any], kwargs: dict[str, Any]) -> Offer:
        """Return the offer of another step like the first; the arguments are JSON-able.

        ``place``: among the members of its fan-out or its group.
        """
        first = self._first
        route = self._route() if self._route is not None else None
        other: dict[str, Any] = {
            "root": task_id if self._own_root else first.root,
            "id": task_id,
            "ask": task_id if first.ask is not None else None,
            "index": place if first.index is not None else None,
            "message": self._filled(task_id, place, args, kwargs, route),
        }
        if route is not None:
            other |= {"queue": route.queue, "most": route.most, "card": {**first.card, "why": route.why}}
        # What `replace` does, which asks each field about itself again each time.
        return Offer(**self._fields | other)

    def _filled(
        self, task_id: str, place: int, args: list[Any], kwargs: dict[str, Any], route: Route | None = None
    ) -> str:
        body = f"[{_encode(args)},{_encode(kwargs)},{self._embedded}]"
        shown = self._shows_arguments
        return self._text % {
            "id": _encode(task_id),
            "place": place,
            "body": f'"{base64.b64encode(body.encode()).decode()}"',
            "args": _encode(repr(tuple(args))[:_SHOWN]) if shown else "",
            "kwargs": _encode(repr(kwargs)[:_SHOWN]) if shown else "",
            "queue": _encode(route.queue) if route is not None else "",
            "why": _encode(route.why) if route is not None else "",
        }


class _Hole(str):
    """The name of what comes in its place."""

    __slots__ = ()


def _with_holes(value: Any) -> str:
    """Return JSON text for ``%`` with a mapping, in which holes stand without quotes."""
    if isinstance(value, _Hole):
        return f"%({value})s"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_literal(key)}:{_with_holes(inner)}" for key, inner in value.items()) + "}"
    return _literal(value)


def _literal(value: Any) -> str:
    return _encode(value).replace("%", "%%")
