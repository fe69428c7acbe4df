"""Carries a turn's wishes out: the messages by the engine, the writes by the store. Owns no rule of either."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import signal
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, Literal

from agentq.core.codec import dumps, loads
from agentq.core.errors import InvalidResult, StepTimeout, StoreUnavailable, UsageError
from agentq.core.ids import step_id
from agentq.core.journal import Ask, Entry, Result, ResultStatus, decode, encode, failed
from agentq.engine import exits, realloop
from agentq.engine.attempt import Attempt
from agentq.engine.binding import TurnEnd
from agentq.engine.budgets import accounts_of
from agentq.engine.capture import Capture
from agentq.engine.dispatch import Calls, canvas_offers, map_offers, next_generation
from agentq.engine.handle import failure_of
from agentq.engine.outcome import keep_trying
from agentq.engine.own_steps import OwnSteps
from agentq.engine.this_step import InPlace, current_attempt
from agentq.runtime.effects import Batch, Effect
from agentq.runtime.machine import Machine
from agentq.runtime.outcomes import Identity
from agentq.runtime.turn import Turn
from agentq.store.logs import Sent, StandsStill

logger = logging.getLogger(__name__)

_CHUNK: Final = 500
"""Outcomes read, or written, at once: some hundred KB of the usual results."""

_SAME_IN_JSON: Final = frozenset({str, int, bool, type(None)})
"""Of these what is read is what was written."""


def run_turn(attempt: Attempt) -> TurnEnd:
    """One turn of the agent whose attempt this is has been run; what it parks or goes on as is written."""
    task = attempt.task
    args, kwargs = attempt.arguments
    typed_args, typed_kwargs = task.schema.decode(list(args), dict(kwargs))
    card = attempt.ours.get("cd") or {}
    identity = Identity(
        run_id=attempt.holder.id,
        agent=task.name,
        version=task.agentq.version,
        key=card.get("key"),
        tenant=card.get("tenant"),
        **_wall_of(attempt),
    )
    limits = attempt.binding.limits
    machine = Machine(
        lambda run: task.function(run, *typed_args, **typed_kwargs),
        identity,
        compute_s=limits.turn_s,
        zombies=task.agentq.zombie_rules(attempt.binding.zombies),
        write_result=task.schema.encode_result,
        write_arguments=lambda args, kwargs: task.schema.encode(list(args), dict(kwargs)),
    )
    return Turn(EnginePort(attempt), machine, linger=limits.linger_s, compute_s=limits.turn_s).run()


def _wall_of(attempt: Attempt) -> dict[str, Any]:
    """When the time of the run's own budget is over; a sub-agent without one ends with its root."""
    if "wall_ms" not in (attempt.ours.get("bu") or {}):
        return {}
    if any(account["k"] == "self" and account.get("x") == "ask" for account in attempt.ours.get("bg") or []):
        # A person is asked to raise it, at the next call: an agent that was cancelled could not go on.
        return {}
    counters = attempt.store.account(attempt.holder.root, attempt.holder.id)
    limit = counters["b_wall_ms"]
    return {"wall": str(timedelta(milliseconds=limit)), "wall_end_ms": counters["born"] + limit}


