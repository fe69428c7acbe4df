"""What an agent asks of the world: the journal's ask, and what is needed to carry it out and to read the outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentq.core.journal import Ask, Result
from agentq.core.zombies import Verdict
from agentq.runtime.loop import Future

if TYPE_CHECKING:
    from agentq.runtime.loop import DeterministicLoop

Call = tuple[list[Any], dict[str, Any]]
"""Encoded arguments: what JSON can hold."""


@dataclass(slots=True, eq=False)
class Effect:
    """One ask of a run.

    Attributes:
        ask: what the journal says of it.
        made: how many asks the run had made with it.
        future: what the agent awaits; None where there is nothing to await.
        target: a step, an agent or a canvas signature; for a local call the function.
        calls: arguments of a call, or of each member of a map; for a local call the arguments as they were given.
        fields: what an emitted event holds.
        need: how many members of a map must succeed; None for all.
        read: makes the typed value of the JSON-able one.
        write: makes the JSON-able result of a local call.
        undo: takes back what this did, with its arguments; None where there is nothing to take back.
        recorded: whether the journal holds it.
        cancelled_at: how many asks the run had made when the agent cancelled it; None if it did not.
        settled: whether its outcome was seen.
        end: set when it is, where the agent gave up `future` and its undo waits for the end.
        untouched: members (0 alone for a call) that never started, so that there is nothing to undo.
    """

    ask: Ask
    made: int
    future: EffectFuture | None = None
    target: Any = None
    calls: Sequence[Any] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    need: int | None = None
    read: Callable[[Any], Any] | None = None
    write: Callable[[Any], Any] | None = None
    undo: Any = None
    recorded: bool = False
    cancelled_at: int | None = None
    settled: bool = False
    end: Future[None] | None = None
    untouched: frozenset[int] = frozenset()

    @property
    def cancelled(self) -> bool:
        """Whether the agent does not want it any more."""
        return self.cancelled_at is not None

    @property
    def words(self) -> str:
        """How a message names it."""
        return words_of(self.ask)


class EffectFuture(Future[Any]):
    """The future of an ask; tells when the agent gives it up, at that very moment.

    A callback would come later, and then it could not be told which asks were made before and which after.
    """

    def __init__(self, *, loop: DeterministicLoop, given_up: Callable[[], None]) -> None:
        super().__init__(loop=loop)
        self._given_up = given_up

    def cancel(self, msg: Any | None = None) -> bool:
        """The future is cancelled, and so is what it stands for."""
        done = super().cancel(msg)
        if done:
            self._given_up()
        return done


@dataclass(frozen=True, slots=True)
class Batch:
    """What one `send` carries.

    Attributes:
        seen: entries of the log that the turn has read.
        asks: to record, in this order.
        dispatch: those of them whose work is to be sent; the others were given up meanwhile.
        results: of local calls.
        tick: whether the log is to get an entry that only tells the time.
        calls_off: sent or asked before, not wanted any more.
        stop: why the run is a zombie: all is recorded, nothing dispatched, and the run stands still.
        alone: the run waits for the one step in `dispatch` and, timers and signals apart, for nothing else.
    """

    seen: int
    asks: Sequence[Effect] = ()
    dispatch: Sequence[Effect] = ()
    results: Sequence[Result] = ()
    tick: bool = False
    calls_off: Sequence[Effect] = ()
    stop: Verdict | None = None
    alone: bool = False


def words_of(ask: Ask) -> str:
    """How a message names an ask: kind, name and key, by which two that differ are told apart."""
    return f'{ask.kind} "{ask.name}" ({ask.key})'
