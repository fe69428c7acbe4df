"""The decorators ``step`` and ``agent``: make Celery tasks of functions, typed."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from agentq.core.errors import InvalidArguments
from agentq.core.guards import Breaker, Budget, Estimate, Limit, Rate
from agentq.core.hedging import HedgeAfter
from agentq.core.key_template import check_names
from agentq.core.models import Needs, Priority
from agentq.core.retry import Retry
from agentq.core.routes import Tier
from agentq.core.zombies import Zombies
from agentq.engine.admission import OWN_NAMES
from agentq.engine.agent import Agent
from agentq.engine.declare_resource import resource
from agentq.engine.options import StepOptions
from agentq.engine.resources import AnyResource, check
from agentq.engine.task import Step

P = ParamSpec("P")
R = TypeVar("R")


class StepDecorator(Protocol):
    """What ``step(...)`` with options returns."""

    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Step[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...

    def __call__(self, function: Callable[..., Any], /) -> Any:
        """Make the function a step."""


class AgentDecorator(Protocol):
    """What ``agent(...)`` with options returns."""

    def __call__(self, function: Callable[Concatenate[Any, P], Awaitable[R]], /) -> Agent[P, R]:
        """Make the function an agent."""
        ...


MakeTask = Callable[..., Any]
"""``app.task`` or ``celery.shared_task``."""


def make_step(
    make: MakeTask, function: Callable[..., Any], name: str | None, options: StepOptions, more: dict[str, Any]
) -> Any:
    """Return the Celery task that is the step of ``function``."""
    if options.budgets:
        reason = "a budget is an agent's: it holds for a run and all below it; a step says what it needs by estimate="
        raise InvalidArguments(step=function.__name__, parameter="budget", value=options.budget, reason=reason)
    if options.zombies is not None:
        reason = "it is an agent's: a step is bounded by timeout=, and by the rules of the agent that calls it"
        raise InvalidArguments(step=function.__name__, parameter="zombies", value=options.zombies, reason=reason)
    known = [*inspect.signature(function).parameters, *OWN_NAMES]
    for option, template in options.templates():
        check_names(template, known, step=function.__name__, option=option)
    return _make(make, Step, function, name, options, more)


def make_agent(
    make: MakeTask, function: Callable[..., Any], name: str | None, options: StepOptions, more: dict[str, Any]
) -> Any:
    """Return the Celery task that is the agent of ``function``; it is called by the function's bare name."""
    if not inspect.iscoroutinefunction(function):
        raise InvalidArguments(
            step="agent",
            parameter="function",
            value=function.__qualname__,
            reason="an agent is an `async def`",
        )
    for option in ("breaker", "rate", "limit", "concurrency", "estimate", "cache", "hedge_after"):
        if getattr(options, option) is not None:
            reason = (
                "it guards a step's attempts, and an agent's turns are none: give it to the steps that the agent calls"
            )
            value = getattr(options, option)
            raise InvalidArguments(step=function.__name__, parameter=option, value=value, reason=reason)
    return _make(make, Agent, function, name if name is not None else function.__name__, options, more)


def _make(
    make: MakeTask,
    base: type,
    function: Callable[..., Any],
    name: str | None,
    options: StepOptions,
    more: dict[str, Any],
) -> Any:
    settings: dict[str, Any] = {"base": base, "agentq": options, "typing": False, "pydantic": False, **more}
    if name is not None:
        settings["name"] = name
    if options.timeout is not None:
        settings["soft_time_limit"] = options.timeout.total_seconds()
        settings["time_limit"] = options.timeout.total_seconds() + 30
    return make(**settings)(function)