class EnginePort:
    """The `TurnPort` of a real worker."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._store = attempt.store
        self._holder = attempt.holder
        self._own = OwnSteps(attempt)
        self._calls = Calls(attempt)

    def read(self, seen: int) -> Sequence[bytes]:
        """The log from `seen` on."""
        lines = keep_trying(lambda: self._store.read_log(self._holder.root, self._holder.id, seen))
        self._own.heard(lines)
        return lines

    def send(self, batch: Batch) -> Sequence[bytes | Entry] | None:
        """The batch is written, once, however often the connection breaks; None when the run stands still."""
        if (written := self._journal(batch)) is not None:
            return written
        self._attempt.has_rested = True
        caught = Capture()
        questions: list[str] = []
        events: list[str] = []
        refused: list[Result] = []
        for effect in batch.dispatch:
            ask = effect.ask
            if batch.stop is not None and ask.kind != "emit":
                continue
            if ask.kind == "emit":
                events.append(dumps({**_told_as(ask, effect.fields), "r": self._holder.id}))
            elif ask.kind == "ask":
                card = {"id": ask.id, "run": self._holder.id, "q": ask.question, "schema": ask.answer_schema}
                questions.append(dumps(card))
            elif ask.kind != "local":
                try:
                    caught.merge(self._messages(effect))
                except UsageError as error:
                    # No pool serves it. An input like any other: the agent that asked for it hears of it, in a replay
                    # too, when another pool may have been declared.
                    refused.append(failed(ask.id, error.to_wire()))
        closes, cancels = self.ids_of(batch.calls_off)
        usage = self._attempt.take_usage()
        results = list(batch.results)
        if results and usage.get("tokens"):
            # What local calls have spent is told of the last one: which of them it was, nobody need know.
            results[-1] = replace(results[-1], tokens=usage["tokens"])
        told = [self._told(result) for result in [*results, *refused]]
        parts = Sent(
            asks=[encode(effect.ask) for effect in batch.asks],
            joins=caught.joins,
            offers=caught.offers,
            questions=questions,
            results=[entry for entry, _ in told],
            payloads=[large for _, large in told if large is not None],
            events=events,
            tick=batch.tick,
            closes=closes,
            cancels=cancels,
            usage=usage,
            accounts=accounts_of(self._attempt),
            stop={"rule": batch.stop.rule, "why": batch.stop.why} if batch.stop is not None else None,
        )
        # The same in every repeat: what a broken connection hid has been written all the same.
        token, holder, seen = uuid.uuid4().hex, self._holder, batch.seen
        terms = self._own.terms(batch.dispatch[0].target, caught.offers) if batch.alone else None
        try:
            if terms is None:
                return keep_trying(lambda: self._store.send(holder, token=token, seen=seen, **parts))
            lines, taken = keep_trying(
                lambda: self._store.send_and_take(holder, token=token, seen=seen, terms=terms, **parts)
            )
        except StandsStill:
            if batch.stop is not None:
                logger.warning("run_stopped run=%s rule=%s: %s", self._holder.id, batch.stop.rule, batch.stop.why)
            return None
        seen += len(lines)
        waiting = self._own.run(taken, seen)
        if waiting is None:
            return lines
        return [*lines, *(waiting.lines if waiting.lines is not None else self.read(seen))]

    def _journal(self, batch: Batch) -> Sequence[bytes | Entry] | None:
        """What was written of a batch that holds nothing but local calls and their outcomes; None: it is none."""
        results = batch.results
        if batch.tick or batch.calls_off or batch.stop is not None or self._attempt.spent or not results:
            return None
        if len(results) + len(batch.asks) > _CHUNK or any(effect.ask.kind != "local" for effect in batch.dispatch):
            return None
        told = [encode(result) for result in results]
        if any(len(text) > self._attempt.binding.limits.inline_bytes for text in told):
            return None
        asks = [effect.ask for effect in batch.asks]
        lines = [encode(ask) for ask in asks]
        write = functools.partial(self._store.journal, self._holder, seen=batch.seen, asks=lines, results=told)
        written = keep_trying(write)
        if not isinstance(written, int):
            return written
        return [*asks, *(_as_read(result, text, written) for result, text in zip(results, told, strict=True))]

    def _told(self, result: Result) -> tuple[str, tuple[str, str] | None]:
        """The entry of a local call's result, or of the error that it is too large; a large one with name and value."""
        text = encode(result)
        limits = self._attempt.binding.limits
        if len(text) <= limits.inline_bytes:
            return text, None
        if len(text) <= limits.result_bytes:
            return encode(replace(result, value=None, large=True)), (result.id, dumps(result.value))
        error = InvalidResult(
            step="run.local",
            value=f"{len(text)} bytes",
            reason=f"it is larger than {limits.result_bytes} bytes (setting result_limit): put it into a file or an "
            "object store and return where it is",
        )
        return encode(failed(result.id, error.to_wire())), None

    def _messages(self, effect: Effect) -> Capture:
        ask = effect.ask
        if ask.kind == "map":
            return map_offers(self._attempt, effect.target, effect.calls, ask_id=ask.id, need=effect.need)
        if ask.kind == "canvas":
            return canvas_offers(self._attempt, effect.target, ask_id=ask.id)
        undoes, spawned = ask.kind == "undo", ask.kind == "spawn"
        return self._calls.offers(effect.target, effect.calls[0], ask_id=ask.id, undoes=undoes, spawned=spawned)

    def park(self, *, seen: int, due_ms: int | None, waits: Sequence[str], rest_ms: int) -> bool:
        """The worker is given back, unless the log has grown."""
        if not self._settle_usage(seen):
            return True
        return keep_trying(
            lambda: self._store.park(self._holder, seen=seen, due_ms=due_ms, waits=waits, rest_ms=rest_ms)
        )

    def _settle_usage(self, seen: int) -> bool:
        """Whether the run is still held here: it is not when it stands still."""
        # What local calls spent and no send has carried yet; they all have, unless the last one was given up.
        usage = self._attempt.take_usage()
        if not usage:
            return True
        token, accounts = uuid.uuid4().hex, accounts_of(self._attempt)
        try:
            keep_trying(lambda: self._store.send(self._holder, token=token, seen=seen, usage=usage, accounts=accounts))
        except StandsStill:
            return False
        return True

    def wait(self, seconds: float) -> None:
        """The run's bell rang, or the time has passed."""
        try:
            self._store.wait_log(self._holder.root, self._holder.id, seconds)
        except StoreUnavailable:
            # The log is read next, which waits for the server.
            time.sleep(min(seconds, 0.1))

    def is_slot_wanted(self, beyond: int = 0) -> bool:
        """Whether the agent's own queue holds more messages than these: every free slot of its pool is taken."""
        queue = (self._attempt.request.delivery_info or {}).get("routing_key")
        return bool(queue) and sum(keep_trying(lambda: self._store.waiting(str(queue))).values()) > beyond

    def load_result(self, ask_id: str) -> Any:
        """The value of a step from where its result lies, that of a local call from its own key."""
        meta = keep_trying(lambda: self._store.outcomes([ask_id]))[0]
        if meta is not None:
            return loads(meta)["result"]
        value = keep_trying(lambda: self._store.payload(self._holder.root, ask_id))
        return loads(value) if value is not None else None

    def load_members(self, ask: Ask, places: Sequence[int] | None) -> Sequence[Result]:
        """The outcomes of a map's members, from where their results lie."""
        wanted = range(ask.members or 0) if places is None else sorted(places)
        found: list[Result] = []
        for at in range(0, len(wanted), _CHUNK):
            ids = [step_id(ask.id, str(index)) for index in wanted[at : at + _CHUNK]]
            outcomes = keep_trying(functools.partial(self._store.outcomes, ids))
            for member, meta in zip(ids, outcomes, strict=True):
                found.append(_member(ask, member, meta))
        return found

    def restart(self, *, seen: int, arguments: Any, carry: Sequence[Entry], calls_off: Sequence[Effect]) -> None:
        """The run's next turn is queued, with a new log."""
        closes, cancels = self.ids_of(calls_off)
        usage = self._attempt.take_usage()
        token = uuid.uuid4().hex
        if closes or usage:
            accounts = accounts_of(self._attempt)
            keep_trying(
                lambda: self._store.send(
                    self._holder, token=token, seen=seen, closes=closes, usage=usage, accounts=accounts
                )
            )
        args, kwargs = arguments
        (following,) = keep_trying(lambda: self._store.stowed([next_generation(self._attempt, args, kwargs)]))
        restart = functools.partial(
            self._store.restart,
            self._holder,
            token=uuid.uuid4().hex,
            seen=seen,
            message=following.message,
            payload=following.payload,
            version=self._attempt.task.agentq.version,
            carry=[encode(entry) for entry in carry],
            cancels=cancels,
        )
        keep_trying(restart)

    def perform(self, effect: Effect) -> Any:
        """What the function of a local call returned; within it, `this_step` is the call."""
        args, kwargs = effect.calls[0]
        token = current_attempt.set(InPlace(self._attempt, effect.ask.id))
        try:
            with exits.one_process(), exits.no_task():
                value = effect.target(*args, **kwargs)
            limit = self._attempt.binding.limits.step_s
            return realloop.run(value, timedelta(seconds=limit)) if inspect.iscoroutine(value) else value
        except realloop.Overdue as overdue:
            raise StepTimeout(step=effect.ask.name, step_id=effect.ask.id, seconds=limit) from overdue
        finally:
            current_attempt.reset(token)

    def own_thread(self) -> exits.MainThread | None:
        """The main thread of a pool's child, which a signal can interrupt."""
        return exits.MainThread() if exits.hears_soft_limit() else None

    def forsake(self, give_back: bool) -> None:
        """The child is killed; its worker sees to another."""
        logger.error("child_given_up run=%s: a local call that nobody waits for does not end", self._holder.id)
        if give_back:
            keep_trying(lambda: self._store.requeue(self._holder.worker, self._holder.take))
        os.kill(os.getpid(), signal.SIGKILL)

    def allow(self, what: Literal["computing", "local calls", "waiting"]) -> None:
        """The keeper ends the process after the limit of this and a grace; waiting has none."""
        limits, claim = self._attempt.binding.limits, self._attempt.claim
        if what == "waiting":
            claim.finish()
        else:
            claim.extend((limits.turn_s if what == "computing" else limits.step_s) + limits.grace_s)

    def now_ms(self) -> int:
        """The server's time."""
        return keep_trying(self._store.now_ms)

    def ids_of(self, effects: Sequence[Effect]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Questions to close; steps and runs to call off."""
        asked = tuple(effect.ask.id for effect in effects if effect.ask.kind == "ask")
        sent = tuple(effect.ask.id for effect in effects if effect.ask.kind not in ("ask", "emit", "local"))
        return asked, sent


def _as_read(result: Result, text: str, now_ms: int) -> Entry:
    """The result as a replay reads it from the log."""
    if type(result.value) in _SAME_IN_JSON and result.status == "ok":
        return Result(id=result.id, status="ok", value=result.value, tokens=result.tokens, t=now_ms)
    # For Python a list, a tuple and what a model dumped differ: it is read back.
    return decode(f'{{"t":{now_ms},{text[1:]}')


def _told_as(ask: Ask, fields: dict[str, Any]) -> dict[str, Any]:
    if ask.undoes is None:
        return {"e": "emit", "n": ask.name, "f": fields}
    # What an undo tells of itself is no word of the agent's.
    return {"e": ask.name, "n": fields["step"], "error": fields["error"]}


def _member(ask: Ask, member: str, meta: bytes | None) -> Result:
    if meta is None:
        gone = {"result": "its result is gone: it was kept for the retention only"}
        return Result(id=member, status="error", value=failure_of(gone, {}, ask.name, member).to_wire())
    outcome = loads(meta)
    if outcome["status"] == "SUCCESS":
        return Result(id=member, status="ok", value=outcome.get("result"))
    status: ResultStatus = "revoked" if outcome["status"] == "REVOKED" else "error"
    error = failure_of(outcome, {}, ask.name, member).to_wire()
    return Result(id=member, status=status, value=error, ran=bool(outcome.get("ran")))
