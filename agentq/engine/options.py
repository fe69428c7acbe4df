"""What a step or an agent is declared with, and what a single call may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from agentq.core.error_base import listed, near
from agentq.core.errors import InvalidArguments
from agentq.core.lanes import PRIORITIES
from agentq.core.models import Breaker, Budget, Needs, Priority, Retry


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """Declared on a step or an agent; stands in the task's one attribute ``agentq``.

    Attributes:
        pool, queue, needs: where it runs; see ``core.pools`` for what goes before what.
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
        _check_timeout("step", self.timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """Chosen by ``using(...)`` for the calls of one copy of a step or an agent; None leaves what is declared.

    Attributes:
        key: at most one run per agent, tenant and key until the retention of the finished run ends.
        tenant: on whose behalf.
    """

    pool: str | None = None
    queue: str | None = None
    needs: Needs | None = None
    priority: Priority | None = None
    key: str | None = None
    tenant: str | None = None
    timeout: timedelta | None = None

    def __post_init__(self) -> None:
        _check_priority("using", self.priority)
        _check_timeout("using", self.timeout)

    def with_(self, **changes: Any) -> CallOptions:
        """Return these options with the given ones changed; None keeps what was chosen before."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form that a signature carries."""
        wire: dict[str, Any] = {}
        for name in ("pool", "queue", "priority", "key", "tenant"):
            if getattr(self, name) is not None:
                wire[name] = getattr(self, name)
        if self.needs is not None:
            wire["needs"] = self.needs.model_dump(mode="json", exclude_none=True)
        if self.timeout is not None:
            wire["timeout"] = self.timeout.total_seconds()
        return wire

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> CallOptions:
        """Rebuild options from a signature's form."""
        fields = dict(wire)
        if "needs" in fields:
            fields["needs"] = Needs.model_validate(fields["needs"])
        if "timeout" in fields:
            fields["timeout"] = timedelta(seconds=fields["timeout"])
        return cls(**fields)


def _check_priority(where: str, name: str | None) -> None:
    if name is not None and name not in PRIORITIES:
        reason = f"the priorities are {listed(PRIORITIES)}.{near(str(name), PRIORITIES)}"
        raise InvalidArguments(step=where, parameter="priority", value=name, reason=reason)


def _check_timeout(where: str, timeout: object) -> None:
    if timeout is None:
        return
    if not isinstance(timeout, timedelta):
        raise InvalidArguments(step=where, parameter="timeout", value=timeout, reason="it is no timedelta")
    if timeout <= timedelta(0):
        raise InvalidArguments(step=where, parameter="timeout", value=timeout, reason="no attempt can be that short")


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