class Declarations:
    """The decorators, over one way of making tasks; ``AgentQ`` and what ``install`` returns have them."""

    def _make_task(self, **settings: Any) -> Callable[[Callable[..., Any]], Any]:
        raise TypeError(f"{type(self).__name__} makes no tasks")

    @overload
    def step(self, function: Callable[P, Awaitable[R]], /) -> Step[P, R]: ...

    @overload
    def step(self, function: Callable[P, R], /) -> Step[P, R]: ...

    @overload
    def step(
        self,
        *,
        name: str | None = None,
        pool: str | None = None,
        queue: str | None = None,
        needs: Needs | None = None,
        prefer: Needs | None = None,
        tier: Tier | None = None,
        priority: Priority | None = None,
        retry: Retry | None = None,
        breaker: Breaker | Sequence[Breaker] | None = None,
        rate: Rate | Sequence[Rate] | None = None,
        limit: Limit | Sequence[Limit] | None = None,
        concurrency: int | None = None,
        estimate: Estimate | None = None,
        cache: timedelta | None = None,
        cache_version: str | None = None,
        hedge_after: HedgeAfter | None = None,
        check: Callable[[Any], Any] | None = None,
        fallback: Callable[..., Any] | Sequence[Callable[..., Any]] | None = None,
        undo: Callable[..., Any] | None = None,
        timeout: timedelta | None = None,
        resources: Sequence[AnyResource] = (),
        **celery_options: Any,
    ) -> StepDecorator: ...

    def step(self, function: Any = None, **options: Any) -> Any:
        """Make a function a step: a Celery task whose outcome is a checkpoint.

        ``@app.step`` or ``@app.step(pool=…, …)``. What is not listed in ``StepOptions`` goes to Celery's ``app.task``
        (``bind=True``, ``max_retries=…``).
        """
        name, ours, more = _split(options)

        def decorate(target: Callable[..., Any]) -> Any:
            return make_step(self._make_task, target, name, ours, more)

        return decorate if function is None else decorate(function)

    resource = resource

    @overload
    def agent(self, function: Callable[Concatenate[Any, P], Awaitable[R]], /) -> Agent[P, R]: ...

    @overload
    def agent(
        self,
        *,
        name: str | None = None,
        pool: str | None = None,
        queue: str | None = None,
        needs: Needs | None = None,
        prefer: Needs | None = None,
        tier: Tier | None = None,
        priority: Priority | None = None,
        version: str | None = None,
        continues: Sequence[str] = (),
        budget: Budget | Sequence[Budget] | None = None,
        zombies: Zombies | Literal[False] | None = None,
        undo: Callable[..., Any] | None = None,
        timeout: timedelta | None = None,
        **celery_options: Any,
    ) -> AgentDecorator: ...

    def agent(self, function: Any = None, **options: Any) -> Any:
        """Make an ``async def`` function an agent; its first parameter is the ``Run``.

        ``@app.agent`` or ``@app.agent(pool=…, version=…, budget=…)``. Its name is the function's, or ``name``.
        """
        name, ours, more = _split(options)

        def decorate(target: Callable[..., Any]) -> Any:
            return make_agent(self._make_task, target, name, ours, more)

        return decorate if function is None else decorate(function)


def _split(options: dict[str, Any]) -> tuple[str | None, StepOptions, dict[str, Any]]:
    """Return the task's name, our options, and what is Celery's."""
    rest = dict(options)
    name = rest.pop("name", None)
    ours = {field: rest.pop(field) for field in StepOptions.__dataclass_fields__ if field in rest}
    if "continues" in ours:
        ours["continues"] = tuple(ours["continues"])
    if "resources" in ours:
        check(str(name or "step"), ours["resources"])
        ours["resources"] = tuple(ours["resources"])
    return cast("str | None", name), StepOptions(**ours), rest


class SharedDeclarations(Declarations):
    """The decorators for code that belongs to no app, like Celery's ``shared_task``."""

    def _make_task(self, **settings: Any) -> Callable[[Callable[..., Any]], Any]:
        from celery import shared_task

        return cast("Callable[[Callable[..., Any]], Any]", shared_task(**settings))


_shared = SharedDeclarations()
step = _shared.step
agent = _shared.agent
