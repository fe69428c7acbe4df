"""Values that name steps and carry messages between the engine and the store; no Redis here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from agentq.core.codec import present
from agentq.core.errors import InvalidArguments
from agentq.core.lanes import PRIORITIES

_ID = re.compile(r"[A-Za-z0-9_.:\-]{1,200}\Z")


def checked_id(value: str, *, what: str = "task_id") -> str:
    """Return ``value`` if it may stand in a key; raises InvalidArguments for anything else.

    Celery lets callers choose a task's id, so it is user text.
    """
    if not _ID.match(value):
        raise InvalidArguments(
            step="apply_async", parameter=what, value=value, reason="an id is 1 to 200 of A-Z a-z 0-9 _ . : -"
        )
    return value


def checked_lane(queue: str, lane: int) -> None:
    """Return if messages may go there; raises InvalidArguments for a nameless queue, or a lane that none takes from."""
    if not queue:
        raise InvalidArguments(step="apply_async", parameter="queue", value=queue, reason="a queue has a name")
    if lane not in PRIORITIES.values():
        raise InvalidArguments(
            step="apply_async", parameter="lane", value=lane, reason=f"lanes are {sorted(PRIORITIES.values())}"
        )


class Holder(NamedTuple):
    """The one attempt that may commit a step: (worker, take number) on its record."""

    root: str
    id: str
    worker: str
    take: int

    def to_wire(self) -> dict[str, Any]:
        """Return the form that travels in a request's headers."""
        return {"root": self.root, "id": self.id, "worker": self.worker, "take": self.take}

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Holder:
        """Rebuild a holder from a request's headers; other fields are ignored."""
        return cls(root=wire["root"], id=wire["id"], worker=wire["worker"], take=int(wire["take"]))


StepKind = Literal["step", "agent", "internal", "plain"]


@dataclass(frozen=True, slots=True)
class Offer:
    """A step to record and queue.

    Attributes:
        message: kombu's virtual message as JSON text, without the leading ``agentq`` key.
        payload: name of the key that holds its arguments, where they are too large for the message.
        kind: a ``plain`` message is a Celery task's that keeps Celery's semantics: queued, without a record. An
            ``internal`` step is agentq's own: no part of the run's history, budget or cancelling.
        lane: priority number of the lane, 0 highest.
        due_ms: server time from which the step may be taken; None for now.
        delay_ms: so long after it is recorded, by the server's clock; counts where it is given, and not ``due_ms``.
        parent: run id of the agent that asked for it; its log hears of the outcome under ``ask``.
        join: (root, join id) at which the outcome arrives, at place ``index``.
        start_digest, args_digest: keyed start; the same key with other arguments is refused.
        budget: limits of the agent's run and all below it: ``steps``, ``tokens``, ``usd_micro``, ``wall_ms``, ….
        spawned: a sub-agent that goes on when its parent ends.
        undoes: the step takes back another one; it runs although its agent was cancelled.
        card: what listings show beside the name (tenant, key, why).
        needs: what chose its pool (see ``routing``), where another one may serve it as well.
        accounts: the budgets that it is charged to, as its header names them.
        depth: how deep below the run that has the budget it stands.
        resources: names of what a worker should have open that takes it.
        feeds: of an internal step, the join whose members it sends.
        watch: after how many ms an agent's run is to be looked after, by ``quiet`` and ``wall``.
        hedge: after how many ms of an attempt a second step begins elsewhere, or at which quantile of its times.
        most: how many may wait in its queue, in its lane and above, when it comes; None is no bound.
        most_of_tenant: how many of its tenant's.
        refuse: where there is no room, it is refused; else it is held back until there is.
    """

    root: str
    id: str
    queue: str
    lane: int
    name: str
    message: str
    kind: StepKind = "step"
    generation: int = 1
    due_ms: int | None = None
    delay_ms: int | None = None
    parent: str | None = None
    ask: str | None = None
    join: tuple[str, str] | None = None
    index: int | None = None
    version: str | None = None
    start_digest: str | None = None
    args_digest: str | None = None
    budget: dict[str, int] | None = None
    undoes: bool = False
    spawned: bool = False
    card: dict[str, Any] = field(default_factory=dict)
    payload: str | None = None
    needs: dict[str, Any] | None = None
    accounts: list[dict[str, Any]] | None = None
    depth: int | None = None
    feeds: str | None = None
    watch: dict[str, int] | None = None
    resources: tuple[str, ...] = ()
    hedge: str | None = None
    most: int | None = None
    most_of_tenant: int | None = None
    refuse: bool = False

    def header(self) -> dict[str, Any]:
        """Return the fields that the scripts read, short names, without what is None."""
        checked_lane(self.queue, self.lane)
        fields: dict[str, Any] = {
            "root": checked_id(self.root, what="root_id"),
            "id": checked_id(self.id),
            "q": self.queue,
            "l": self.lane,
            "nm": self.name,
            "k": {"step": "s", "agent": "a", "internal": "i", "plain": "p"}[self.kind],
            "g": self.generation,
            "due": self.due_ms,
            "dly": self.delay_ms,
            "pr": self.parent,
            "ak": self.ask,
            "jr": self.join[0] if self.join is not None else None,
            "jn": self.join[1] if self.join is not None else None,
            "ji": self.index,
            "v": self.version,
            "sd": self.start_digest,
            "ad": self.args_digest,
            "bu": self.budget,
            "ud": 1 if self.undoes else None,
            "sp": 1 if self.spawned else None,
            "cd": self.card or None,
            "tn": self.card.get("tenant") or None,
            "pl": self.payload,
            "mx": self.most,
            "mt": self.most_of_tenant,
            "fu": 1 if self.refuse and (self.most is not None or self.most_of_tenant is not None) else None,
            "nd": json.dumps(self.needs, separators=(",", ":")) if self.needs is not None else None,
            "bg": self.accounts or None,
            "rs": "\n".join(self.resources) or None,
            "hg": self.hedge,
            "dp": self.depth,
            "jo": self.feeds,
            "zw": self.watch or None,
        }
        return present(fields)


