"""`Run`, what an agent holds of its run: everything that it may ask of the world outside its own coroutine."""

# ruff: noqa: ASYNC109 - a time-out belongs to the question or the signal: with a default it is no cancellation.

from __future__ import annotations

import asyncio
import random
from asyncio import events
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn, ParamSpec, TypeVar, cast, overload

from agentq.core.codec import to_jsonable
from agentq.core.errors import InvalidArguments, JoinFailed, NotInRun, UsageError
from agentq.runtime.boundaries import boundary_of, local_schema
from agentq.runtime.checks import check_need, check_step, name_of
from agentq.runtime.child_run import ChildRun
from agentq.runtime.effects import Effect
from agentq.runtime.outcomes import error_of

if TYPE_CHECKING:
    from agentq.engine.agent import Agent
    from agentq.engine.task import Step
    from agentq.runtime.machine import Machine

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_UNSET: Any = object()


class ContinueAsNew(BaseException):
    """Leaves the agent's function; a BaseException, so that no `except Exception` of the agent stops it."""

    def __init__(self, arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments


class RunRandom(random.Random):
    """Random numbers that a replay draws again: `run.random()`, `run.random.choice(…)`, and the rest."""

    def __call__(self) -> float:
        """The next number in [0, 1)."""
        return self.random()


class Run:
    """The run that an agent's function is. Its methods work in the agent's own tasks alone.

    Whatever it gives is the same in every replay. Once the coroutine has left its worker every method raises NotInRun,
    also in the `finally` blocks that run then: nothing of it is written.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.agent!r}>"

    @property
    def id(self) -> str:
        """The run's id: the root run's for a run that was started, else the step id under its parent."""
        return self._machine.identity.run_id

    @property
    def agent(self) -> str:
        """The agent's name."""
        return self._machine.identity.agent

    @property
    def version(self) -> str | None:
        """The version of the agent's code that runs now."""
        return self._machine.identity.version

    @property
    def key(self) -> str | None:
        """The key that the run was started with; None without one."""
        return self._machine.identity.key

    @property
    def tenant(self) -> str | None:
        """On whose behalf the run goes; None if nobody said."""
        return self._machine.identity.tenant

    # -- steps and agents

    async def call(self, step: Step[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of a step, or of an agent as a child run; raises StepFailed or what the child raised.

        Wrong arguments raise InvalidArguments, and nothing is sent. Giving it up (a time-out, a cancelled task) calls
        the step off.
        """
        machine = self._check("run.call")
        return cast(R, await _future(self._called(machine, "call", step, args, kwargs)))

    async def spawn(self, agent: Agent[P, R], *args: P.args, **kwargs: P.kwargs) -> ChildRun[R]:
        """A child run has been asked for; it goes out when the agent next rests. Its end is not waited for."""
        machine = self._check("run.spawn")
        if getattr(agent, "kind", None) != "agent":
            raise UsageError(f"run.spawn starts agents; {name_of(agent)!r} is none. A step is called by run.call.")
        return ChildRun(self, self._called(machine, "spawn", agent, args, kwargs))

    @overload
    async def map(self, step: Callable[[T], R], items: Iterable[T], *, need: int | None = None) -> list[R]: ...

    @overload
    async def map(
        self, step: Callable[[T], R], items: Iterable[T], *, return_exceptions: Literal[True]
    ) -> list[R | BaseException]: ...

    async def map(
        self,
        step: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        return_exceptions: bool = False,
        need: int | None = None,
    ) -> list[Any]:
        """One result per item, in their order, from a step or agent that is called with each.

        Raises JoinFailed, with the first failure, when all have ended and one has failed; with `return_exceptions`
        failures stand among the results. With `need` it gives the results of the first so many that succeed, in the
        items' order, and calls the others off; JoinFailed when all have ended and fewer have.
        """
        return await self._mapped("run.map", step, [(item,) for item in items], return_exceptions, need)

    @overload
    async def starmap(
        self, step: Callable[..., R], items: Iterable[Sequence[Any]], *, need: int | None = None
    ) -> list[R]: ...

    @overload
    async def starmap(
        self, step: Callable[..., R], items: Iterable[Sequence[Any]], *, return_exceptions: Literal[True]
    ) -> list[R | BaseException]: ...

    async def starmap(
        self,
        step: Callable[..., Any],
        items: Iterable[Sequence[Any]],
        *,
        return_exceptions: bool = False,
        need: int | None = None,
    ) -> list[Any]:
        """As `map`, for a step of several arguments: each item is a tuple of them."""
        return await self._mapped("run.starmap", step, list(items), return_exceptions, need)

    async def gather(self, *awaitables: Any, return_exceptions: bool = False) -> list[Any]:
        """One result per argument, in their order, all under way at once.

        Takes awaitables, as `asyncio.gather` does, and signatures of Celery's canvas, whose results come as JSON has
        them. Raises the first failure; with `return_exceptions` failures stand among the results.
        """
        machine = self._check("run.gather")
        waiting = [self._signed(machine, each) if _is_signature(each) else each for each in awaitables]
        return await asyncio.gather(*waiting, return_exceptions=return_exceptions)

    @overload
    async def local(self, function: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs) -> R: ...

    @overload
    async def local(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...

    async def local(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of a function that runs here, outside the agent's loop, and is journaled: the way to do I/O.

        It may be `def` or `async def`. Killed before its result is written, it runs again. What it raises comes as
        StepFailed, as in every replay; an AgentqError comes as itself.
        """
        machine = self._check("run.local")
        target = getattr(function, "function", function)
        schema = local_schema(target)
        effect = machine.asks.make(
            "local",
            schema.name,
            told_by=schema.encode(args, kwargs),
            target=target,
            calls=[(args, kwargs)],
            read=schema.decode_result,
            write=schema.encode_result,
        )
        return await _future(effect)

    # -- time and chance

    async def sleep(self, delay: timedelta | float) -> None:
        """`delay` (seconds, if a number) has passed. A long sleep holds no worker."""
        self._check("run.sleep")
        await asyncio.sleep(_seconds(delay))

    def now(self) -> datetime:
        """The time in the run, in UTC: the server's at the last input. It stands still between two awaits."""
        return self._check("run.now").now()

    @property
    def random(self) -> RunRandom:
        """The run's own random numbers, the same in every replay."""
        return self._check("run.random").random

    # -- people and other programs

    @overload
    async def wait_for(self, name: str, /, *, timeout: timedelta | float | None = None) -> Any: ...

    @overload
    async def wait_for(self, name: str, kind: type[T], /, *, timeout: timedelta | float | None = None) -> T: ...

    async def wait_for(self, name: str, kind: Any = Any, /, *, timeout: timedelta | float | None = None) -> Any:
        """The payload of the next signal of this name, as `kind`; one that came earlier waits here.

        Raises TimeoutError after `timeout`; None waits for ever. A payload that does not fit raises InvalidArguments,
        and counts as taken.
        """
        machine = self._check("run.wait_for")
        mailbox = machine.mailbox(name)
        mailbox.waiting += 1
        try:
            async with asyncio.timeout(None if timeout is None else _seconds(timeout)):
                _, signal = await mailbox.queue.get()
        finally:
            mailbox.waiting -= 1
        return _read(kind, "wait_for", f'signal "{name}"', signal.payload)

    @overload
    async def ask(self, question: str, kind: type[T], /) -> T: ...

    @overload
    async def ask(self, question: str, kind: type[T], /, *, timeout: timedelta | float) -> T: ...

    @overload
    async def ask(self, question: str, kind: type[T], /, *, timeout: timedelta | float, default: R) -> T | R: ...

    @overload
    async def ask(self, question: str, /, *, timeout: timedelta | float | None = None, default: Any = ...) -> Any: ...

    async def ask(
        self, question: str, kind: Any = str, /, *, timeout: timedelta | float | None = None, default: Any = _UNSET
    ) -> Any:
        """A person's answer, as `kind`. Nothing is held while the question is open.

        After `timeout` the question closes and the answer is `default`; without one TimeoutError is raised.
        """
        machine = self._check("run.ask")
        schema = boundary_of(kind).json_schema()
        effect = machine.asks.make(
            "ask",
            "ask",
            told_by=[question, schema],
            question=question,
            answer_schema=schema,
            read=lambda value: _read(kind, "ask", f'answer to "{question}"', value),
        )
        try:
            async with asyncio.timeout(None if timeout is None else _seconds(timeout)):
                return await _future(effect)
        except TimeoutError:
            if default is _UNSET:
                raise
            return default

    def emit(self, kind: str, /, **fields: Any) -> None:
        """A line stands in the run's history, once, when the agent next rests."""
        machine = self._check("run.emit")
        written = to_jsonable(fields)
        machine.asks.make("emit", kind, told_by=written, awaited=False, fields=written)

    def continue_as_new(self, *args: Any, **kwargs: Any) -> NoReturn:
        """The run goes on from the agent's beginning, with these arguments and an empty journal.

        Signals that were not taken wait there too. Calls that are open are called off; what was done is not undone
        any more. It leaves the function by an exception, so it works in the agent's main task alone.
        """
        machine = self._check("run.continue_as_new")
        if not machine.is_main(asyncio.current_task()):
            raise UsageError("run.continue_as_new ends the whole agent: call it in the agent's own function.")
        raise ContinueAsNew(machine.write_arguments(args, kwargs))

    # -- inside

    def _check(self, what: str) -> Machine:
        machine = self._machine
        if machine.dropped or events._get_running_loop() is not machine.loop:
            raise NotInRun(what=what)
        return machine

    def _called(self, machine: Machine, kind: Literal["call", "spawn"], step: Any, args: Any, kwargs: Any) -> Effect:
        check_step(step, "run.call" if kind == "call" else "run.spawn")
        call = step.schema.encode(args, kwargs)
        return machine.asks.make(
            kind,
            step.name,
            told_by=call,
            target=step,
            calls=[call],
            read=step.schema.decode_result,
            undo=step.agentq.undo if kind == "call" else None,
        )

    async def _mapped(
        self, what: str, step: Any, items: list[Any], return_exceptions: bool, need: int | None
    ) -> list[Any]:
        machine = self._check(what)
        check_step(step, what)
        check_need(need, what, step, items, return_exceptions)
        calls = [step.schema.encode(item, {}) for item in items]
        if not calls:
            return []
        effect = machine.asks.make(
            "map",
            step.name,
            told_by=calls,
            members=len(calls),
            target=step,
            calls=calls,
            undo=step.agentq.undo,
            need=need,
        )
        members = await _future(effect)
        failures = [member for member in members if member.status != "ok"]
        if failures and not return_exceptions:
            first = error_of(failures[0], effect.ask)
            raise JoinFailed(
                join_id=effect.ask.id,
                succeeded=len(members) - len(failures),
                need=len(members) if need is None else need,
                size=len(members),
                first=first.to_wire(),
            ) from first
        read = step.schema.decode_result
        return [read(each.value) if each.status == "ok" else error_of(each, effect.ask) for each in members]

    def _signed(self, machine: Machine, signature: Any) -> Awaitable[Any]:
        told_by = to_jsonable(signature)
        name = str(signature.get("task") or "canvas")
        return _future(machine.asks.make("canvas", name, told_by=told_by, target=signature))


def _future(effect: Effect) -> asyncio.Future[Any]:
    assert effect.future is not None
    return effect.future


def _seconds(delay: timedelta | float) -> float:
    return delay.total_seconds() if isinstance(delay, timedelta) else float(delay)


def _is_signature(value: Any) -> bool:
    return hasattr(value, "apply_async") and hasattr(value, "freeze")


def _read(kind: Any, what: str, parameter: str, value: Any) -> Any:
    try:
        return boundary_of(kind).read(value)
    except ValueError as error:
        raise InvalidArguments(step=what, parameter=parameter, value=value, reason=str(error)) from error
