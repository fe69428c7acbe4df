"""What becomes of one taken message: its handler gets it, or it goes where it does no harm.

A message in custody must not be forgotten, whatever its handler does with it, and must not come back at once for
ever: the same handler would fail again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from celery.utils.log import get_logger
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual

from agentq.core.errors import Unavailable
from agentq.engine.messages import HEADER, HOLDER_HEADER, UNSERVED, offer_of, read_json
from agentq.engine.misfits import Misfit
from agentq.engine.slots import current, try_settle
from agentq.store.letters import DeferReply
from agentq.store.refs import Holder, Taken

logger = get_logger(__name__)

_NAME: Final = re.compile(rb'\{"agentq":"([^"|]*)\|([^"|]*)\|(\d+)",')
"""How a step's message begins, as ``name_of`` in common.lua has it."""

LOGGED_BYTES = 2_000
"""Of what cannot be read; the whole lies among the dead letters."""


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

    What is no message goes to the dead letters. What this process lacks the code for is put off: another worker may
    have it.
    """
    taker = channel.taker
    payload, holder = _read(channel, taken)
    if payload is None:
        return
    if holder is None and (ours := taker.adopts(payload)) is not None:
        _adopt(channel, taken, payload, ours)
        return
    misfit = taker.misfit(payload, taken.queue)
    if misfit is None:
        handler(payload)
        return
    logger.warning("put_off id=%s: %s", payload["headers"].get("id"), misfit.words)
    if _put_off(channel, taken, misfit) == "given up":
        # A cancelled run that nobody can replay: ended without its code, or it would wait for ever.
        payload["headers"][HOLDER_HEADER]["cancelled"] = True
        handler(payload)


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
        return payload_of(taken, channel.taker.id)
    except Exception as error:
        # Whatever it is that a decoder raises: an error that left the event loop would end each worker in turn.
        logger.error("unreadable queue=%s: %r\n%r", taken.queue, error, taken.message[:LOGGED_BYTES])
        condemn(channel, taken.take, f"it is no message of kombu's: {error!r}")
        return None, None


def payload_of(taken: Taken, worker: str) -> tuple[dict[str, Any], Holder | None]:
    """Return a taken message as kombu's payload, with its attempt in the headers, and that attempt.

    None instead of the attempt for a plain message. Raises whatever a decoder raises.
    """
    payload = read_json(taken.message)
    name = _NAME.match(taken.message)
    if (payload.pop(HEADER, None) is None) != (name is None):
        raise ValueError("its name is none of agentq's")
    payload.pop(UNSERVED, None)
    headers = payload.setdefault("headers", {})
    properties = payload["properties"]
    properties["delivery_tag"] = str(taken.take)
    properties.setdefault("delivery_info", {"exchange": "", "routing_key": taken.queue})
    if name is None:
        return payload, None
    root, step, generation = (part.decode() for part in name.groups())
    holder = Holder(root=root, id=step, worker=worker, take=taken.take)
    headers[HOLDER_HEADER] = {
        **holder.to_wire(),
        "generation": int(generation),
        "cancelled": taken.cancelled,
        "overdue": taken.overdue,
        "over_budget": taken.over_budget,
        "suspect": taken.suspect,
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
            condemn(channel, taken.take, f"kombu cannot make a message of it: {error!r}")
        return error
    payload, holder = _read(channel, taken)
    if payload is not None and holder is not None:
        _put_off(channel, taken, Misfit("task", f"not accepted: {error!r}"[:500]))
    elif payload is not None and not accepted:
        condemn(channel, taken.take, f"kombu cannot make a message of it: {error!r}")
    elif payload is not None:
        # A plain message that makes Celery's consumer fail stays in this worker's custody until the worker ends: at
        # once back in its lane, it would come again and again.
        taker.kept.add(taken.take)
    return None


def condemn(channel: Any, take: int, words: str) -> None:
    """Put a message that nobody can read among the dead letters, whole."""
    taker = channel.taker
    try:
        channel.store.condemn(taker.id, take, why="unreadable", words=words[:500])
    except Unavailable as error:
        taker.abandon([take])
        raise ConnectionError(str(error)) from error


def _put_off(channel: Any, taken: Taken, misfit: Misfit) -> DeferReply:
    taker = channel.taker
    try:
        reply: DeferReply = channel.store.defer(
            taker.id,
            taken.take,
            lacks=misfit.lacks,
            words=misfit.words,
            pause_ms=misfit.pause_ms,
            longest_ms=misfit.longest_ms,
            nowhere=misfit.nowhere,
        )
    except Unavailable as error:
        taker.abandon([taken.take])
        raise ConnectionError(str(error)) from error
    return reply
