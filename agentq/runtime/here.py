"""A run in this process: no server, no worker; steps run in place one by one, and waiting takes no time."""

from __future__ import annotations

import inspect
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentq.core.codec import to_jsonable
from agentq.core.errors import UsageError
from agentq.core.ids import new_run_id, step_id
from agentq.core.journal import Answer, Ask, Entry, Joined, Result, Signal, Start, Tick, decode, encode
from agentq.core.retry import changed_arguments, decide_retry
from agentq.engine.outcome import error_to_wire
from agentq.engine.trying import inspect_result, state_of
from agentq.runtime.effects import Call, Effect
from agentq.runtime.export import Header, write_journal
from agentq.runtime.local_calls import outcome_of
from agentq.runtime.machine import Machine
from agentq.runtime.outcomes import Identity, Outcome

Finish = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine to its end on a real event loop and returns its result."""


class Here:
    """What the runs of one test share.

    Attributes:
        answers: by question; a function is called with the question.
        stand_ins: functions in place of steps and agents, by name.
        finish: runs `async def` steps.
    """

    def __init__(
        self, *, answers: Mapping[str, Any], stand_ins: Mapping[str, Callable[..., Any]], finish: Finish
    ) -> None:
        self.answers = answers
        self.stand_ins = stand_ins
        self._finish = finish

    def value_of(self, value: Any) -> Any:
        """The value itself, or what a coroutine returns."""
        return self._finish(value) if inspect.iscoroutine(value) else value


class HereRun:
    """One run of an agent, or of a child of it."""

    def __init__(self, here: Here, agent: Any, call: Call, *, run_id: str | None = None) -> None:
        self.log: list[str] = []
        self._here = here
        self._agent = agent
        self._call = call
        self._now_ms = int(time.time() * 1000)
        self._results: deque[tuple[Entry, Sequence[Result]]] = deque()
        self._members: dict[str, Sequence[Result]] = {}
        self._asks: dict[str, Effect] = {}
        self._identity = Identity(
            run_id=run_id if run_id is not None else new_run_id(),
            agent=agent.name,
            version=agent.agentq.version,
            key=agent.call.key,
            tenant=agent.call.tenant,
        )

    def run(self, signals: Mapping[str, Sequence[Any]]) -> Outcome:
        """The run has ended; one that continued as new has gone on to its end."""
        waiting = {name: deque(payloads) for name, payloads in signals.items()}
        self._tell(Start(version=self._identity.version))
        while True:
            outcome = self._one(waiting)
            if outcome.kind != "restart":
                return outcome
            self._call = outcome.value
            self.log.clear()
            self._results.clear()
            self._tell(Start(version=self._identity.version))
            self.log.extend(encode(entry) for entry in outcome.carry)

    def journal(self) -> str:
        """The run's journal as `export` writes it."""
        args, kwargs = self._call
        header = Header(
            run_id=self._identity.run_id,
            agent=self._identity.agent,
            key=self._identity.key,
            tenant=self._identity.tenant,
            args=list(args),
            kwargs=dict(kwargs),
        )
        return write_journal(
            header, self.log, load_result=lambda _: None, load_members=lambda ask, _: self._members[ask.id]
        )

    def _one(self, signals: Mapping[str, deque[Any]]) -> Outcome:
        machine = machine_for(self._agent, self._call, self._identity)
        try:
            for line in self.log:
                entry = decode(line)
                if isinstance(entry, Ask):
                    machine.record(entry)
            for line in list(self.log):
                entry = decode(line)
                if not isinstance(entry, Ask):
                    machine.feed(entry)
            while machine.outcome is None:
                self._carry_out(machine)
                self._next_input(machine, signals)
            outcome = machine.outcome
            machine.drop()
            self._carry_out(machine, ended=True)
            return outcome
        finally:
            machine.drop()

    def _carry_out(self, machine: Machine, *, ended: bool = False) -> None:
        for effect in machine.asks.take():
            self.log.append(encode(effect.ask))
            if not effect.cancelled and (not ended or effect.ask.kind == "spawn"):
                self._perform(effect)
            elif not ended and effect.ask.kind != "local":
                self._results.append((Result(id=effect.ask.id, status="revoked"), ()))
        machine.asks.take_given_up()

    def _next_input(self, machine: Machine, signals: Mapping[str, deque[Any]]) -> None:
        members: Sequence[Result] = ()
        if self._results:
            entry, members = self._results.popleft()
            self._members[getattr(entry, "id", "")] = members
        else:
            entry = self._signal(machine, signals) or self._timer(machine)
        machine.feed(self._tell(entry), members)

    def _signal(self, machine: Machine, signals: Mapping[str, deque[Any]]) -> Entry | None:
        for name in machine.waits:
            if signals.get(name):
                return Signal(name=name, id=new_run_id(), payload=to_jsonable(signals[name].popleft()))
        return None

    def _timer(self, machine: Machine) -> Entry:
        due = machine.next_due_ms
        if due is None:
            asked = [each.ask.question for each in self._asks.values() if not (each.settled or each.cancelled)]
            wanted = [f"an answer to {question!r} (answers=)" for question in asked if question is not None]
            wanted += [f"a signal {name!r} (signals=)" for name in machine.waits]
            raise UsageError(f"{self._identity.agent!r} waits for {' or '.join(wanted)}, which the test does not give.")
        self._now_ms = max(self._now_ms, due)
        return Tick()

    def _tell(self, entry: Entry) -> Entry:
        self._now_ms += 1
        told: Any = entry
        stamped: Entry = replace(told, t=self._now_ms)
        self.log.append(encode(stamped))
        return stamped

    # -- what the agent asks for

    def _perform(self, effect: Effect) -> None:
        ask = effect.ask
        if ask.kind == "local":
            self._results.append((outcome_of(effect, self._local), ()))
        elif ask.kind == "map":
            members = [
                self._called(effect.target, call, step_id(ask.id, str(at))) for at, call in enumerate(effect.calls)
            ]
            won = [at for at, member in enumerate(members) if member.status == "ok"][: effect.need]
            if effect.need is not None and len(won) == effect.need:
                self._results.append((Joined(id=ask.id, at=tuple(won)), [members[at] for at in won]))
            else:
                self._results.append((Joined(id=ask.id), members))
        elif ask.kind == "canvas":
            self._results.append((self._canvas(effect), ()))
        elif ask.kind == "ask":
            self._asks[ask.id] = effect
            self._answer(ask)
        elif ask.kind != "emit":
            self._results.append((self._called(effect.target, effect.calls[0], ask.id), ()))

    def _local(self, effect: Effect) -> Any:
        args, kwargs = effect.calls[0]
        return self._here.value_of(effect.target(*args, **kwargs))

    def _answer(self, ask: Ask) -> None:
        question = ask.question or ""
        if question in self._here.answers:
            answer = self._here.answers[question]
            value = answer(question) if callable(answer) else answer
            self._results.append((Answer(id=ask.id, value=to_jsonable(value)), ()))

    def _canvas(self, effect: Effect) -> Result:
        try:
            return Result(id=effect.ask.id, status="ok", value=to_jsonable(effect.target.apply(throw=True).get()))
        except Exception as error:
            wire = error_to_wire(error, step=effect.ask.name, step_id=effect.ask.id)
            return Result(id=effect.ask.id, status="error", value=wire)

    def _called(self, step: Any, call: Call, call_id: str) -> Result:
        stand_in = self._here.stand_ins.get(step.name)
        try:
            if step.kind == "agent" and stand_in is None:
                return self._child(step, call, call_id)
            value = self._attempts(step, stand_in, *step.schema.decode(*call))
            return Result(id=call_id, status="ok", value=step.schema.encode_result(value))
        except Exception as error:
            wire = error_to_wire(error, step=step.name, step_id=call_id)
            return Result(id=call_id, status="error", value=wire)

    def _attempts(self, step: Any, stand_in: Any, args: Any, kwargs: Any) -> Any:
        """Return the answer of the step, or of the first of its fallbacks that gives one; pauses pass at once."""
        try:
            return self._tries(step, stand_in if stand_in is not None else step.function, args, kwargs)
        except Exception as error:
            failure = error
        for fallback in step.agentq.fallbacks:
            try:
                return self._passed(step, getattr(fallback, "function", fallback), args, kwargs)
            except Exception as error:
                error.__cause__ = failure
                failure = error
        raise failure

    def _tries(self, step: Any, function: Any, args: Any, kwargs: Any) -> Any:
        policy, number = step.agentq.retry, 1
        while True:
            value, error = None, None
            try:
                value = self._passed(step, function, args, kwargs)
            except Exception as failure:
                error = failure
            if policy is None or (error is None and isinstance(policy.on, tuple)):
                if error is not None:
                    raise error
                return value
            outcome = value if error is None else error
            state = state_of(function, (args, kwargs), number, outcome, seconds=0.0) if policy.has_strategies else None
            if decide_retry(policy, number, error, random.random(), state=state) is None:
                if error is not None:
                    raise error
                return value
            number += 1
            if policy.change is not None:
                bound = inspect.signature(function).bind(*args, **kwargs)
                bound.apply_defaults()
                named = dict(bound.arguments)
                bound.arguments.update(changed_arguments(policy.change, number, error, named, step=step.name))
                args, kwargs = bound.args, bound.kwargs

    def _passed(self, step: Any, function: Any, args: Any, kwargs: Any) -> Any:
        value = self._here.value_of(function(*args, **kwargs))
        if step.agentq.check is not None:
            inspect_result(step, value)
        return value

    def _child(self, agent: Any, call: Call, run_id: str) -> Result:
        child = HereRun(self._here, agent, call, run_id=run_id)
        outcome = child.run({})
        if outcome.error is not None:
            wire = error_to_wire(outcome.error, step=agent.name, step_id=run_id)
            return Result(id=run_id, status="revoked" if outcome.kind == "cancelled" else "error", value=wire)
        return Result(id=run_id, status="ok", value=outcome.value)


def machine_for(agent: Any, call: Call, identity: Identity) -> Machine:
    """A machine for an agent that was started with these encoded arguments."""
    args, kwargs = agent.schema.decode(*call)
    return Machine(
        lambda run: agent.function(run, *args, **kwargs),
        identity,
        write_result=agent.schema.encode_result,
        write_arguments=agent.schema.encode,
    )
