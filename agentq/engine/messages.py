"""Turns kombu's virtual messages into offers; knows Celery's message protocol 2 and our one header.

The header ``agentq`` carries what the store records of a step. A message without it is a plain Celery task's.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from agentq.core import lanes
from agentq.store.refs import Offer, StepKind

HEADER: Final = "agentq"
HOLDER_HEADER: Final = "agentq_holder"
"""Put on at delivery by the transport: which attempt this is."""


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
    ours = headers.pop(HEADER)
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
        parent=ours.get("pr"),
        ask=ours.get("ak"),
        join=join,
        index=ours.get("ji"),
        version=ours.get("v"),
        start_digest=ours.get("sd"),
        args_digest=ours.get("ad"),
        budget=ours.get("bu"),
        undoes=bool(ours.get("ud")),
        card=ours.get("cd") or {},
    )
