"""What a step or an agent is declared with, and what a single call may change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

from agentq.core.error_base import listed, near
from agentq.core.errors import InvalidArguments
from agentq.core.guards import Breaker, Budget, Estimate, Limit, Rate, as_sequence
from agentq.core.hedging import HedgeAfter, read_hedge
from agentq.core.lanes import PRIORITIES
from agentq.core.models import Needs, Priority, Usage
from agentq.core.retry import Retry
from agentq.core.routes import TIERS, OnFull, Tier
from agentq.core.zombies import NONE, Zombies
from agentq.engine.resources import AnyResource

LONGEST_TENANT = 200
"""Characters of a tenant's name: it stands in each of its steps' records."""

LONGEST_CACHE = timedelta(days=3650)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """Declared on a step or an agent; stands in the task's one attribute ``agentq``.

    Attributes:
        pool, queue, needs: where it runs; see ``core.routes`` for what goes before what.
        prefer: tags of a pool that it had rather, among those that meet its needs.
        tier: of calls that name none and inherit none.
        priority: lane of calls that name none and inherit none.
        retry: None for one attempt.
        breaker: shared by all workers under its name; several are asked together, as all that follow.
        rate: how much of a provider all workers may use.
        limit: how many attempts run at once under a key.
        concurrency: of this step at once, in all workers.
        estimate: what an attempt is going to use, reserved before it runs: tokens, a Usage, or a function of the step's
            arguments that returns one of them.
        cache: for so long its answer stands for every call with the same arguments, of the same tenant; None for never.
        cache_version: an answer of another version counts for nothing.
        hedge_after: a second step begins on another worker when one takes longer: a time, or a quantile of those that
            the step took before, such as `p95`.
        check: called with the result; if it returns False or raises, the attempt has failed.
        fallback: called with the same arguments when the attempts are used up, or while the breaker is open; several
            in their order, until one answers.
        undo: called with the step's arguments when the run fails or is cancelled after this step was dispatched.
        timeout: of one attempt; None for the app's default.
        version: of an agent's code.
        continues: earlier versions whose runs this code goes on with when no worker serves them any more.
        budget: of an agent's run and all below it; several with `per=`.
        zombies: when an agent's run is stopped because it gets nowhere; None: as the settings say, False: never.
        resources: opened before the step begins; workers that have them open go first.
    """

    pool: str | None = None
    queue: str | None = None
    needs: Needs | None = None
    prefer: Needs | None = None
    tier: Tier | None = None
    priority: Priority | None = None
    retry: Retry | None = None
    breaker: Breaker | Sequence[Breaker] | None = None
    rate: Rate | Sequence[Rate] | None = None
    limit: Limit | Sequence[Limit] | None = None
    concurrency: int | None = None
    estimate: Estimate | None = None
    cache: timedelta | None = None
    cache_version: str | None = None
    hedge_after: HedgeAfter | None = None
    check: Callable[[Any], Any] | None = None
    fallback: Callable[..., Any] | Sequence[Callable[..., Any]] | None = None
    undo: Callable[..., Any] | None = None
    timeout: timedelta | None = None
    version: str | None = None
    continues: tuple[str, ...] = ()
    budget: Budget | Sequence[Budget] | None = None
    zombies: Zombies | Literal[False] | None = None
    resources: tuple[AnyResource, ...] = ()

    def __post_init__(self) -> None:
        _check_priority("step", self.priority)
        _check_span("step", "timeout", self.timeout)
        _check_span("step", "cache", self.cache, reason="nothing would be kept")
        _check_cache(self)
        _check_hedge("step", self.hedge_after, undo=self.undo)
        _check_place("step", needs=self.needs, prefer=self.prefer, tier=self.tier)
        for name, kind in (("breaker", Breaker), ("rate", Rate), ("limit", Limit), ("budget", Budget)):
            _check_kind(name, getattr(self, name), kind)
        if self.zombies is not None and self.zombies is not False and not isinstance(self.zombies, Zombies):
            reason = "it is no Zombies: write Zombies(repeats=…, …), or False for no rule at all"
            raise InvalidArguments(step="agent", parameter="zombies", value=self.zombies, reason=reason)
        _check_concurrency(self.concurrency)
        for name in ("fallbacks", "check"):
            _check_callable(name, getattr(self, name))
        if self.estimate is not None and not callable(self.estimate):
            _check_estimate(self.estimate)
        if sum(budget.per == "run" for budget in self.budgets) > 1:
            reason = 'one budget at most is that of each run; give the others per="agent" or per="tenant"'
            raise InvalidArguments(step="agent", parameter="budget", value=self.budget, reason=reason)

    @property
    def breakers(self) -> tuple[Breaker, ...]:
        """All breakers of the step."""
        return as_sequence(self.breaker)

    @property
    def rates(self) -> tuple[Rate, ...]:
        """All rates of the step."""
        return as_sequence(self.rate)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """All limits of the step under keys of the user's."""
        return as_sequence(self.limit)

    @property
    def fallbacks(self) -> tuple[Callable[..., Any], ...]:
        """All that may answer in the step's place, in their order."""
        return as_sequence(self.fallback)

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """All budgets of the agent."""
        return as_sequence(self.budget)

    def zombie_rules(self, defaults: Zombies) -> Zombies:
        """Return the rules of the agent, where ``defaults`` are those of the settings."""
        if self.zombies is None:
            return defaults
        return NONE if self.zombies is False else self.zombies.over(defaults)

    @property
    def is_guarded(self) -> bool:
        """Whether an attempt asks before it runs."""
        return bool(self.breakers or self.rates or self.limits or self.concurrency or self.cache)

    def templates(self) -> list[tuple[str, str]]:
        """Return the names with places for arguments, each with the option that it stands in."""
        named = [("breaker", each.name) for each in self.breakers] + [("rate", each.name) for each in self.rates]
        return named + [("limit", each.key) for each in self.limits]


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
        hedge_after: when a second step begins on another worker, as of ``StepOptions``.
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
    hedge_after: HedgeAfter | None = None

    def __post_init__(self) -> None:
        _check_priority("using", self.priority)
        _check_span("using", "timeout", self.timeout)
        _check_span("using", "deadline", self.deadline)
        _check_place("using", needs=self.needs, prefer=self.prefer, tier=self.tier)
        _check_one_of("using", "on_full", self.on_full, ("raise", "wait"))
        _check_tenant(self.tenant)
        _check_hedge("using", self.hedge_after)

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
        if self.hedge_after is not None:
            wire["hedge_after"] = read_hedge(self.hedge_after)
        return wire

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> CallOptions:
        """Rebuild options from a signature's form."""
        fields = dict(wire)
        for name in {"needs", "prefer"} & fields.keys():
            fields[name] = Needs.model_validate(fields[name])
        for name in {"timeout", "deadline"} & fields.keys():
            fields[name] = timedelta(seconds=fields[name])
        hedge = fields.get("hedge_after", "p")
        if not hedge.startswith("p"):
            fields["hedge_after"] = timedelta(milliseconds=int(hedge))
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


