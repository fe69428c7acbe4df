"""What keeps steps within bounds: breakers, rates, limits and budgets, as they are declared.

Frozen, and an unknown field is refused. It must not know how they are kept: that is a script of the store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    field_serializer,
    model_validator,
)

from agentq.core.key_template import check_template
from agentq.core.models import Model, Usage, Usd
from agentq.core.units import Duration, Size, read_duration

Template = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_template)]
"""A name, in which `{model}` stands for the step's argument of that name."""

Estimate = int | Usage | Callable[..., int | Usage]
"""What a step is going to use: tokens, or a Usage; a function of its arguments that says so."""

_QUOTA: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKmM]?)\s*/\s*([0-9]*)\s*([a-z]+)\s*")
_FACTORS: Final = {"": 1, "k": 1_000, "m": 1_000_000}
_SPANS: Final = {"second": "s", "sec": "s", "minute": "m", "hour": "h", "day": "d"}


class Quota(NamedTuple):
    """So much within any window of this length."""

    amount: int
    window: timedelta

    def __str__(self) -> str:
        return f"{self.amount}/{self.window.total_seconds():g}s"


def read_quota(value: Any) -> Any:
    """The quota that a text such as `500/min`, `200k/min`, `10/s` or `1000/5m` stands for; others are returned."""
    if not isinstance(value, str):
        return value
    found = _QUOTA.fullmatch(value)
    span = None
    if found:
        number, factor, count, unit = found.groups()
        span = read_duration(f"{count or 1}{_SPANS.get(unit, unit)}")
    if found is None or not isinstance(span, timedelta):
        raise ValueError('it must be an amount for a time, such as "500/min", "200k/min" or "10/s"')
    amount = round(float(number) * _FACTORS[factor.lower()])
    if amount < 1 or span <= timedelta(0):
        raise ValueError("it would let nothing through: the amount and the time must be at least one")
    return Quota(amount, span)


class Breaker(Model):
    """Keeps calls away from what fails: opens when too many of the recent ones fail, and tries again later.

    All steps that name the same breaker share it, in all workers.
    """

    name: Template
    rate: float = Field(default=0.5, gt=0, le=1)
    """The share of failed calls within the window that opens it."""
    volume: PositiveInt = 10
    """So many calls must have ended within the window before their share says anything."""
    window: Duration = Field(default=timedelta(seconds=30), ge=timedelta(milliseconds=20))
    reset_after: Duration = Field(default=timedelta(seconds=30), gt=timedelta(0))
    """How long it stays open before calls try whether it may close."""
    jitter: float = Field(default=0.2, ge=0, le=1)
    """The share of `reset_after` by which chance makes it longer, so that breakers do not reopen as one."""
    probes: PositiveInt = 1
    """So many calls try it then, and all must succeed to close it; the others wait."""
    slow_after: Duration | None = Field(default=None, gt=timedelta(0))
    """A call that takes longer counts as failed, although its result is used; None for none."""
    on: tuple[type[BaseException], ...] = (Exception,)
    """The errors that count as failed calls; any other error says that the service answers."""

    def __init__(
        self,
        name: str,
        *,
        rate: float = 0.5,
        volume: int = 10,
        window: timedelta = timedelta(seconds=30),
        reset_after: timedelta = timedelta(seconds=30),
        jitter: float = 0.2,
        probes: int = 1,
        slow_after: timedelta | None = None,
        on: tuple[type[BaseException], ...] = (Exception,),
    ) -> None:
        given: dict[str, Any] = {"name": name, "rate": rate, "volume": volume, "window": window, "probes": probes}
        given.update(reset_after=reset_after, jitter=jitter, slow_after=slow_after, on=on)
        super().__init__(**given)

    @field_serializer("on", when_used="json")
    def _name_errors(self, on: tuple[type[BaseException], ...]) -> list[str]:
        return [f"{cls.__module__}.{cls.__qualname__}" for cls in on]


