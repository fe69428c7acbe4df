"""Turns kombu's virtual messages into offers; knows Celery's message protocol 2 and our one header.

The header ``agentq`` carries what the store records of a step. A message without it is a plain Celery task's.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from kombu.utils.json import loads as kombu_loads
from pydantic_core import from_json

from agentq.core import lanes
from agentq.engine.budgets import DEPTH, accounts_above
from agentq.store.refs import Offer, StepKind

HEADER: Final = "agentq"
DELAY: Final = "dly"
"""Field of our header: ms from the server's receipt on, where the caller has said ``countdown``."""
PAYLOAD: Final = "pl"
"""Field of our header: the name of the key that holds the arguments, which are too large for the message."""
NEEDS: Final = "nd"
"""Field of our header that ends in the record: what chose the pool, where another one may serve the step as well."""
RESOURCES: Final = "rs"
"""Field of our header, of an offer alone: the names of the resources that the step is declared with."""
HEDGE: Final = "hg"
"""Field of our header that ends in the record: when the step is slow enough for a second one beside it."""
HEDGED: Final = "hd"
"""Field of our header: the id of the step that this one is the hedge of, as hedge.lua writes it."""

ROOM: Final = "mx"
"""Field of our header, of an offer alone: how many may wait in the pool, and how many of the tenant's."""
UNSERVED: Final = "agentq_unserved"
"""First key of a plain message that was deferred, since no worker has its task: since when, as defer.lua writes it."""

HOLDER_HEADER: Final = "agentq_holder"
"""Put on at delivery by the transport: which attempt this is."""


JSON_TYPE: Final = "application/json"

_TYPED: Final = b"__type__"
"""The key by which kombu's JSON tells of dates, decimals and the like."""

_OF_THE_OFFER: Final = frozenset({PAYLOAD, NEEDS, ROOM, RESOURCES, HEDGE})

_KINDS: Final[dict[str | None, StepKind]] = {"a": "agent", "i": "internal"}


def lane_of(priority: int | None) -> int:
    """Return the lane of a Celery priority, 0 the highest; kombu's own rounding, None is 0 as in kombu."""
    return lanes.lane_of(0 if priority is None else int(priority))


def due_ms_of(headers: dict[str, Any]) -> int | None:
    """Return the message's ETA in ms since the epoch; None when it may run now."""
    eta = headers.get("eta")
    if not eta:
        return None
    when = datetime.fromisoformat(eta)
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return int(when.timestamp() * 1000)


def is_durable(message: dict[str, Any]) -> bool:
    """Tell whether a virtual message is a step's: whether it has a record."""
    return HEADER in (message.get("headers") or {})


def offer_of(queue: str, message: dict[str, Any]) -> Offer:
    """Return the offer that a virtual message makes; one without our header becomes a plain one."""
    headers = dict(message.get("headers") or {})
    properties = message.get("properties") or {}
    lane = lane_of(properties.get("priority"))
    if HEADER not in headers:
        return Offer(
            root="plain",
            id="plain",
            queue=queue,
            lane=lane,
            name="",
            message=json.dumps(message),
            kind="plain",
        )
    needs, room = headers[HEADER].get(NEEDS), headers[HEADER].get(ROOM) or {}
    resources, hedge = headers[HEADER].get(RESOURCES) or (), headers[HEADER].get(HEDGE)
    # Who sends it again has read what lies beside it: whether the new arguments do is decided anew, by ``stow``.
    ours = {name: value for name, value in headers.pop(HEADER).items() if name not in _OF_THE_OFFER}
    delay_ms = ours.pop(DELAY, None)
    headers.pop(HOLDER_HEADER, None)
    # The ETA stands in the store's timers; a worker must not hold the message in memory for it.
    due_ms = due_ms_of(headers)
    if due_ms is not None:
        headers["eta"] = None
    text = json.dumps({**message, "headers": {**headers, HEADER: ours}}, separators=(",", ":"))
    join = (ours["jr"], ours["jn"]) if "jn" in ours else None
    return Offer(
        root=headers["root_id"],
        id=headers["id"],
        queue=queue,
        lane=lane,
        name=headers["task"],
        message=text,
        kind=_KINDS.get(ours.get("k"), "step"),
        due_ms=due_ms,
        delay_ms=delay_ms,
        parent=ours.get("pr"),
        ask=ours.get("ak"),
        join=join,
        index=ours.get("ji"),
        version=ours.get("v"),
        start_digest=ours.get("sd"),
        args_digest=ours.get("ad"),
        budget=ours.get("bu"),
        undoes=bool(ours.get("ud")),
        spawned=bool(ours.get("sp")),
        card=ours.get("cd") or {},
        needs=needs,
        accounts=accounts_above(ours),
        depth=ours.get(DEPTH),
        feeds=ours.get("jo"),
        watch=ours.get("zw"),
        resources=tuple(resources),
        hedge=hedge,
        most=room.get("pool"),
        most_of_tenant=room.get("tenant"),
        # Half a canvas would never end, and a run does not fail for want of room: their parts are held back.
        refuse=headers["root_id"] == headers["id"] and headers.get("group") is None,
    )


