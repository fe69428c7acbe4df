"""When a failed step is tried again, after which pause, and with which arguments. Chance and clocks are passed in.

Strategies of other makes stand in the same places: an object that is called with the state of the attempts, as
tenacity's are (https://tenacity.readthedocs.io/), and answers with seconds, or with yes or no. This module knows no
more of them than that.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PositiveInt, field_serializer, model_validator

from agentq.core.errors import AgentqError, InvalidArguments, OwnershipLost
from agentq.core.models import Model
from agentq.core.units import Duration, read_duration

Strategy = Callable[[Any], Any]
"""Called with the state of the attempts; returns seconds, or whether to stop, or whether to try again."""

Change = Callable[[int, BaseException | None, dict[str, Any]], Mapping[str, Any] | None]
"""Called with the number of the coming attempt, the last error and the arguments by name; returns those to change."""

EARLIER_FAILED: Final = "Earlier attempts failed with:"
"""Begins the note that `told` adds."""

LONGEST_ASKED: Final = timedelta(days=1)
"""A server that asks for a longer pause is believed this far."""


def _errors(given: Any) -> Any:
    return (given,) if isinstance(given, type) else given


class Retry(Model):
    """How often and when a failed step is tried again: after `wait`, then each time `factor` times longer.

    `wait`, `stop` and `on` take tenacity's strategies as they are: `Retry(stop=stop_after_delay(600),
    wait=wait_random_exponential(max=60), on=retry_if_exception_message(match="overloaded"))`.
    """

    attempts: PositiveInt = 3
    """All attempts, the first one too; 1 never tries again. The death of a worker is none. Where only `stop` is given,
    that alone decides."""
    wait: Annotated[timedelta | Strategy, BeforeValidator(read_duration)] = timedelta(seconds=1)
    """The pause after the first attempt, or a strategy for all pauses. An error that asks for a longer one, by
    `Retry-After`, is obeyed."""
    factor: float = Field(default=2, ge=1)
    max_wait: Duration = Field(default=timedelta(seconds=60), ge=timedelta(0))
    """No pause is longer, jitter included, unless a strategy or a `Retry-After` says so."""
    jitter: float = Field(default=0.1, ge=0, le=1)
    """The share by which chance makes a pause shorter or longer, so that a crowd does not return as one."""
    on: Annotated[tuple[type[BaseException], ...] | Strategy, BeforeValidator(_errors)] = (Exception,)
    """The errors after which the step is tried again; for any other the first failure is final. Or a strategy, which
    may find fault with a result too."""
    stop: Strategy | None = None
    """A strategy that ends the attempts."""
    change: Change | None = None
    """Gives the coming attempt other arguments: a smaller model, a lower temperature, a repaired prompt. Called with
    the attempt's number, from 2, the last error and the arguments by name; returns those to change."""
    in_place: Duration = Field(default=timedelta(milliseconds=500), ge=timedelta(0))
    """A pause up to this is waited for where the step runs; a longer one is a timer, and holds no place."""

    @model_validator(mode="after")
    def _check_wait(self) -> "Retry":
        if isinstance(self.wait, timedelta) and self.wait < timedelta(0):
            raise ValueError(f"wait is {self.wait.total_seconds():g} s, but nothing waits for less than 0 s")
        return self

    @property
    def most(self) -> int | None:
        """The most attempts; None where a strategy alone decides."""
        return None if self.stop is not None and "attempts" not in self.model_fields_set else self.attempts

    @property
    def has_strategies(self) -> bool:
        """Whether one of another make has to be asked."""
        return self.stop is not None or not isinstance(self.wait, timedelta) or not isinstance(self.on, tuple)

    @field_serializer("on", when_used="json")
    def _name_errors(self, on: Any) -> list[str]:
        if not isinstance(on, tuple):
            return [repr(on)]
        return [f"{cls.__module__}.{cls.__qualname__}" for cls in on]

    @field_serializer("wait", "stop", "change", when_used="json")
    def _name_strategies(self, given: Any) -> Any:
        return repr(given) if callable(given) else given


def decide_retry(
    retry: Retry, attempt: int, error: BaseException | None, random01: float, *, state: Any = None
) -> timedelta | None:
    """The pause before the next attempt, or None when this outcome is final.

    `attempt` is the number of the one that has ended, from 1; `error` is None where it has a result. `random01` lies in
    [0, 1) and moves the pause by up to `retry.jitter` of it either way, never above `retry.max_wait`. `state` is what
    strategies of another make are called with. An error of agentq's own is tried again only if it is `retryable`, or
    named by `on`: a wrong argument stays wrong. Who has lost the step tries nothing.
    """
    if attempt < 1:
        raise ValueError(f"attempt is {attempt}, but attempts count from 1")
    if isinstance(error, OwnershipLost) or (isinstance(error, AgentqError) and not _may_heal(retry, error)):
        return None
    if isinstance(retry.on, tuple):
        if error is None or not isinstance(error, retry.on):
            return None
    elif not retry.on(state):
        return None
    if retry.most is not None and attempt >= retry.most:
        return None
    pause = _by_strategy(retry, state) if callable(retry.wait) else decide_wait(retry, attempt, random01)
    if retry.stop is not None:
        # Some strategies stop before a pause that would be too long.
        state.upcoming_sleep = pause.total_seconds()
        if retry.stop(state):
            return None
    return pause


def decide_wait(retry: Retry, attempt: int, random01: float) -> timedelta:
    """The pause after this attempt: exponential, cut at `max_wait`, with proportional jitter.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ tells why the jitter; a share of
    the pause, rather than all of it, keeps the first pause near the `wait` that was asked for.
    """
    assert isinstance(retry.wait, timedelta)
    most = retry.max_wait.total_seconds()
    try:
        pause = min(retry.wait.total_seconds() * retry.factor ** (attempt - 1), most)
    except OverflowError:
        pause = most
    moved = pause * (1 + retry.jitter * (2 * random01 - 1))
    return timedelta(seconds=min(moved, most))


def asked_pause(error: BaseException | None, *, now: datetime) -> timedelta:
    """The pause that an error asks for: its `retry_after`, or the header `Retry-After` of its response; else none.

    Seconds or a date (https://httpwg.org/specs/rfc9110.html#field.retry-after). What cannot be read asks for nothing.
    """
    if error is None:
        return timedelta(0)
    asked = getattr(error, "retry_after", None)
    if asked is None:
        headers: Any = getattr(getattr(error, "response", None), "headers", None)
        if hasattr(headers, "get"):
            asked = headers.get("Retry-After") or headers.get("retry-after")
    pause = _read_pause(asked, now)
    return min(max(pause, timedelta(0)), LONGEST_ASKED)


def spread_pause(pause: timedelta, asked: timedelta, chance: float) -> timedelta:
    """The pause where the error asks for one: never shorter than it asks, nor than the policy's own.

    A crowd that was told the same time does not return as one: it spreads over as long again as the policy's pause.
    `chance` is between 0 and 1.
    """
    return max(pause, asked + pause * chance) if asked > timedelta(0) else pause


def changed_arguments(
    change: Change, attempt: int, error: BaseException | None, named: dict[str, Any], *, step: str
) -> dict[str, Any]:
    """What `change` gives attempt number `attempt`, by name; empty for nothing.

    Raises InvalidArguments for a name that the step does not have.
    """
    given = change(attempt, error, dict(named))
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        reason = "it must return the arguments to change, by name, or None"
        raise InvalidArguments(step=step, parameter="change", value=given, reason=reason)
    for name, value in given.items():
        if name not in named:
            reason = f"change= gives it, but the step has {', '.join(named) or 'no arguments'}"
            raise InvalidArguments(step=step, parameter=str(name), value=value, reason=reason)
    return dict(given)


def told(lines: Sequence[str], error: BaseException) -> BaseException:
    """The error, with what the attempts before it failed with in its traceback."""
    if lines:
        error.add_note(f"{EARLIER_FAILED}\n" + "\n".join(f"  {line}" for line in lines))
    return error


def _may_heal(retry: Retry, error: AgentqError) -> bool:
    """Whether another attempt may end otherwise: by the error's kind, or since the policy names that very kind."""
    named = [kind for kind in retry.on if issubclass(kind, AgentqError)] if isinstance(retry.on, tuple) else []
    return error.retryable or any(kind is not AgentqError and isinstance(error, kind) for kind in named)


def _by_strategy(retry: Retry, state: Any) -> timedelta:
    assert callable(retry.wait)
    return timedelta(seconds=max(0.0, float(retry.wait(state))))


def _read_pause(asked: Any, now: datetime) -> timedelta:
    if isinstance(asked, timedelta):
        return asked
    try:
        seconds = float(asked)
    except (TypeError, ValueError):
        return _until(asked, now)
    return timedelta(seconds=min(seconds, LONGEST_ASKED.total_seconds())) if isfinite(seconds) else timedelta(0)


def _until(date: Any, now: datetime) -> timedelta:
    try:
        found = parsedate_to_datetime(str(date))
    except ValueError:
        return timedelta(0)
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)) - now
