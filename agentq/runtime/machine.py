"""One run's coroutine as a machine: log entries in, asks and an outcome out. No Redis, no clock, no threads.

It owns the coroutine, its loop, its signals and its open asks. It must not know who carries out what it asks for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from agentq.core.codec import canonical, short_hash
from agentq.core.errors import AgentqError, BudgetExceeded, RunCancelled, RunError, StepTimeout, UsageError
from agentq.core.ids import step_id, step_key
from agentq.core.journal import Answer, Ask, AskKind, Cancel, Entry, Joined, Result, Signal, Start
from agentq.engine.exits import failure_by, is_ordered
from agentq.runtime.effects import Effect, EffectFuture
from agentq.runtime.leaving import leave
from agentq.runtime.loop import DeterministicLoop, Task
from agentq.runtime.outcomes import Identity, Outcome, error_of
from agentq.runtime.overrun import Overran
from agentq.runtime.replay import Book
from agentq.runtime.run import ContinueAsNew, Run, RunRandom
from agentq.runtime.signals import Mailbox, Mailboxes
from agentq.runtime.undo import take_back

logger = logging.getLogger(__name__)

CANCEL_PATIENCE_S: Final = 60.0
"""After a cancel the agent has so long to leave. No setting: a replay elsewhere must come to the same moment."""

SEGMENT: Final = "segment"
"""Name of the entry that counts how often a run has continued as new; it stands among the first of such a log."""


class Machine:
    """One run at one worker.

    First `record` tells all recorded asks, then `feed` takes each input in the order of the log and runs the
    coroutine to rest. Raises ReplayMismatch when the agent's code does not fit what was recorded.

    Attributes:
        seen: number of inputs fed.
        outcome: None until the agent ends.
        open_locals: local calls that the agent waits for, by id.
    """

    def __init__(
        self,
        body: Callable[[Run], Coroutine[Any, Any, Any]],
        identity: Identity,
        *,
        compute_s: float = 60.0,
        write_result: Callable[[Any], Any] = lambda value: value,
        write_arguments: Callable[[Sequence[Any], dict[str, Any]], Any] = lambda args, kwargs: (args, kwargs),
    ) -> None:
        self.identity = identity
        self.loop = DeterministicLoop()
        self.seen = 0
        self.outcome: Outcome | None = None
        self.open_locals: dict[str, Effect] = {}
        self.dropped = False
        self.segment = 0
        self.random = RunRandom()
        self.made = 0
        self._body = body
        self._compute_s = compute_s
        self._write_result = write_result
        self._write_arguments = write_arguments
        self._book = Book(identity.run_id)
        self._effects: dict[str, Effect] = {}
        self._early: dict[str, tuple[Result | Joined | Answer, Sequence[Result]]] = {}
        self._occurrences: dict[str, int] = {}
        self._mailboxes = Mailboxes()
        self._pending = 0
        self._given_up: dict[str, Effect] = {}
        self._undoable: list[Effect] = []
        self._undoing = False
        self._cancel: Cancel | None = None
        self._stuck: AgentqError | None = None
        self._begin = Start()
        self._main: Task[Any] | None = None
        self.run = Run(self)

    # -- in

    def record(self, ask: Ask) -> None:
        """The log holds this ask; all of them are told before the first input."""
        if ask.name == SEGMENT and ask.kind == "emit":
            self.segment = int(ask.key.partition("/")[2])
        else:
            self._book.record(ask)

    def wants(self, entry: Entry) -> bool:
        """Whether the outcome that the entry only points to is needed to feed it."""
        if not isinstance(entry, Result | Joined):
            return False
        effect = self._effects.get(entry.id)
        if effect is None:
            return self._book.is_unmade(entry.id)
        return effect.undo is not None or (effect.future is not None and not effect.future.done())

    def feed(self, entry: Entry, members: Sequence[Result] = ()) -> None:
        """The agent has seen the input, and rests. A `Joined` comes with the outcomes of its members."""
        self.seen += 1
        if entry.__class__ is Start:
            self._start(entry)
        else:
            # What was due at the input's time comes first: the order in which a loop that never stops sees them.
            self.loop.advance((getattr(entry, "t", None) or 0) - self._begin.lag_at(self.seen))
            self._run_to_rest()
            if self.outcome is None:
                self._apply(entry, members)
                self._run_to_rest()
        self._book.check_rest(self.seen)
        if self.outcome is not None:
            self._book.check_end()

    # -- out

    @property
    def next_due_ms(self) -> int | None:
        """Server time of the next timer; None when none is set."""
        due = self.loop.next_due_ms
        return None if due is None else due + self._begin.lag_at(self.seen + 1)

    @property
    def waits(self) -> list[str]:
        """Names of the signals that the agent waits for."""
        return self._mailboxes.waits

    @property
    def has_urgent(self) -> bool:
        """Whether there is something to send at once: asks but for local ones, or what was given up."""
        return bool(self._given_up) or self._book.has_urgent

    @property
    def has_news(self) -> bool:
        """Whether an event or a child run is yet to be sent, now that the agent has ended."""
        return self._book.has_lasting

    def ask_of(self, ask_id: str) -> Ask:
        """The ask of this id, which the agent or its journal has made."""
        effect = self._effects.get(ask_id)
        return effect.ask if effect is not None else self._book.unmade(ask_id)

    def take_asks(self) -> list[Effect]:
        """What is to be recorded now, in order; none of it is given again."""
        return self._book.take()

    def take_given_up(self) -> list[Effect]:
        """Recorded asks that the agent does not want any more and whose outcome was not seen."""
        found = list(self._given_up.values())
        self._given_up.clear()
        return found

    def open_effects(self) -> list[Effect]:
        """Recorded asks without an outcome that end with the run: all but those of runs that were spawned."""
        return [
            effect
            for effect in self._effects.values()
            if effect.recorded and not effect.settled and effect.ask.kind not in ("spawn", "emit", "local")
        ]

    def drop(self) -> None:
        """The coroutine is gone: its `finally` blocks have run, and could do nothing more to the run."""
        if self.dropped:
            return
        self.dropped = True
        with self.loop.current():
            for task in sorted(_tasks_of(self.loop), key=lambda each: each.number):
                leave(task)
        self.loop.close()

    # -- for Run

    def now(self) -> datetime:
        """The time of the last input."""
        return datetime.fromtimestamp((self.loop.now_ms + self._begin.lag_at(self.seen)) / 1000, UTC)

    def mailbox(self, name: str) -> Mailbox:
        """The signals of this name."""
        return self._mailboxes.named(name)

    def is_main(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether the task is the one that runs the agent's function."""
        return task is self._main

    def write_arguments(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The arguments of the agent itself, validated and encoded."""
        return self._write_arguments(args, kwargs)

    def ask(
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
        stem = f"{name}/{short_hash(canonical(told_by))}"
        occurrence = self._occurrences.get(stem, 0)
        self._occurrences[stem] = occurrence + 1
        key = step_key(name, stem[len(name) + 1 :], occurrence)
        if self.segment:
            # A run that continued as new asks for the same again, and means another step.
            key = f"{self.segment}:{key}"
        ask = Ask(
            id=step_id(self.identity.run_id, key),
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
        effect = Effect(ask, self.made, **more)
        if awaited:
            effect.future = EffectFuture(loop=self.loop, given_up=lambda: self._give_up(effect))
            self._pending += 1
        self._enter(effect)
        return effect

    def _enter(self, effect: Effect) -> None:
        ask_id = effect.ask.id
        self._effects[ask_id] = effect
        self._book.enter(effect)
        if self._book.mismatch is not None:
            # Not thrown through the agent, which might catch it: nothing of it runs any more.
            self.loop.halt()
            return
        if effect.ask.kind == "local":
            self.open_locals[ask_id] = effect
        if effect.undo is not None:
            self._undoable.append(effect)
        if ask_id in self._early:
            entry, members = self._early.pop(ask_id)
            self.loop.call_soon(self._settle, effect, entry, members)

    async def ended(self, effect: Effect) -> None:
        """The outcome of the ask was seen; it is called off if nobody has done so."""
        assert effect.future is not None
        effect.future.cancel()
        if not effect.settled:
            effect.end = self.loop.create_future()
            await effect.end

    def give_up(self, effect: Effect) -> None:
        """The agent does not want the outcome of a run that it spawned."""
        if effect.future is not None:
            effect.future.cancel()

    def _give_up(self, effect: Effect) -> None:
        self._pending -= 1
        effect.cancelled_at = self.made
        self.open_locals.pop(effect.ask.id, None)
        if effect.recorded and not effect.settled and effect.ask.kind != "local":
            self._given_up[effect.ask.id] = effect

    # -- the coroutine

    def _start(self, entry: Entry) -> None:
        assert isinstance(entry, Start)
        self._begin = entry
        self._book.strict = entry.version == self.identity.version
        self.random.seed(f"{entry.origin or self.identity.run_id}/{self.segment}")
        self.loop.advance(entry.t or 0)
        self._main = self.loop.create_task(self._root(), name=self.identity.agent)
        if self.identity.wall_end_ms is not None:
            end_ms = self.identity.wall_end_ms - sum(lag for _, lag in entry.lags)
            self.loop.call_at(end_ms / 1000, self._overrun)
        self._run_to_rest()

    def _overrun(self) -> None:
        """The budget's time is over, whatever the agent waits for."""
        if self._main is None or self._main.done() or self._undoing or self._stuck is not None:
            return
        wall = self.identity.wall
        self._stuck = BudgetExceeded(limit_name="wall", limit=wall, used=wall)
        self._main.cancel()

    def overran(self, seconds: float) -> StepTimeout:
        """The error of an agent that computes for longer than it may between two awaits."""
        return StepTimeout(step=self.identity.agent, step_id=self.identity.run_id, seconds=seconds)

    def _leave(self) -> None:
        """The agent was cancelled long ago and goes on: it is left where it is, and what it did is taken back."""
        main = self._main
        if main is None or main.done() or self._undoing:
            return
        logger.warning("agent_left run=%s: it did not end when it was cancelled", self.identity.run_id)
        self.dropped = True
        leave(main)
        self.dropped = False
        # What it waited for wakes the task all the same, which then has nothing to go on with.
        main.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._main = self.loop.create_task(self._left(), name=self.identity.agent)

    async def _left(self) -> None:
        self._undoing = True
        failure = asyncio.CancelledError()
        await take_back(self, self._undoable, failure)
        raise failure

    async def _root(self) -> Any:
        try:
            return self._write_result(await self._body(self.run))
        except (ContinueAsNew, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if self.dropped or is_ordered(error):
                raise
            failure = self._failure_of(error)
            self._undoing = True
            await take_back(self, self._undoable, failure)
            if failure is error:
                raise
            raise failure from (None if failure is self._stuck else error)

    def _failure_of(self, error: BaseException) -> BaseException:
        if isinstance(error, Overran):
            return self.overran(self._compute_s)
        if isinstance(error, asyncio.CancelledError):
            return self._stuck if self._cancel is None and self._stuck is not None else error
        if isinstance(error, Exception):
            return error
        return failure_by(error, step=self.identity.agent, step_id=self.identity.run_id)

    def _run_to_rest(self) -> None:
        self.loop.run_to_rest()
        main = self._main
        if self.outcome is not None or self._book.mismatch is not None or main is None:
            return
        if not main.done() and self._is_stuck():
            self._stuck = UsageError(
                f"Agent {self.identity.agent!r} waits for something that nothing can bring: it has no call, timer, "
                "question or signal open. A future, event or queue of its own that nobody sets stays as it is."
            )
            main.cancel()
            self.loop.run_to_rest()
        if main.done():
            self.outcome = self._outcome(main)

    def _is_stuck(self) -> bool:
        return (
            self._pending == 0
            and self._stuck is None
            and not self._undoing
            and self.loop.next_due_ms is None
            and not self._mailboxes.waits
        )

    def _outcome(self, main: Task[Any]) -> Outcome:
        if main.cancelled():
            if self._cancel is not None:
                why = self._cancel.why
                return Outcome("cancelled", error=RunCancelled(run_id=self.identity.run_id, why=why))
            return Outcome("error", error=RunError(f"Agent {self.identity.agent!r} cancelled itself."))
        error = main.exception()
        if isinstance(error, ContinueAsNew):
            return Outcome("restart", value=error.arguments, carry=self._carried())
        if error is not None:
            return Outcome("error", error=error)
        return Outcome("value", value=main.result())

    def _carried(self) -> tuple[Entry, ...]:
        number = self.segment + 1
        mark = Ask(
            id=step_id(self.identity.run_id, f"{SEGMENT}/{number}"),
            key=f"{SEGMENT}/{number}",
            kind="emit",
            name=SEGMENT,
            after=0,
        )
        return (mark, *self._mailboxes.take_all())

    # -- inputs

    def _apply(self, entry: Entry, members: Sequence[Result]) -> None:
        match entry:
            case Result() | Joined() | Answer():
                effect = self._effects.get(entry.id)
                if effect is not None:
                    self._settle(effect, entry, members)
                elif self._book.is_unmade(entry.id):
                    # A newer version of the agent asks for something else first.
                    self._early[entry.id] = (entry, members)
            case Signal():
                self._mailboxes.put(self.seen, entry)
            case Cancel():
                self._cancel = entry
                if self._main is not None and not self._undoing:
                    self._main.cancel(entry.why)
                    self.loop.call_later(CANCEL_PATIENCE_S, self._leave)
            case _:
                pass

    def _settle(self, effect: Effect, entry: Result | Joined | Answer, members: Sequence[Result]) -> None:
        if effect.settled:
            return
        effect.settled = True
        self.open_locals.pop(effect.ask.id, None)
        self._given_up.pop(effect.ask.id, None)
        if isinstance(entry, Joined):
            effect.untouched = frozenset(at for at, member in enumerate(members) if _never_ran(member))
        elif isinstance(entry, Result) and _never_ran(entry):
            effect.untouched = frozenset((0,))
        if effect.end is not None and not effect.end.done():
            effect.end.set_result(None)
        future = effect.future
        if future is None or future.done():
            return
        self._pending -= 1
        try:
            if isinstance(entry, Joined):
                future.set_result(members)
            elif isinstance(entry, Result) and entry.status != "ok":
                future.set_exception(error_of(entry, effect.ask))
            else:
                future.set_result(entry.value if effect.read is None else effect.read(entry.value))
        except (AgentqError, ValueError) as error:
            future.set_exception(error)
        if effect.ask.kind == "spawn":
            # Whoever spawns a run need not ask how it ended; asyncio shall not complain of it.
            future.exception()


def _never_ran(result: Result) -> bool:
    return result.status == "revoked" and not result.ran


def _tasks_of(loop: DeterministicLoop) -> list[Task[Any]]:
    return [task for task in asyncio.all_tasks(loop) if isinstance(task, Task)]
