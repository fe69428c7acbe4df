"""What becomes of one taken message: its handler gets it, or it goes where it does no harm.

A message in custody must not be forgotten, whatever its handler does with it, and must not come back at once for
ever: the same handler would fail again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from agentq.core.errors import StaleHolder, Unavailable
from agentq.engine.messages import HEADER, HOLDER_HEADER, lane_of, offer_of
from agentq.engine.slots import current, try_settle
from agentq.store.refs import Holder, Offer, Taken

PUT_OFF_MS = 5_000
"""How long a step waits again that this worker cannot run: long enough for a rolling deploy to cost nothing,
short enough that it starts soon after a worker that can has come."""


def deliver(channel: Any, taken: Taken) -> Exception | None:
    """Give a taken message to its consumer; return what the caller has to raise once all are delivered.

    The rest of a reply is in custody too: it must reach its handlers whatever became of this message.
    """
    channel._queue_cycle.rotate(taken.queue)
    handler = channel.connection._callbacks.get(taken.queue)
    try:
        if handler is None:
            # The consumer was cancelled while the reply was under way.
            try_settle(channel.taker, taken.take, "requeue")
        else:
            hand_over(channel, taken, handler)
    except Exception as error:
        kombu_redis.crit("agentq: a message of queue %r failed: %r", taken.queue, error, exc_info=True)
        return _failed(channel, taken, error)
    return None


def hand_over(channel: Any, taken: Taken, handler: Callable[[Any], Any]) -> None:
    """Call the handler with a taken message, with its attempt in the headers.

    What is no message is dropped, with its text in the log. A step whose task this process lacks is put off:
    another worker may have it.
    """
    taker = channel.taker
    payload, holder = _read(channel, taken)
    if payload is None:
        try_settle(taker, taken.take, "drop")
    elif holder is None and (ours := taker.adopts(payload)) is not None:
        _adopt(channel, taken, payload, ours)
    elif holder is None or taker.serves(payload["headers"].get("task", "")):
        handler(payload)
    else:
        name = payload["headers"].get("task", "")
        kombu_redis.warning("agentq: no task %r here, step %s waits for a worker with it", name, holder.id)
        _put_off(channel, taken, holder, payload, why=f"no worker here serves {name!r}")


def _adopt(channel: Any, taken: Taken, payload: dict[str, Any], ours: dict[str, Any]) -> None:
    """Record a step that a producer without agentq has sent, and queue it again as one of ours.

    Recorded first: a worker that dies between the two leaves a message that is found recorded, and dropped.
    """
    message = {**payload, "headers": {**payload["headers"], HEADER: ours}}
    try:
        channel.store.offer([offer_of(taken.queue, message)])
    except Unavailable as error:
        channel.taker.abandon([taken.take])
        raise ConnectionError(str(error)) from error
    try_settle(channel.taker, taken.take, "drop")


def _read(channel: Any, taken: Taken) -> tuple[dict[str, Any] | None, Holder | None]:
    try:
        payload = loads(bytes_to_str(taken.message))
        named = payload.pop(HEADER, None)
        headers = payload.setdefault("headers", {})
        properties = payload["properties"]
        properties["delivery_tag"] = str(taken.take)
        properties.setdefault("delivery_info", {"exchange": "", "routing_key": taken.queue})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        text = taken.message
        kombu_redis.crit("agentq: dropped what is no message from queue %r: %r\n%r", taken.queue, error, text)
        return None, None
    if named is None:
        return payload, None
    root, step, generation = named.split("|")
    holder = Holder(root=root, id=step, worker=channel.taker.id, take=taken.take)
    headers[HOLDER_HEADER] = {
        **holder.to_wire(),
        "generation": int(generation),
        "cancelled": taken.cancelled,
        "overdue": taken.overdue,
    }
    return payload, holder


def _failed(channel: Any, taken: Taken, error: Exception) -> Exception | None:
    taker, tag = channel.taker, str(taken.take)
    in_worker = taker is current()
    accepted = tag in channel.qos._delivered
    virtual.QoS.ack(channel.qos, tag)
    # kombu counts KeyError among the connection errors, but it is rather a message that lacks something.
    lost = isinstance(error, channel.connection_errors) and not isinstance(error, KeyError)
    if lost or not in_worker:
        if accepted or lost:
            taker.abandon([taken.take])
        else:
            # kombu itself could not make a message of it, so no consumer ever will.
            try_settle(taker, taken.take, "drop")
        return error
    payload, holder = _read(channel, taken)
    if payload is not None and holder is not None:
        _put_off(channel, taken, holder, payload, why=f"not accepted: {error!r}"[:500])
    elif not accepted:
        try_settle(taker, taken.take, "drop")
    else:
        # A plain message that makes Celery's consumer fail stays in this worker's custody until the worker ends: at
        # once back in its lane, it would come again and again.
        taker.kept.add(taken.take)
    return None


def _put_off(channel: Any, taken: Taken, holder: Holder, payload: dict[str, Any], *, why: str) -> None:
    store = channel.store

    def commit() -> None:
        again = Offer(
            root=holder.root,
            id=holder.id,
            queue=taken.queue,
            lane=lane_of(payload["properties"].get("priority")),
            name=payload["headers"].get("task", ""),
            message="{" + bytes_to_str(taken.message).split(",", 1)[1],
            due_ms=store.now_ms() + PUT_OFF_MS,
        )
        store.commit(holder, mode="again", status="RETRY", offers=[again], error=why)

    try:
        commit()
    except StaleHolder as stale:
        kombu_redis.warning("agentq: not put off: %s", stale)
    except Unavailable as error:
        channel.taker.abandon([taken.take])
        raise ConnectionError(str(error)) from error