def _check_span(where: str, parameter: str, span: object, *, reason: str = "no attempt can be that short") -> None:
    if span is None:
        return
    if not isinstance(span, timedelta):
        raise InvalidArguments(step=where, parameter=parameter, value=span, reason="it is no timedelta")
    if span <= timedelta(0):
        raise InvalidArguments(step=where, parameter=parameter, value=span, reason=reason)


def _check_cache(options: StepOptions) -> None:
    if options.cache is None:
        if options.cache_version is not None:
            reason = "nothing is cached: say for how long by cache="
            raise InvalidArguments(step="step", parameter="cache_version", value=options.cache_version, reason=reason)
        return
    if options.cache > LONGEST_CACHE:
        reason = f"nothing is kept for longer than {LONGEST_CACHE.days} days"
        raise InvalidArguments(step="step", parameter="cache", value=options.cache, reason=reason)
    if options.cache_version is not None and not isinstance(options.cache_version, str):
        reason = 'it is a text, such as "2"'
        raise InvalidArguments(step="step", parameter="cache_version", value=options.cache_version, reason=reason)
    if options.undo is not None:
        reason = "a step with an undo= does something that lasts, and answered from the cache it would not be done"
        raise InvalidArguments(step="step", parameter="cache", value=options.cache, reason=reason)


def _check_hedge(where: str, given: Any, *, undo: Any = None) -> None:
    if given is None:
        return
    try:
        read_hedge(given)
    except ValueError as error:
        raise InvalidArguments(step=where, parameter="hedge_after", value=given, reason=str(error)) from error
    if undo is not None:
        reason = "a step with an undo= does something that lasts, and two of it side by side would do it twice"
        raise InvalidArguments(step=where, parameter="hedge_after", value=given, reason=reason)


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


def _check_kind(name: str, given: object, kind: type) -> None:
    for each in as_sequence(given):
        if not isinstance(each, kind):
            reason = f"it is no {kind.__name__}"
            raise InvalidArguments(step="step", parameter=name, value=each, reason=reason)


def _check_callable(name: str, given: Any) -> None:
    for each in given if isinstance(given, tuple) else (given,):
        if each is not None and not callable(each):
            reason = "it cannot be called: give a function, a step or an agent"
            raise InvalidArguments(step="step", parameter=name.removesuffix("s"), value=each, reason=reason)


def _check_concurrency(given: object) -> None:
    if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < 1):
        reason = "it is the number of attempts at once, at least 1"
        raise InvalidArguments(step="step", parameter="concurrency", value=given, reason=reason)


def _check_estimate(given: object) -> None:
    if isinstance(given, Usage) or (isinstance(given, int) and not isinstance(given, bool) and given >= 0):
        return
    reason = "it is a number of tokens, a Usage, or a function of the step's arguments that returns one of them"
    raise InvalidArguments(step="step", parameter="estimate", value=given, reason=reason)
