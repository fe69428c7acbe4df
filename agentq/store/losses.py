"""What nobody can tell any more who was there: steps that were lost with their worker, and new dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agentq.core.codec import loads
from agentq.store.connection import StoreConnection
from agentq.store.wire import moment


@dataclass(frozen=True, slots=True)
class Loss:
    """One such thing.

    Attributes:
        why: ``lost`` for an attempt that died and is made again; else why its step is a dead letter.
        words: what was wrong with a dead letter; it may quote the message.
        step_id: of the step; of a plain message the letter's id.
        name: the task's; None where nobody could read it.
        run_id, agent: the run that it belongs to, and its agent; None for a plain message, and outside of an agent.
        attempts: how many were started, this one included; 0 for a plain message.
        worker: who had it.
    """

    why: str
    words: str
    at: datetime
    step_id: str
    queue: str
    name: str | None
    run_id: str | None
    agent: str | None
    attempts: int
    worker: str | None


class LossCalls(StoreConnection):
    """The list of losses, from which each is taken once."""

    def take_losses(self, limit: int) -> list[Loss]:
        """Return the oldest losses and forget them; what its reader does not tell is never told."""
        key = self.keys.of("losses")
        found = self.guarded(lambda: self.client.rpop(key, limit))
        return [_loss(line) for line in found or []]


def _loss(line: bytes) -> Loss:
    read = loads(line)
    at = moment(str(read["t"]))
    assert at is not None
    return Loss(
        why=read["why"],
        words=read.get("words", ""),
        at=at,
        step_id=read["id"],
        queue=read["q"],
        name=read.get("name"),
        run_id=read.get("run"),
        agent=read.get("agent"),
        attempts=read.get("a", 0),
        worker=read.get("worker"),
    )
