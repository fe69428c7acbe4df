"""A machine with a hand on its inputs: what a test tells it, what it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agentq.core.errors import StepFailed
from agentq.core.journal import Answer, Ask, Cancel, Entry, Joined, Result, Signal, Start, Tick, ok
from agentq.runtime.effects import Effect
from agentq.runtime.machine import Machine
from agentq.runtime.outcomes import Outcome
from tests.properties.replay_world import START_MS, Body, FakeStep, machine_of


def _add(a: int, b: int) -> int:
    return a + b


def _shout(text: str) -> str:
    return text.upper()


add: Any = FakeStep(_add, name="add")
shout: Any = FakeStep(_shout, name="shout")


class Script:
    """One run: inputs told by hand, the log that they and the asks make.

    Attributes:
        log: all entries, asks where a worker would have recorded them.
        asked: the asks that were taken so far, in order.
    """

    def __init__(self, body: Body, *, version: str = "1", start: bool = True) -> None:
        self.body = body
        self.machine: Machine = machine_of(body, version=version)
        self.log: list[Entry] = []
        self.asked: list[Effect] = []
        self.now_ms = START_MS
        if start:
            self.tell(Start(version=version))

    def tell(self, entry: Any, *, after_ms: int = 1, members: Sequence[Result] = (), take: bool = True) -> Script:
        """The input comes `after_ms` later, and what is new is recorded (unless `take` is off)."""
        self.now_ms += after_ms
        stamped: Entry = replace(entry, t=self.now_ms)
        self.log.append(stamped)
        self.machine.feed(stamped, members)
        return self.take() if take else self

    def take(self) -> Script:
        """What is new is recorded."""
        new = self.machine.asks.take()
        self.asked += new
        self.log += [effect.ask for effect in new]
        return self

    def finish(self, name: str, value: Any, **more: Any) -> Script:
        """The first open ask of this name succeeds with the value."""
        return self.tell(ok(self.open(name).ask.id, value), **more)

    def fail(self, name: str, message: str = "broken") -> Script:
        """The first open ask of this name fails."""
        ask = self.open(name).ask
        error = StepFailed(step=name, step_id=ask.id, error_type="ValueError", message=message)
        return self.tell(Result(id=ask.id, status="error", value=error.to_wire()))

    def revoke(self, name: str) -> Script:
        """The first open ask of this name was called off before it began."""
        return self.tell(Result(id=self.open(name).ask.id, status="revoked"))

    def join(self, name: str, members: Sequence[Result], *, at: tuple[int, ...] | None = None) -> Script:
        """All members of the first open map of this name have arrived, or those at these places are enough."""
        return self.tell(Joined(id=self.open(name).ask.id, at=at), members=members)

    def answer(self, value: Any) -> Script:
        """The first open question is answered."""
        return self.tell(Answer(id=self.open("ask").ask.id, value=value))

    def signal(self, name: str, payload: Any = None) -> Script:
        """A signal comes."""
        return self.tell(Signal(name=name, id=str(len(self.log)), payload=payload))

    def cancel(self, why: str = "enough") -> Script:
        """Somebody cancels the run."""
        return self.tell(Cancel(why=why))

    def pass_to(self, seconds: float) -> Script:
        """So many seconds later a timer's tick comes."""
        return self.tell(Tick(), after_ms=int(seconds * 1000))

    def open(self, name: str) -> Effect:
        """The first ask of this name without an outcome."""
        return next(each for each in self.asked if each.ask.name == name and not each.settled)

    @property
    def names(self) -> list[str]:
        """Names of all recorded asks, in order."""
        return [effect.ask.name for effect in self.asked]

    @property
    def outcome(self) -> Outcome:
        """How the run has ended."""
        assert self.machine.outcome is not None, f"still open: {self.names}"
        return self.machine.outcome

    @property
    def value(self) -> Any:
        """What the agent has returned."""
        assert self.outcome.kind == "value", self.outcome.error
        return self.outcome.value


def replayed(script: Script, body: Body | None = None, *, version: str = "1") -> Script:
    """Another machine that has seen the script's log, with the same body or another one."""
    other = Script(body if body is not None else script.body, version=version, start=False)
    for entry in script.log:
        if isinstance(entry, Ask):
            other.machine.record(entry)
    for entry in script.log:
        if not isinstance(entry, Ask) and other.machine.outcome is None:
            other.machine.feed(entry)
    other.now_ms, other.log = script.now_ms, list(script.log)
    other.asked = [effect for effect in other.machine.asks._effects.values() if effect.recorded]
    return other.take()
