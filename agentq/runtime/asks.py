"""What one run has asked for, and what became of it.

It owns the open asks, their ids and their outcomes. It must not know the coroutine that asks, nor who carries it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from agentq.core.codec import canonical, canonical_of_jsonable, short_hash
from agentq.core.errors import AgentqError
from agentq.core.ids import step_id, step_key
from agentq.core.journal import Answer, Ask, AskKind, Joined, Result
from agentq.core.zombies import Tail
from agentq.runtime.effects import Effect, EffectFuture
from agentq.runtime.loop import DeterministicLoop
from agentq.runtime.outcomes import error_of
from agentq.runtime.replay import Book

SEGMENT: Final = "segment"
"""Name of the entry that counts how often a run has continued as new; it stands among the first of such a log."""

_ENCODED: Final = frozenset({"local", "call", "spawn"})
"""Kinds that are told from one another by arguments, which a schema has encoded."""

Told = Result | Joined | Answer
"""The inputs that bring an ask its outcome."""


class Asks:
    """The asks of one run, recorded and new.

    Attributes:
        made: how many there were.
        seen: number of inputs that the run was fed; whoever feeds it counts.
        pending: how many the agent waits for.
        segment: how often the run has continued as new.
        open_locals: local calls that the agent waits for, by id.
        undoable: what has an undo, in the order in which it was asked for.
        book: which of them the journal holds.
        tail: what of them tells a zombie; None where nobody asks.
    """

    def __init__(self, run_id: str, loop: DeterministicLoop) -> None:
        self.made = 0
        self.seen = 0
        self.pending = 0
        self.segment = 0
        self.open_locals: dict[str, Effect] = {}
        self.undoable: list[Effect] = []
        self.book = Book(run_id)
        self.tail: Tail | None = None
        self._run_id = run_id
        self._loop = loop
        self._effects: dict[str, Effect] = {}
        self._early: dict[str, tuple[Told, Sequence[Result]]] = {}
        self._occurrences: dict[str, int] = {}
        self._given_up: dict[str, Effect] = {}

    # -- the journal's side

    def record(self, ask: Ask) -> None:
        """The log holds this ask; all of them are told before the first input."""
        if ask.name == SEGMENT and ask.kind == "emit":
            self.segment = int(ask.key.partition("/")[2])
        else:
            self.book.record(ask)

    def wants(self, ask_id: str) -> bool:
        """Whether the outcome that an input only points to is needed to feed it."""
        effect = self._effects.get(ask_id)
        if effect is None:
            return self.book.is_unmade(ask_id)
        return effect.undo is not None or (effect.future is not None and not effect.future.done())

    def of(self, ask_id: str) -> Ask:
        """The ask of this id, which the agent or its journal has made."""
        effect = self._effects.get(ask_id)
        return effect.ask if effect is not None else self.book.unmade(ask_id)

    @property
    def has_urgent(self) -> bool:
        """Whether there is something to send at once: asks but for local ones, or what was given up."""
        return bool(self._given_up) or self.book.has_urgent

    @property
    def has_news(self) -> bool:
        """Whether an event or a child run is yet to be sent, now that the agent has ended."""
        return self.book.has_lasting

    def take(self) -> list[Effect]:
        """What is to be recorded now, in order; none of it is given again."""
        return self.book.take()

    def take_given_up(self) -> list[Effect]:
        """Recorded asks that the agent does not want any more and whose outcome was not seen."""
        found = list(self._given_up.values())
        self._given_up.clear()
        return found

    def still_open(self) -> list[Effect]:
        """Recorded asks without an outcome that end with the run: all but those of runs that were spawned."""
        return [
            effect
            for effect in self._effects.values()
            if effect.recorded and not effect.settled and effect.ask.kind not in ("spawn", "emit", "local")
        ]

    def next_segment(self) -> Ask:
        """The first entry of the log with which the run continues as new."""
        key = f"{SEGMENT}/{self.segment + 1}"
        return Ask(id=step_id(self._run_id, key), key=key, kind="emit", name=SEGMENT, after=0)

    # -- the agent's side

    def make(
        self,
        kind: AskKind,
        name: str,
        *,
        told_by: Any,
        awaited: bool = True,
        members: int | None = None,
        question: str | None = None,
        answer_schema: dict[str, Any] | None = None,
        undoes: str | None = None,
        **more: Any,
    ) -> Effect:
        """The agent asks for something; `told_by` is what tells it from other asks of that name."""
        told = canonical_of_jsonable(told_by) if kind in _ENCODED else canonical(told_by)
        stem = f"{name}/{short_hash(told)}"
        occurrence = self._occurrences.get(stem, 0)
        self._occurrences[stem] = occurrence + 1
        key = step_key(name, stem[len(name) + 1 :], occurrence)
        if self.segment:
            # A run that continued as new asks for the same again, and means another step.
            key = f"{self.segment}:{key}"
        ask = Ask(
            id=step_id(self._run_id, key),
            key=key,
            kind=kind,
            name=name,
            after=self.seen,
            members=members,
            question=question,
            answer_schema=answer_schema,
            undoes=undoes,
        )
        self.made += 1
        if self.tail is not None:
            self.tail.asked(ask)
        effect = Effect(ask, self.made, **more)
        if awaited:
            effect.future = EffectFuture(loop=self._loop, given_up=lambda: self._give_up(effect))
            self.pending += 1
        self._enter(effect)
        return effect

    def _enter(self, effect: Effect) -> None:
        ask_id = effect.ask.id
        self._effects[ask_id] = effect
        self.book.enter(effect)
        if self.book.mismatch is not None:
            # Not thrown through the agent, which might catch it: nothing of it runs any more.
            self._loop.halt()
            return
        if effect.ask.kind == "local":
            self.open_locals[ask_id] = effect
        if effect.undo is not None:
            self.undoable.append(effect)
        if ask_id in self._early:
            told, members = self._early.pop(ask_id)
            self._loop.call_soon(self._settle, effect, told, members)

    async def ended(self, effect: Effect) -> None:
        """The outcome of the ask was seen; it is called off if nobody has done so."""
        assert effect.future is not None
        effect.future.cancel()
        if not effect.settled:
            effect.end = self._loop.create_future()
            await effect.end

    def give_up(self, effect: Effect) -> None:
        """The agent does not want the outcome of a run that it spawned."""
        if effect.future is not None:
            effect.future.cancel()

    def _give_up(self, effect: Effect) -> None:
        self.pending -= 1
        effect.cancelled_at = self.made
        self.open_locals.pop(effect.ask.id, None)
        if effect.recorded and not effect.settled and effect.ask.kind != "local":
            self._given_up[effect.ask.id] = effect

    # -- outcomes

    def settle(self, told: Told, members: Sequence[Result]) -> None:
        """The ask has its outcome; the agent goes on with it once its loop runs."""
        effect = self._effects.get(told.id)
        if effect is not None:
            self._settle(effect, told, members)
        elif self.book.is_unmade(told.id):
            # A newer version of the agent asks for something else first.
            self._early[told.id] = (told, members)

    def _settle(self, effect: Effect, told: Told, members: Sequence[Result]) -> None:
        if effect.settled:
            return
        effect.settled = True
        self.open_locals.pop(effect.ask.id, None)
        self._given_up.pop(effect.ask.id, None)
        if isinstance(told, Joined):
            effect.untouched = frozenset(at for at, member in enumerate(members) if _never_ran(member))
        elif isinstance(told, Result) and _never_ran(told):
            effect.untouched = frozenset((0,))
        if effect.end is not None and not effect.end.done():
            effect.end.set_result(None)
        future = effect.future
        if future is None or future.done():
            return
        self.pending -= 1
        try:
            if isinstance(told, Joined):
                future.set_result(members)
            elif isinstance(told, Result) and told.status != "ok":
                future.set_exception(error_of(told, effect.ask))
            else:
                future.set_result(told.value if effect.read is None else effect.read(told.value))
        except (AgentqError, ValueError) as error:
            future.set_exception(error)
        if effect.ask.kind == "spawn":
            # Whoever spawns a run need not ask how it ended; asyncio shall not complain of it.
            future.exception()


def _never_ran(result: Result) -> bool:
    return result.status == "revoked" and not result.ran
