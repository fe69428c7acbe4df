"""Offer, take, commit and give back: the life of a step's record."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Literal, ParamSpec, Required, TypedDict, Unpack

import redis

from agentq.core.errors import CalledOff, KeyReused, QueueFull, StaleHolder
from agentq.store.alarm import report_condemned
from agentq.store.connection import ScriptReply
from agentq.store.payloads import PayloadCalls
from agentq.store.refs import (
    Arrival,
    Committed,
    GoOn,
    Holder,
    Join,
    LogPlace,
    Offer,
    OfferReply,
    Taken,
    TakeReply,
    checked_lane,
)
from agentq.store.survey import SurveyReads
from agentq.store.wire import (
    arrivals_arguments,
    commit_arguments,
    dump,
    joins_arguments,
    offers_arguments,
    pairs_arguments,
    parse_take,
    parse_taken,
)

P = ParamSpec("P")

_STATES: dict[int, Literal["new", "known", "reused"]] = {1: "new", 0: "known", 2: "reused"}

Verdict = Literal["go on", "not wanted", "another's", "next not wanted"]
_VERDICTS: dict[int, Verdict] = {0: "go on", 1: "not wanted", 2: "another's", 3: "next not wanted"}

CommitMode = Literal["done", "again", "replaced"]


class Outcome(TypedDict, total=False):
    """What an attempt's commit says.

    Attributes:
        mode: ``done``; ``again``: the first offer is the step's own next generation (a retry); ``replaced``: another
            message will carry the step's id on.
        status: Celery's state.
        results: (task id, Celery's meta as JSON) to store and publish.
        joins, offers, arrivals: what goes on from here.
        entry: what the parent's log is told, JSON without time.
        tells: (run id, entry) for the logs of other runs of the tree: a step that ends a chain for an agent which
            asked for its last task only.
        error: one line for listings.
        usage: what was spent: ``tokens``, ``usd_micro``.
        accounts: to whose account, beside the tree's.
        settles: how what was reserved ends: ``ok`` 1 or 0 for breakers, ``tokens`` for rates.
        inside: an agent has ended by itself; else what it has asked for is called off with it.
        closes: ids of open asks of an agent that ends.
        cancels: ids of child runs that are cancelled with it.
        changed: the arguments of which the next attempt gets others, for people.
        idle: with ``again``: the step's function was not called, so the attempt does not count as one.
        ran_ms: how long the attempt has run, where that is less than it was held; None: as long as that.
    """

    mode: Required[CommitMode]
    status: Required[str]
    results: Sequence[tuple[str, str]]
    joins: Sequence[Join]
    offers: Sequence[Offer]
    arrivals: Iterable[Arrival]
    entry: str | None
    tells: Sequence[tuple[str, str]]
    error: str | None
    usage: dict[str, int] | None
    accounts: Sequence[dict[str, Any]]
    settles: Mapping[str, Any] | None
    closes: Sequence[str]
    cancels: Sequence[str]
    inside: bool
    changed: str | None
    idle: bool
    ran_ms: int | None


_TOLD = ("entry", "tells", "error", "changed", "usage", "inside", "closes", "cancels")
"""What of an outcome stands in a commit's header as it is, where it says anything."""

_FULL = 3
"""Of an offer: it was refused, since there was no room."""

_SILENT = 3
"""Of a commit: its step has ended, and another one answers for it."""

_CONDEMNED = 2
"""Of what is given back: that it went to the dead letters instead."""


class CommitUnderWay:
    """A commit that was sent; whoever has sent it is to ask for its result."""

    __slots__ = ("_hears", "_holder", "_name", "_reply", "_store")

    def __init__(self, store: StepCalls, reply: ScriptReply, holder: Holder, name: str, *, hears: bool) -> None:
        self._hears = hears
        self._store = store
        self._reply = reply
        self._holder = holder
        self._name = name

    def leave(self) -> bool:
        """Tell whether its result may be asked for later, behind other calls; False: it is to be asked for now."""
        return self._reply.leave()

    def result(self) -> Committed:
        """Return what it has brought; raises as the commit says, and StoreUnavailable: asked again it is sent again."""
        reply = self._reply.read()
        self._store.expect_held(reply, self._holder, self._name)
        answers = int(reply[0]) != _SILENT
        if self._hears:
            return Committed(answers=answers, heard=reply[1] if len(reply) > 1 else None)
        return Committed(tuple(parse_taken(reply, at) for at in range(1, len(reply), 4)), answers=answers)


def _waited_for(begin: Callable[P, CommitUnderWay]) -> Callable[P, Committed]:
    @wraps(begin)
    def commit(*args: P.args, **kwargs: P.kwargs) -> Committed:
        return begin(*args, **kwargs).result()

    return commit


class StepCalls(PayloadCalls, SurveyReads):
    """The scripts that move one step."""

    def offer(self, offers: Sequence[Offer], joins: Sequence[Join] = ()) -> list[OfferReply]:
        """Record and queue steps that are not recorded yet; a repeat sends nothing.

        Raises QueueFull for the first one that is refused for want of room; the others are recorded.
        """
        arguments = [*joins_arguments(self.stowed_bodies(joins)), *offers_arguments(self.stowed(offers))]
        replies = self.run_script("offer", *arguments)
        for offer, reply in zip(offers, replies, strict=True):
            if int(reply[0]) == _FULL:
                raise self._full(offer, reply)
        return [OfferReply(state=_STATES[int(reply[0])], run_id=reply[1].decode()) for reply in replies]

    def _full(self, offer: Offer, reply: Sequence[Any]) -> QueueFull:
        is_tenants = reply[2] == b"tenant"
        return QueueFull(
            pool=offer.queue,
            waiting=int(reply[4]),
            limit=int(reply[3]),
            tenant=offer.card.get("tenant") if is_tenants else None,
            wait_s=self.expected_wait(offer.queue, offer.lane),
        )

    def start(self, offer: Offer, *, key: str | None) -> str:
        """Record and queue a run; return the id of the run that stands.

        With a key that was used before, that is the earlier run. Raises KeyReused if its arguments were others,
        QueueFull where a new one has no room.
        """
        reply = self.offer([offer])[0]
        if reply.state == "reused":
            raise KeyReused(key=key or "", run_id=reply.run_id)
        return reply.run_id

    def take_command(
        self,
        worker: str,
        token: str,
        *,
        slots: int,
        label: str,
        queues: Sequence[str],
        low_share: int = 8,
        floor: int = 0,
        idle: bool = False,
    ) -> tuple[Any, ...]:
        """Return the command that takes up to ``slots`` messages, for a connection that the caller reads.

        ``low_share``: every N-th take begins with the lowest lane; 0 never. ``floor``: the highest take number that
        this process has seen. ``idle``: nothing runs in the worker, so that it may take suspects. Keep ``token`` until
        a reply is processed: the same token gets the same reply.
        """
        return self.scripts.command("take", worker, token, slots, label, low_share, floor, int(idle), *queues)

    def parse_take(self, reply: Sequence[Any]) -> TakeReply:
        """Return what the take script answered."""
        return parse_take(reply)

    def take(
        self,
        worker: str,
        token: str,
        *,
        slots: int,
        label: str,
        queues: Sequence[str],
        low_share: int = 8,
        floor: int = 0,
        idle: bool = False,
    ) -> TakeReply:
        """Take in one call; as ``take_command`` otherwise."""
        return parse_take(self.run_script("take", worker, token, slots, label, low_share, floor, int(idle), *queues))

    def load_scripts(self, client: redis.Redis | None = None) -> None:
        """Make every script known to the server."""
        self.guarded(lambda: self.scripts.load(client if client is not None else self.client))

    def ring(self, queue: str, lane: int, message: str | bytes) -> None:
        """Queue a plain message, one without a record, and wake a worker for it."""
        checked_lane(queue, lane)
        self.run_script("ring", queue, lane, message)

    def begin_commit(
        self,
        holder: Holder,
        *,
        name: str = "",
        going_on: GoOn | None = None,
        hears: LogPlace | None = None,
        **parts: Unpack[Outcome],
    ) -> CommitUnderWay:
        """Send what makes an attempt's outcome the step's, with all that follows from it.

        Args:
            holder: the attempt.
            name: the step's name, for the error.
            going_on: on which terms the worker takes the next steps by the same call; None: it does not.
            hears: of the turn in whose slot it ran, which so hears of it.
            parts: see ``Outcome``; ``mode`` and ``status`` are needed.

        The result raises:
            StaleHolder: another attempt holds the step, or it is done; nothing was written.
            CalledOff: it was cancelled, and ``status`` is not REVOKED; nothing was written.
        """
        mode, offers, usage = parts["mode"], parts.get("offers", ()), parts.get("usage")
        if mode == "again" and not (offers and offers[0].id == holder.id):
            raise ValueError(f"a retry of step {holder.id} needs its own next message as the first offer")
        settles = parts.get("settles")
        header = {**holder.to_wire(), "mode": mode, "status": parts["status"]}
        for field in _TOLD:
            if value := parts.get(field):
                header[field] = value
        if usage and (accounts := parts.get("accounts")):
            header["accounts"] = list(accounts)
        if settles:
            header["m"] = dict(settles)
        if parts.get("idle"):
            header["idle"] = 1
        if parts.get("ran_ms") is not None:
            header["ran"] = parts["ran_ms"]
        arguments = commit_arguments(
            header,
            going_on=going_on,
            hears=hears,
            results=parts.get("results", ()),
            joins=self.stowed_bodies(parts.get("joins", ())),
            offers=self.stowed(offers),
            arrivals=parts.get("arrivals", ()),
        )
        reply = self.begin_script("commit", *arguments)
        return CommitUnderWay(self, reply, holder, name, hears=hears is not None)

    commit = _waited_for(begin_commit)

    def follow(self, worker: str, token: str, terms: GoOn, *, wait_s: float = 0.0) -> Taken | None:
        """Take the next step for a seat, once a bell has rung or after ``wait_s`` seconds.

        None when there is none for it. The same token gets the same reply.
        """
        arguments = worker, token, dump(replace(terms, lingers_ms=0).to_wire(heard=True))
        # Its own first: what was rung there is for nobody else.
        bells = [self.keys.seat(worker, terms.seat), *(self.keys.bell(queue) for queue in terms.queues)]
        command = self.scripts.command("follow", *arguments)
        reply = self.guarded(lambda: self._after_bell(bells, wait_s, command)) if wait_s else None
        if reply is None:
            reply = self.run_script("follow", *arguments)
        return parse_taken(reply, 1) if len(reply) > 1 else None

    def _after_bell(self, bells: Sequence[str], wait_s: float, command: Sequence[Any]) -> Any:
        # Sent together: the server does the second as soon as the first has come to its end.
        with self.patient.pipeline(transaction=False) as pipe:
            pipe.execute_command("BRPOP", *bells, wait_s)
            pipe.execute_command(*command)
            reply = pipe.execute(raise_on_error=False)[1]
        if isinstance(reply, Exception):
            if self.scripts.is_unknown(reply):
                return None
            raise reply
        return reply

    def expect_held(self, reply: Sequence[Any], holder: Holder, name: str) -> None:
        """Return if the script accepted the holder; raises StaleHolder or CalledOff with what it found otherwise."""
        if int(reply[0]) in (1, 3):
            return
        if int(reply[0]) == 2:
            raise CalledOff(step=name or holder.id, run_id=holder.root)
        worker, take = reply[2].decode(), reply[3].decode()
        raise StaleHolder(
            step=name or holder.id,
            run_id=holder.root,
            holder=worker,
            take=int(take) if take else 0,
            mine=holder.worker,
            my_take=holder.take,
        )

    def arrive(self, arrivals: Sequence[Arrival]) -> None:
        """Tell joins of branches that end outside a commit: plain Celery tasks."""
        self.run_script("arrive", *arrivals_arguments(arrivals)[1:])

    def fail_behind(self, root: str, behind: Sequence[tuple[str, str]], tells: Sequence[tuple[str, str]]) -> None:
        """Tell who waits for the end of a chain that a plain task has broken; a repeat tells nobody twice.

        Args:
            root: the run's.
            behind: (task id, Celery's meta of its failure) of the tasks that will never run; a replaced step that one
                of them was to end has failed with it.
            tells: (run id, entry) for the logs of agents that asked for one of them.
        """
        self.run_script("fail", root, *pairs_arguments(behind), *pairs_arguments(tells)[1:])

    def progress(self, holder: Holder, meta: str) -> bool:
        """Store a state that is not an outcome (Celery's meta as JSON); False when another holds the step."""
        return int(self.run_script("progress", holder.root, holder.id, holder.worker, holder.take, meta)) == 1

    def drop(self, worker: str, take: int) -> None:
        """End the custody of a plain message: it is acknowledged. A step's ends by its commit alone."""
        self.run_script("settle", worker, take, "drop")

    def requeue(self, worker: str, take: int, *, lost: bool = False, seat: str | None = None) -> None:
        """Hand a message back to the front of its lane; it does not count as a start.

        ``lost``: the attempt died (a child of the pool was killed); it counts as a start and as a death. ``seat``: of
        the attempt, which may have ended; then it is about the step that was gone on with there.
        """
        seats = (seat,) if seat is not None else ()
        if int(self.run_script("settle", worker, take, "lost" if lost else "requeue", *seats)) == _CONDEMNED:
            report_condemned()

    def mark_overdue(self, worker: str, take: int) -> bool:
        """Note that an attempt has passed its hard limit and is killed next; False when it holds nothing any more."""
        return int(self.run_script("overdue", worker, take)) == 1

    def recalled(self, running: Sequence[Holder], seats: Sequence[str | None] = ()) -> list[Verdict]:
        """Say of each running attempt of a worker whether it is to stop, and why.

        ``seats``: of each, where it may have gone on.
        """
        if not running:
            return []
        places = [*seats, *[None] * (len(running) - len(seats))]
        pairs = zip(running, places, strict=True)
        named = [part for holder, seat in pairs for part in (holder.root, holder.id, holder.take, seat or "")]
        return [_VERDICTS[int(reply)] for reply in self.run_script("recalled", running[0].worker, *named)]

    def retry(self, holder: Holder, *, number: int, error: str) -> bool:
        """Note that a running attempt begins its function again, as try ``number``; False when another holds the step.

        ``error`` is the last try's, in one line.
        """
        arguments = (holder.root, holder.id, holder.worker, holder.take, number, error)
        return int(self.run_script("retry", *arguments)) == 1

    def tries(self, root: str, step_id: str) -> int:
        """Return the last try that an attempt of the step has begun in place; 0 for none."""
        return int(self.guarded(lambda: self.client.hget(self.keys.step(root, step_id), "nt")) or 0)

    def emit(self, holder: Holder, events: Sequence[str], *, token: str | None = None) -> bool:
        """Append lines to the run's history; False when another holds the step.

        A caller that tries again gives the same ``token``, so that the lines stand there once.
        """
        arguments = (holder.root, holder.id, holder.worker, holder.take, token or self.new_token(), *events)
        return int(self.run_script("emit", *arguments)) == 1

    @staticmethod
    def new_token() -> str:
        """Return a token for one take, or one emit."""
        return uuid.uuid4().hex