def stow(offer: Offer, *, most_bytes: int) -> tuple[Offer, str | None]:
    """Return an offer whose large arguments stand beside its message, and these; None for one that stays as it is.

    The name is made of the step's id and the content: the same again has the same, and no other step's does.
    """
    if offer.kind == "plain" or len(offer.message) <= most_bytes:
        return offer, None
    message = json.loads(offer.message)
    headers = message["headers"]
    if not is_plain_json(message) or PAYLOAD in headers[HEADER]:
        return offer, None
    args, kwargs, embedded = json.loads(base64.b64decode(message["body"]))
    text = json.dumps([args, kwargs], separators=(",", ":"))
    name = f"{offer.id}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    body = base64.b64encode(json.dumps([[], {}, embedded], separators=(",", ":")).encode()).decode()
    small = {**message, "body": body, "headers": {**headers, HEADER: {**headers[HEADER], PAYLOAD: name}}}
    return replace(offer, message=json.dumps(small, separators=(",", ":")), payload=name), text


def unstowed(message: dict[str, Any], payload: bytes | str) -> dict[str, Any]:
    """Return a virtual message with its large arguments back in it, as whoever has no store must get it."""
    args, kwargs = json.loads(payload)
    embedded = json.loads(base64.b64decode(message["body"]))[2]
    body = base64.b64encode(json.dumps([args, kwargs, embedded], separators=(",", ":")).encode()).decode()
    headers = message["headers"]
    ours = {name: value for name, value in headers[HEADER].items() if name != PAYLOAD}
    return {**message, "body": body, "headers": {**headers, HEADER: ours}}


def read_json(text: bytes) -> Any:
    """Return what kombu makes of JSON; where none of its own types is named, without its look into each object."""
    if _TYPED not in text:
        try:
            return from_json(text)
        except ValueError:
            # Python's own reader also takes half a surrogate pair.
            pass
    return kombu_loads(text)


def is_plain_json(message: dict[str, Any]) -> bool:
    """Tell whether a virtual message's body can be put together here: another serializer or compression is Celery's."""
    encoded = message["properties"].get("body_encoding"), message.get("content-type"), message.get("content-encoding")
    return encoded == ("base64", JSON_TYPE, "utf-8") and "compression" not in message["headers"]


def body_of(message: dict[str, Any]) -> Any:
    """Return the body of a virtual message that is plain JSON; raises ValueError for one that is no call."""
    body = read_json(base64.b64decode(message["body"]))
    if not is_call(body):
        raise ValueError("its body is no call")
    return body


def is_call(body: Any) -> bool:
    """Tell whether a body has what a task is called with: arguments by place and by name, and what goes on."""
    if not isinstance(body, list | tuple) or len(body) != 3:
        return False
    args, kwargs, onward = body
    return isinstance(args, list | tuple) and isinstance(kwargs, dict) and (onward is None or isinstance(onward, dict))
