"""What a step or an agent is declared with, and what a single call may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from agentq.core.error_base import listed, near
from agentq.core.errors import InvalidArguments
from agentq.core.lanes import PRIORITIES
from agentq.core.models import Breaker, Budget, Needs, Priority, Retry
from agentq.core.routes import TIERS, OnFull, Tier

LONGEST_TENANT = 200
"""Characters of a tenant's name: it stands in each of its steps' records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """Declared on a step or an agent; stands in the task's one attribute ``agentq``.

    Attributes:
        pool, queue, needs: where it runs; see ``core.routes`` for what goes before what.
        prefer: tags of a pool that it had rather, among those that meet its needs.
        tier: of calls that name none and inherit none.
        priority: lane of calls that name none and inherit none.
        retry: None for one attempt.
        breaker: shared by all workers under its name.
        fallback: called with the same arguments when the attempts are used up, or while the breaker is open.
        undo: called with the step's arguments when the run fails or is cancelled after this step was dispatched.
        timeout: of one attempt; None for the app's default.
        version: of an agent's code.
        continues: earlier versions whose runs this code goes on with when no worker serves them any more.
        budget: of an agent's run and all below it.
    """

    pool: str | None = None
    queue: str | None = None
    needs: Needs | None = None
    prefer: Needs | None = None
    tier: Tier | None = None
    priority: Priority | None = None
    retry: Retry | None = None
    breaker: Breaker | None = None
    fallback: Callable[..., Any] | None = None
    undo: Callable[..., Any] | None = None
    timeout: timedelta | None = None
    version: str | None = None
    continues: tuple[str, ...] = ()
    budget: Budget | None = None

    def __post_init__(self) -> None:
        _check_priority("step", self.priority)
        _check_span("step", "timeout", self.timeout)
        _check_place("step", needs=self.needs, prefer=self.prefer, tier=self.tier)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """Chosen by ``using(...)`` for the calls of one copy of a step or an agent; None leaves what is declared.

    Attributes:
        key: at most one run per agent, tenant and key until the retention of the finished run ends.
        tenant: on whose behalf; what a run's steps and sub-agents inherit.
        prefer: tags of a pool that the call had rather, among those that meet its needs.
        tier: ``batch`` goes where it costs least; what a run calls inherits it.
        deadline: the call shall end within so long, so it goes to the pool that ends it first.
        on_full: what a start does when too many wait in its pool: ``raise`` QueueFull, or ``wait``.
    """

    pool: str | None = None
    queue: str | None = None
    needs: Needs | None = None
    priority: Priority | None = None
    key: str | None = None
    tenant: str | None = None
    timeout: timedelta | None = None
    prefer: Needs | None = None
    tier: Tier | None = None
    deadline: timedelta | None = None
    on_full: OnFull | None = None

    def __post_init__(self) -> None:
        _check_priority("using", self.priority)
        _check_span("using", "timeout", self.timeout)
        _check_span("using", "deadline", self.deadline)
        _check_place("using", needs=self.needs, prefer=self.prefer, tier=self.tier)
        _check_one_of("using", "on_full", self.on_full, ("raise", "wait"))
        _check_tenant(self.tenant)

    def with_(self, **changes: Any) -> CallOptions:
        """Return these options with the given ones changed; None keeps what was chosen before."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form that a signature carries."""
        wire: dict[str, Any] = {}
        for name in ("pool", "queue", "priority", "key", "tenant", "tier", "on_full"):
            if getattr(self, name) is not None:
                wire[name] = getattr(self, name)
        for name in ("needs", "prefer"):
            if getattr(self, name) is not None:
                wire[name] = getattr(self, name).model_dump(mode="json", exclude_none=True)
        for name in ("timeout", "deadline"):
            if getattr(self, name) is not None:
                wire[name] = getattr(self, name).total_seconds()
        return wire

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> CallOptions:
        """Rebuild options from a signature's form."""
        fields = dict(wire)
        for name in {"needs", "prefer"} & fields.keys():
            fields[name] = Needs.model_validate(fields[name])
        for name in {"timeout", "deadline"} & fields.keys():
            fields[name] = timedelta(seconds=fields[name])
        return cls(**fields)


def _check_priority(where: str, name: str | None) -> None:
    if name is not None and name not in PRIORITIES:
        reason = f"the priorities are {listed(PRIORITIES)}.{near(str(name), PRIORITIES)}"
        raise InvalidArguments(step=where, parameter="priority", value=name, reason=reason)


def _check_tenant(tenant: object) -> None:
    if tenant is None:
        return
    if not isinstance(tenant, str) or not 1 <= len(tenant) <= LONGEST_TENANT:
        reason = f"a tenant is a text of 1 to {LONGEST_TENANT} characters; leave it out for none"
        raise InvalidArguments(step="using", parameter="tenant", value=tenant, reason=reason)


def _check_span(where: str, parameter: str, span: object) -> None:
    if span is None:
        return
    if not isinstance(span, timedelta):
        raise InvalidArguments(step=where, parameter=parameter, value=span, reason="it is no timedelta")
    if span <= timedelta(0):
        raise InvalidArguments(step=where, parameter=parameter, value=span, reason="no attempt can be that short")


def _check_place(where: str, *, needs: object, prefer: object, tier: str | None) -> None:
    for parameter, given in (("needs", needs), ("prefer", prefer)):
        if given is not None and not isinstance(given, Needs):
            reason = 'it is no Needs: write Needs(gpu="a100", region="eu", …)'
            raise InvalidArguments(step=where, parameter=parameter, value=given, reason=reason)
    _check_one_of(where, "tier", tier, TIERS)


def _check_one_of(where: str, parameter: str, given: str | None, known: Sequence[str]) -> None:
    if given is not None and given not in known:
        reason = f"it is one of {listed(known)}.{near(str(given), known)}"
        raise InvalidArguments(step=where, parameter=parameter, value=given, reason=reason)


def budget_limits(budget: Budget | None) -> dict[str, int]:
    """Return a budget as the store counts it, money in millionths; only the limits that are set."""
    if budget is None:
        return {}
    limits: dict[str, int] = {}
    if budget.steps is not None:
        limits["steps"] = budget.steps
    if budget.tokens is not None:
        limits["tokens"] = budget.tokens
    if budget.usd is not None:
        limits["usd_micro"] = int(budget.usd * 1_000_000)
    if budget.wall is not None:
        limits["wall_ms"] = int(budget.wall.total_seconds() * 1000)
    return limits