class Rate(Model):
    """How much of a provider all workers may use: calls and tokens within any window, and calls at once."""

    name: Template
    requests: Annotated[Quota | None, BeforeValidator(read_quota)] = None
    """Such as `500/min`: attempts that begin within any minute."""
    tokens: Annotated[Quota | None, BeforeValidator(read_quota)] = None
    """Such as `200k/min`: reserved by the step's `estimate`, settled with what `this_step.spend` says."""
    in_flight: PositiveInt | None = None
    """Attempts at once."""

    def __init__(
        self,
        name: str,
        *,
        requests: str | Quota | None = None,
        tokens: str | Quota | None = None,
        in_flight: int | None = None,
    ) -> None:
        given: dict[str, Any] = {"name": name, "requests": requests, "tokens": tokens, "in_flight": in_flight}
        super().__init__(**given)

    @model_validator(mode="after")
    def _check_any(self) -> Rate:
        if self.requests is None and self.tokens is None and self.in_flight is None:
            raise ValueError("it limits nothing: give requests=, tokens= or in_flight=")
        return self


class Limit(Model):
    """How many attempts of all steps that name this key run at once, in all workers."""

    key: Template
    slots: PositiveInt

    def __init__(self, key: str, slots: int) -> None:
        given: dict[str, Any] = {"key": key, "slots": slots}
        super().__init__(**given)


OnExceeded = Literal["refuse", "ask", "degrade"]


class Budget(Model):
    """Limits over a run and all its sub-agents; None is no limit."""

    usd: Usd | None = None
    tokens: NonNegativeInt | None = None
    """Tokens in and out together."""
    steps: NonNegativeInt | None = None
    attempts: NonNegativeInt | None = None
    """Tries of all steps together: retries, and steps whose worker died, count again."""
    wall: Duration | None = Field(default=None, gt=timedelta(0))
    """From the run's start to its end, waiting included, on the server's clock."""
    depth: NonNegativeInt | None = None
    """How deep calls may stand below the run: its own have depth 1, those of its sub-agents depth 2."""
    width: NonNegativeInt | None = None
    """Members of one fan-out."""
    storage: Size | None = None
    """Bytes of the results that are kept as checkpoints."""
    per: Literal["run", "agent", "tenant"] = "run"
    """For each run; or for all runs of this agent on a day (UTC); or for those of each tenant on a day."""
    on_exceeded: OnExceeded = "refuse"
    """At the limit: refuse; ask a person to raise it; or degrade, where steps take their fallback instead."""

    def __init__(
        self,
        *,
        usd: Decimal | float | str | None = None,
        tokens: int | None = None,
        steps: int | None = None,
        attempts: int | None = None,
        wall: timedelta | None = None,
        depth: int | None = None,
        width: int | None = None,
        storage: int | str | None = None,
        per: Literal["run", "agent", "tenant"] = "run",
        on_exceeded: OnExceeded = "refuse",
    ) -> None:
        given: dict[str, Any] = {"usd": usd, "tokens": tokens, "steps": steps, "attempts": attempts, "wall": wall}
        given.update(depth=depth, width=width, storage=storage, per=per, on_exceeded=on_exceeded)
        super().__init__(**given)

    @model_validator(mode="after")
    def _check_scope(self) -> Budget:
        for name in ("wall", "depth", "width"):
            if self.per != "run" and getattr(self, name) is not None:
                raise ValueError(f'{name}= limits a single run: it cannot be summed up per="{self.per}"')
        return self

    def limits(self) -> dict[str, int]:
        """The limits that are set, as the store counts them: money in millionths, time in ms."""
        found: dict[str, int] = {}
        for name in ("steps", "attempts", "tokens", "depth", "width"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        if self.usd is not None:
            found["usd_micro"] = int(self.usd * 1_000_000)
        if self.wall is not None:
            found["wall_ms"] = int(self.wall.total_seconds() * 1000)
        if self.storage is not None:
            found["storage_bytes"] = int(self.storage)
        return found


def as_sequence(given: Any) -> tuple[Any, ...]:
    """One guard, several, or none, as a tuple."""
    if given is None:
        return ()
    return tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
