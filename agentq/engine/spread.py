"""Large fan-outs: what is more than a chunk of messages goes out from internal steps, a chunk each.

A script is one instant in which the server does nothing else, and a message is held by whoever sends it: 100,000
members at once would stop every lease. An internal step's commit sends its chunk, so a chunk is sent once however
often its step runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TypeVar

from agentq.core.ids import step_id
from agentq.core.routes import Route
from agentq.engine import capture
from agentq.engine.messages import HEADER
from agentq.engine.template import Template
from agentq.store.refs import Offer

if TYPE_CHECKING:
    from agentq.engine.ending import Ending

SPREAD_TASK: Final = "agentq.spread"
"""The internal step that makes and sends members of a fan-out."""
FORWARD_TASK: Final = "agentq.forward"
"""The internal step that sends messages which were made before."""

CHUNK: Final = 500
"""Messages that one script may send: some 10 ms of the server's time."""

Call = tuple[list[Any], dict[str, Any]]
T = TypeVar("T")


def chunks(values: Sequence[T]) -> Iterator[tuple[int, Sequence[T]]]:
    """Yield the values in chunks, each with the place of its first."""
    for at in range(0, len(values), CHUNK):
        yield at, values[at : at + CHUNK]


def parcels(attempt: Ending, offers: Sequence[Offer]) -> list[Offer]:
    """Return the offers themselves, or if they are more than a chunk the internal steps that send them."""
    if len(offers) <= CHUNK:
        return list(offers)
    return [
        _internal(attempt, FORWARD_TASK, [[asdict(offer) for offer in chunk]], key=f"{chunk[0].id}/forward")
        for _, chunk in chunks(offers)
    ]


def spreads(attempt: Ending, first: Offer, calls: Sequence[Call], *, ask_id: str) -> list[Offer]:
    """Return the internal steps that send the members of a fan-out, of which ``first`` is the first one's message."""
    template = asdict(first)
    return [
        _internal(attempt, SPREAD_TASK, [ask_id, template, at, list(chunk)], key=f"{ask_id}/spread/{at}", feeds=ask_id)
        for at, chunk in chunks(calls)
    ]


def forwarded(wires: Sequence[dict[str, Any]]) -> list[Offer]:
    """Return the offers that an internal step was given to send."""
    return [offer_from(wire) for wire in wires]


def members(
    first: Offer, calls: Sequence[Call], *, ask_id: str, start: int, route: Callable[[], Route] | None = None
) -> Iterator[Offer]:
    """Yield the messages of members from place ``start`` on, as copies of the first one's.

    ``route`` says where each goes, where several pools may serve them; None: where the first one goes.

    Celery's publishing path costs more than the step's own record. Member i has the id ``step_id(ask_id, str(i))``.
    """
    template = Template(first, route=route)
    for index, call in enumerate(calls, start=start):
        yield template.offer(step_id(ask_id, str(index)), index, *call)


def offer_from(wire: dict[str, Any]) -> Offer:
    """Rebuild an offer from JSON."""
    join = wire.get("join")
    return Offer(**{**wire, "join": tuple(join) if join is not None else None})


def _internal(attempt: Ending, name: str, args: list[Any], *, key: str, feeds: str | None = None) -> Offer:
    """Return the message of an internal step on the queue that the attempt itself came from: it is served."""
    with capture.capturing() as caught:
        attempt.task.app.tasks[name].apply_async(
            args,
            task_id=step_id(attempt.holder.id, key),
            root_id=attempt.holder.root,
            parent_id=attempt.holder.id,
            queue=(attempt.request.delivery_info or {}).get("routing_key"),
            headers={HEADER: {"k": "i"} | ({"jo": feeds} if feeds is not None else {})},
        )
    return caught.offers[0]
