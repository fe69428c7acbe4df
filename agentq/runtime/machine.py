"""One run's coroutine as a machine: log entries in, asks and an outcome out. No Redis, no clock, no threads.

It owns the coroutine, its loop and its signals. What was asked for stands in its `asks`; it must not know who carries
that out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from agentq.core.errors import AgentqError, BudgetExceeded, RunCancelled, RunError, TurnTimeout, UsageError
from agentq.core.journal import Answer, Ask, Cancel, Entry, Joined, Result, Resume, Signal, Start
from agentq.core.zombies import NONE, Tail, Verdict, Zombies, decide_zombie
from agentq.engine.exits import failure_by, is_ordered
from agentq.runtime.asks import Asks
from agentq.runtime.leaving import leave
from agentq.runtime.loop import DeterministicLoop, Task
from agentq.runtime.outcomes import Identity, Outcome
from agentq.runtime.overrun import Overran
from agentq.runtime.run import ContinueAsNew, Run, RunRandom
from agentq.runtime.signals import Mailbox, Mailboxes
from agentq.runtime.undo import take_back

logger = logging.getLogger(__name__)

CANCEL_PATIENCE_S: Final = 60.0
"""After a cancel the agent has so long to leave. No setting: a replay elsewhere must come to the same moment."""


class Machine:
    """One run at one worker.

    First `record` tells all recorded asks, then `feed` takes each input in the order of the log and runs the
    coroutine to rest. Raises ReplayMismatch when the agent's code does not fit what was recorded.

    Attributes:
        asks: what the agent has asked for.
        outcome: None until the agent ends.
    """

    def __init__(
        self,
        body: Callable[[Run], Coroutine[Any, Any, Any]],
        identity: Identity,
        *,
        compute_s: float = 60.0,
        zombies: Zombies = NONE,
        write_result: Callable[[Any], Any] = lambda value: value,
        write_arguments: Callable[[Sequence[Any], dict[str, Any]], Any] = lambda args, kwargs: (args, kwargs),
    ) -> None:
        self.identity = identity
        self.loop = DeterministicLoop()
        self.asks = Asks(identity.run_id, self.loop)
        self.outcome: Outcome | None = None
        self.dropped = False
        self.random = RunRandom()
        self._zombies = zombies
        if zombies.counts:
            self.asks.tail = Tail()
        self._body = body
        self._compute_s = compute_s
        self._write_result = write_result
        self._write_arguments = write_arguments
        self._mailboxes = Mailboxes()
        self._undoing = False
        self._cancel: Cancel | None = None
        self._stuck: AgentqError | None = None
        self._begin = Start()
        self._main: Task[Any] | None = None
        self.run = Run(self)

    # -- in

    @property
    def seen(self) -> int:
        """Number of inputs fed."""
        return self.asks.seen

    def record(self, ask: Ask) -> None:
        """The log holds this ask; all of them are told before the first input."""
        self.asks.record(ask)

    def wants(self, entry: Entry) -> bool:
        """Whether the outcome that the entry only points to is needed to feed it."""
        return isinstance(entry, Result | Joined) and self.asks.wants(entry.id)

    def feed(self, entry: Entry, members: Sequence[Result] = ()) -> None:
        """The agent has seen the input, and rests. A `Joined` comes with the outcomes of its members."""
        self.asks.seen += 1
        tail = self.asks.tail
        if entry.__class__ is Start:
            if tail is not None:
                tail.saw(entry)
            self._start(entry)
        else:
            # What was due at the input's time comes first: the order in which a loop that never stops sees them.
            due = self.loop.advance((getattr(entry, "t", None) or 0) - self._begin.lag_at(self.seen))
            if due:
                if tail is not None:
                    tail.waited()
                self._run_to_rest()
            if self.outcome is None:
                if tail is not None:
                    tail.saw(entry, members)
                self._apply(entry, members)
                self._run_to_rest()
        self.asks.book.check_rest(self.seen)
        if self.outcome is not None:
            self.asks.book.check_end()

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
    def verdict(self) -> Verdict | None:
        """Why the run is to be stopped in front of what it asks for now; None when it may go on.

        What takes back what it has done is never stopped, nor what a cancel has it do.
        """
        tail = self.asks.tail
        if tail is None or self._undoing or self._cancel is not None:
            return None
        return decide_zombie(tail, self._zombies)

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

    # -- the coroutine

    def _start(self, entry: Entry) -> None:
        assert isinstance(entry, Start)
        self._begin = entry
        self.asks.book.strict = entry.version == self.identity.version
        self.random.seed(f"{entry.origin or self.identity.run_id}/{self.asks.segment}")
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

    def overran(self, seconds: float) -> TurnTimeout:
        """The error of an agent that computes for longer than it may between two awaits."""
        return TurnTimeout(step=self.identity.agent, step_id=self.identity.run_id, seconds=seconds)

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
        await take_back(self.asks, self.asks.undoable, failure)
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
            await take_back(self.asks, self.asks.undoable, failure)
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
        if self.outcome is not None or self.asks.book.mismatch is not None or main is None:
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
            self.asks.pending == 0
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
        allowed = self.asks.tail.allowed if self.asks.tail is not None else frozenset()
        word = (Resume(t=self.loop.now_ms, allow=tuple(sorted(allowed))),) if allowed else ()
        return (self.asks.next_segment(), *word, *self._mailboxes.take_all())

    # -- inputs

    def _apply(self, entry: Entry, members: Sequence[Result]) -> None:
        match entry:
            case Result() | Joined() | Answer():
                self.asks.settle(entry, members)
            case Signal():
                self._mailboxes.put(self.seen, entry)
            case Cancel():
                self._cancel = entry
                if self._main is not None and not self._undoing:
                    self._main.cancel(entry.why)
                    self.loop.call_later(CANCEL_PATIENCE_S, self._leave)
            case _:
                pass


def _tasks_of(loop: DeterministicLoop) -> list[Task[Any]]:
    return [task for task in asyncio.all_tasks(loop) if isinstance(task, Task)]
