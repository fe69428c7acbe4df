"""Lays a fork's journal and checkpoints down, then starts it; must not know which part of a journal it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from agentq.core.errors import StoreUnavailable
from agentq.store.payloads import PayloadCalls
from agentq.store.refs import Offer
from agentq.store.wire import dump, redacted

_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class CopiedStep:
    """A step that is done: its record's fields, and Celery's meta of its outcome."""

    id: str
    fields: dict[str, str]
    meta: str | None


@dataclass(frozen=True, slots=True)
class CopiedJoin:
    """A fan-out of which some members have succeeded; it goes on with the others."""

    id: str
    size: int
    arrived: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fork:
    """A run that begins with a part of another one's journal.

    Attributes:
        offer: its first message.
        origin: the other run's id.
        at: the step from which it is done again; None where there is none.
        lines: the journal, the start first.
        used: the tree's counters to begin with.
        signals: ids of the signals in the journal.
        origin_root: the root run of that one.
        retries: the other run is retried by it; its id says so, and there is one such run at most.
        key_digest: the start key that passes over to the new run, if it stands for the other one.
        payloads: name and JSON of the large results of local calls to which the journal refers.
    """

    offer: Offer
    origin: str
    at: str | None
    lines: Sequence[str]
    steps: Sequence[CopiedStep]
    joins: Sequence[CopiedJoin]
    used: dict[str, int] = field(default_factory=dict)
    signals: Sequence[str] = ()
    origin_root: str = ""
    retries: bool = False
    key_digest: str | None = None
    payloads: Sequence[tuple[str, str]] = ()


class ForkCalls(PayloadCalls):
    """The script of forks."""

    def start_fork(self, fork: Fork) -> str:
        """Record and queue the run and return its id; nothing happens where it stands, or stood, already."""
        (offer,) = self.stowed([fork.offer])
        self.put_payloads(offer.root, fork.payloads)
        for piece in _pieces(fork):
            if int(self.run_script("fork", "copy", *piece)) == 0:
                raise self._ended()
        header: dict[str, Any] = {
            "o": offer.header(),
            "lines": len(fork.lines),
            "members": len(fork.steps) + len(fork.joins),
            "from": fork.origin,
            "used": fork.used,
            "signals": list(fork.signals),
            "payloads": [name for name, _ in fork.payloads],
        }
        optional = {"at": fork.at, "retried": fork.origin_root if fork.retries else None, "key": fork.key_digest}
        header.update({name: value for name, value in optional.items() if value is not None})
        reply = self.run_script("fork", "start", dump(header), offer.message)
        if int(reply[0]) < 0:
            raise self._ended()
        return str(reply[1].decode())

    def _ended(self) -> StoreUnavailable:
        reason = "what was copied for a fork is gone: the server lost its data, or the copy took an hour"
        return StoreUnavailable(url=redacted(self.url), reason=reason)


def _pieces(fork: Fork) -> Iterator[list[Any]]:
    """Return the arguments of each copy, in order."""
    root, member = fork.offer.id, 0
    for at in range(0, len(fork.lines), _CHUNK):
        lines = fork.lines[at : at + _CHUNK]
        yield [root, at, len(lines), *lines, 0, 0, 0]
    for at in range(0, len(fork.steps), _CHUNK):
        steps = fork.steps[at : at + _CHUNK]
        yield [root, len(fork.lines), 0, member, len(steps), *(part for step in steps for part in _parts(step)), 0]
        member += len(steps)
    for join in fork.joins:
        header = {"id": join.id, "size": join.size, "pr": root, "arrived": list(join.arrived)}
        yield [root, len(fork.lines), 0, member, 0, 1, json.dumps(header)]
        member += 1


def _parts(step: CopiedStep) -> list[Any]:
    flat = [part for pair in step.fields.items() for part in pair]
    return [step.id, len(flat), *flat, step.meta or ""]