@dataclass(frozen=True, slots=True)
class Join:
    """A meeting point of ``size`` branches.

    It releases once: when all have arrived, or at ``need`` successes. Then it appends one entry to the log of the
    agent ``parent``, or offers ``body``. ``members`` is JSON text that tells the body where the results lie.
    """

    root: str
    id: str
    size: int
    need: int | None = None
    parent: str | None = None
    body: Offer | None = None
    members: str | None = None

    def header(self) -> dict[str, Any]:
        """Return the fields that scripts read."""
        return present(
            {
                "root": self.root,
                "id": self.id,
                "size": self.size,
                "need": self.need,
                "pr": self.parent,
                "ids": self.members,
                "body": self.body.header() if self.body is not None else None,
            }
        )


@dataclass(frozen=True, slots=True)
class JoinMembers:
    """Where a canvas join's results lie (``members``, as in ``Join``), its size and how many have succeeded."""

    members: str
    size: int
    succeeded: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A branch that reached its join, at its place: a number in a fan-out, a task id in canvas."""

    root: str
    id: str
    index: int | str
    succeeded: bool


class Taken(NamedTuple):
    """A message that a take moved into the worker's custody.

    A cancelled step is to end as revoked; an overdue one, whose last attempt was killed for its hard limit, as timed
    out; one that is over its budget asks for admission first; beside a suspect, whose last attempt died, nothing else
    is to be taken.
    """

    take: int
    queue: str
    cancelled: bool
    overdue: bool
    message: bytes
    suspect: bool = False
    over_budget: bool = False


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit has brought.

    Attributes:
        following: the steps that the worker goes on with, in their order, if it asked for some and there are any.
        answers: whether the outcome is the step's; not where its hedge, or the step that it is the hedge of, answers.
        heard: what has come into the log of the turn in whose slot it ran; None: that was not read.
    """

    following: tuple[Taken, ...] = ()
    answers: bool = True
    heard: list[bytes] | None = None


@dataclass(frozen=True, slots=True)
class GoOn:
    """With what a worker goes on by the script that commits a short step.

    Attributes:
        label, queues, low_share, floor: as of a take.
        seat: tells those apart that go on in one worker: processes, or threads.
        names: of the steps that are known to be short; anything else is left to a take.
        over: whether a turn's own step may be taken before others of its lane.
        most: so many are taken at once where many wait.
        lingers_ms: for so long the seat waits for a next step where there is none now; 0: it does not.
    """

    label: str
    seat: str
    queues: tuple[str, ...]
    names: tuple[str, ...]
    low_share: int
    floor: int
    over: bool = False
    most: int = 1
    lingers_ms: int = 0

    def to_wire(self, *, heard: bool = False) -> dict[str, Any]:
        """Return what the scripts read; ``heard``: a bell was used up for it, which is for one step."""
        return {
            **({"heard": 1} if heard else {"most": self.most} if self.most > 1 else {}),
            **({"over": 1} if self.over else {}),
            **({"lingers": self.lingers_ms} if self.lingers_ms else {}),
            "label": self.label,
            "seat": self.seat,
            "queues": self.queues,
            "names": "\n" + "\n".join(self.names) + "\n",
            "low": self.low_share,
            "floor": self.floor,
        }


@dataclass(frozen=True, slots=True)
class LogPlace:
    """A place in an agent's log: what a turn, which is this attempt of the run, has read of it goes so far."""

    turn: Holder
    seen: int

    def to_wire(self) -> dict[str, Any]:
        """Return what the scripts read."""
        turn = self.turn
        return {"root": turn.root, "run": turn.id, "seen": self.seen, "worker": turn.worker, "take": turn.take}


@dataclass(frozen=True, slots=True)
class TakeReply:
    """What a take gave.

    Attributes:
        refused: the worker was marked dead and must stop.
        rest: nothing else is to be taken until nothing runs in the worker: it has suspects now, or makes itself free
            for some.
    """

    refused: bool
    taken: tuple[Taken, ...] = ()
    rest: bool = False


@dataclass(frozen=True, slots=True)
class OfferReply:
    """The outcome of one offer.

    ``state`` is ``new``, ``known`` (recorded before, nothing was sent) or ``reused`` (a keyed start with other
    arguments); ``run_id`` is the run that stands under the key.
    """

    state: Literal["new", "known", "reused"]
    run_id: str
