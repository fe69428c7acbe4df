"""A world in one process for agents: a log, a clock, and a scheduler that delivers, kills and parks as it pleases."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any

from agentq.core.errors import StepFailed
from agentq.core.journal import Answer, Ask, Cancel, Entry, Joined, Result, Signal, Start, Tick, decode, encode, ok
from agentq.core.schema import CallSchema
from agentq.engine.binding import TurnEnd
from agentq.runtime.effects import Batch, Effect
from agentq.runtime.local_calls import LocalCalls, outcome_of
from agentq.runtime.machine import Machine
from agentq.runtime.outcomes import Identity
from agentq.runtime.relay import OwnThread
from agentq.runtime.run import Run
from agentq.runtime.turn import Turn

Told = Start | Result | Joined | Answer | Signal | Tick | Cancel
Body = Callable[[Run], Coroutine[Any, Any, Any]]

RUN_ID = "0c9d3c7e-6a54-4b57-9c7e-2f1d7c1f6a11"
START_MS = 1_700_000_000_000


class FakeStep:
    """What a `Run` asks of a step, without Celery."""

    kind = "step"

    def __init__(self, function: Callable[..., Any], *, name: str | None = None, undo: Any = None) -> None:
        self.function = function
        self.name = name if name is not None else function.__name__
        self.schema = CallSchema.of(function, name=self.name)
        self.agentq = SimpleNamespace(undo=undo)


class Killed(BaseException):
    """The worker is gone: nothing after this moment has happened."""


class ScheduledCalls(LocalCalls):
    """Local calls that end when the world says so."""

    def __init__(self, world: World) -> None:
        super().__init__(world.perform)
        self._world = world

    def start(self, effect: Effect) -> None:
        self._under_way.setdefault(effect.ask.id, effect)

    def wait(self, seconds: float) -> list[Result]:
        self._world.pass_time(seconds)
        found = []
        for effect in self._world.some(list(self._under_way.values())):
            del self._under_way[effect.ask.id]
            found.append(outcome_of(effect, self._perform))
        return found

    def close(self) -> None:
        self._under_way.clear()


class World:
    """The log and the clock of one run, and what its steps are about to answer; a `TurnPort` for its turns.

    Attributes:
        sent: ids of what was dispatched, in order; an id twice is a step sent twice.
        said: ids of the events that were emitted, in order.
        kills: how many more times a worker may die.
    """

    def __init__(
        self, rng: Random, *, kills: int = 0, signals: Sequence[Signal | Cancel] = (), version: str = "1"
    ) -> None:
        self.rng = rng
        self.run_id = RUN_ID
        self.kills = kills
        self.clock_ms = START_MS
        self.log: list[bytes] = []
        self.sent: list[str] = []
        self.turns = 0
        self.due_ms: int | None = None
        self.said: list[str] = []
        self._members: dict[str, list[Result]] = {}
        self._answers: list[Result | Joined | Answer] = []
        self._signals = list(signals)
        self.tell(Start(version=version))

    # -- driving

    def live(self, body: Body, *, most_turns: int = 400) -> TurnEnd:
        """Run turn after turn, each by a new machine, until the run ends."""
        while self.turns < most_turns:
            self.turns += 1
            try:
                end = self.turn(body)
            except Killed:
                continue
            if end.kind != "parked":
                return end
            self.wake()
        raise AssertionError(f"the run has not ended after {most_turns} turns: {self.log!r}")

    def turn(self, body: Body) -> TurnEnd:
        linger = self.rng.choice((0.0, 0.5))
        clock = lambda: self.clock_ms / 1000  # noqa: E731
        return Turn(
            self, machine_of(body, run_id=self.run_id), linger=linger, local_calls=ScheduledCalls(self), clock=clock
        ).run()

    def tell(self, entry: Told) -> None:
        """An input is appended."""
        self.clock_ms += self.rng.choice((0, 0, 1, 7))
        self.log.append(encode(replace(entry, t=self.clock_ms)).encode())

    def wake(self) -> None:
        """Something comes to a parked run: the scheduler's choice, at least one input."""
        while not self.deliver():
            if self.due_ms is not None and (not self._answers or self.rng.random() < 0.3):
                self.clock_ms = max(self.clock_ms, self.due_ms)
                self.tell(Tick())
                return
            if not (self.due_ms or self._answers or self._signals):
                raise AssertionError(f"parked for ever: {self.log!r}")

    def deliver(self) -> bool:
        """Some of what is under way arrives, in any order; False when nothing does."""
        arrived = self.some(self._answers)
        for result in arrived:
            self._answers.remove(result)
            self.tell(result)
        if self._signals and self.rng.random() < 0.3:
            self.tell(self._signals.pop(0))
            return True
        return bool(arrived)

    def some(self, values: list[Any]) -> list[Any]:
        """Some of the values, in any order."""
        if not values:
            return []
        return self.rng.sample(values, self.rng.randint(0, len(values)))

    def pass_time(self, seconds: float) -> None:
        """At most so many seconds pass."""
        self.clock_ms += self.rng.randint(0, max(0, math.ceil(seconds * 1000)))
        self.maybe_kill()

    def maybe_kill(self) -> None:
        """The worker may die here."""
        if self.kills and self.rng.random() < 0.15:
            self.kills -= 1
            raise Killed

    # -- the port

    def read(self, seen: int) -> Sequence[bytes]:
        self.maybe_kill()
        return self.log[seen:]

    def send(self, batch: Batch) -> Sequence[bytes]:
        self.maybe_kill()
        if self.rng.random() < 0.3:
            self.deliver()
        for effect in batch.asks:
            self.log.append(encode(effect.ask).encode())
        for effect in batch.dispatch:
            self.dispatch(effect)
        for result in batch.results:
            self.tell(result)
        if batch.tick:
            self.tell(Tick())
        self.maybe_kill()
        return self.log[batch.seen :]

    def dispatch(self, effect: Effect) -> None:
        """The step is sent, and will answer some time."""
        ask = effect.ask
        if ask.kind == "ask":
            self._answers.append(Answer(id=ask.id, value=len(ask.question or "")))
        if ask.kind in ("local", "emit", "ask"):
            self.said += [ask.id] if ask.kind == "emit" else []
            return
        self.sent.append(ask.id)
        if ask.kind == "map":
            self._members[ask.id] = [_outcome(effect, ask.id, call) for call in effect.calls]
            self._answers.append(Joined(id=ask.id))
        else:
            self._answers.append(_outcome(effect, ask.id, effect.calls[0]))

    def park(self, *, seen: int, due_ms: int | None, waits: Sequence[str], rest_ms: int) -> bool:
        self.maybe_kill()
        if len(self.log) > seen:
            return False
        self.due_ms = due_ms
        return True

    def wait(self, seconds: float) -> None:
        if not self.deliver():
            self.pass_time(seconds)

    def is_slot_wanted(self, beyond: int = 0) -> bool:
        return self.rng.random() < 0.2

    def load_result(self, ask_id: str) -> Any:
        raise AssertionError("no result of these tests is large")

    def load_members(self, ask: Ask, places: Sequence[int] | None) -> Sequence[Result]:
        return self._members[ask.id]

    def restart(self, *, seen: int, arguments: Any, carry: Sequence[Entry], calls_off: Sequence[Effect]) -> None:
        late = self.log[seen:]
        self.log.clear()
        self.tell(Start(version="1"))
        self.log.extend(encode(entry).encode() for entry in carry)
        self.log.extend(late)

    def perform(self, effect: Effect) -> Any:
        args, kwargs = effect.calls[0]
        return effect.target(*args, **kwargs)

    def own_thread(self) -> OwnThread | None:
        return None

    def forsake(self, give_back: bool) -> None:
        raise AssertionError("no local call of these tests is without an end")

    def now_ms(self) -> int:
        return self.clock_ms

    def allow(self, what: str) -> None:
        pass

    def ids_of(self, effects: Sequence[Effect]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return (), tuple(effect.ask.id for effect in effects)


def machine_of(body: Body, *, version: str = "1", run_id: str = RUN_ID) -> Machine:
    """A machine for the body, as version 1 of the agent `subject`."""
    return Machine(body, Identity(run_id=run_id, agent="subject", version=version))


def _outcome(effect: Effect, step_id: str, call: Any) -> Result:
    args, kwargs = call
    try:
        return ok(step_id, effect.target.function(*args, **kwargs))
    except Exception as error:
        name, words = effect.ask.name, str(error)
        failed = StepFailed(step=name, step_id=step_id, error_type=type(error).__name__, message=words)
        return Result(id=step_id, status="error", value=failed.to_wire())


def undisturbed(body: Body, world: World) -> tuple[Machine, list[Effect]]:
    """A machine that saw the log's inputs, one by one, without knowing what was asked before; and all that it asked."""
    machine = machine_of(body, run_id=world.run_id)
    asked: dict[str, Effect] = {}
    enter = machine.asks._enter

    def entered(effect: Effect) -> None:
        assert effect.ask.id not in asked, "one id for two asks"
        asked[effect.ask.id] = effect
        enter(effect)

    machine.asks._enter = entered  # type: ignore[method-assign]
    feed_all(machine, world)
    return machine, list(asked.values())


def feed_all(machine: Machine, world: World) -> None:
    """The machine has seen all inputs of the world's log."""
    for entry in map(decode, world.log):
        if not isinstance(entry, Ask) and machine.outcome is None:
            members = world._members.get(entry.id, ()) if isinstance(entry, Joined) else ()
            machine.feed(entry, members)
