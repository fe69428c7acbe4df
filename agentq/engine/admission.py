"""An attempt asks all its guards at once whether it may go on, and tells them how it went with its commit."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from agentq.core.errors import BreakerOpen, BudgetExceeded, InvalidArguments, LimitReached, from_wire
from agentq.core.guards import Breaker, Rate
from agentq.core.key_template import fill
from agentq.core.models import Usage
from agentq.engine.budgets import accounts_of, needs_admission
from agentq.engine.cached import wish_of
from agentq.engine.ending import Interrupted, Waits, usage_of
from agentq.engine.outcome import keep_trying
from agentq.engine.this_step import priced
from agentq.store.admissions import Admission, AdmissionReply, breaker_wish, rate_wish

if TYPE_CHECKING:
    from agentq.engine.attempt import Attempt

OWN_NAMES: Final = ("tenant", "step")
"""What a guard's name may stand for beside the step's arguments; an argument of that name goes first."""


def admit(attempt: Attempt, *, refresh: bool = False, instead: Any = None) -> AdmissionReply | None:
    """Return once the attempt may go on (``go``) or the cache has answered (``cached``); None when it has no guards.

    One round trip. A second call of the same attempt first settles what the one before has reserved. ``refresh``: what
    the cache holds is of no use. ``instead``: a fallback step that is about to be called in this one's place; it has
    guards, and does not wait for them.

    Raises:
        Waits: the step stands in a line now, and the attempt is over.
        BreakerOpen: a breaker is open, and the step has a fallback, or is one.
        LimitReached: there is no room for the fallback now.
        Interrupted: a budget refuses it; nothing is tried in its place.
        BudgetExceeded: a budget is used up, and the step is to take its cheaper way.
    """
    admission = _admission_instead(attempt, instead) if instead is not None else _admission_of(attempt, refresh=refresh)
    if admission is None:
        return None
    token = attempt.store.new_token()
    reply = keep_trying(lambda: attempt.store.admit(attempt.holder, admission, token=token, name=attempt.task.name))
    if admission.before is not None:
        attempt.settled()
    match reply.verdict:
        case "go":
            attempt.admitted = True
        case "cached":
            pass
        case "waits":
            raise Waits(f"step {attempt.step_id} waits in line")
        case "open":
            raise BreakerOpen(name=reply.name, retry_after=reply.wait_ms / 1000)
        case "full":
            raise LimitReached(name=reply.name, retry_after=reply.wait_ms / 1000)
        case _:
            error = from_wire(reply.refusal)
            if reply.verdict == "degraded" and attempt.task.agentq.fallbacks:
                assert isinstance(error, BudgetExceeded)
                raise error
            raise Interrupted(error)
    return reply


def asks(attempt: Attempt) -> bool:
    """Tell whether an attempt has anything to ask before its function is called."""
    guarded = attempt.task.agentq.is_guarded and not attempt.task.is_agent
    return guarded or _is_charged(attempt, accounts_of(attempt))


def _is_charged(attempt: Attempt, accounts: Sequence[dict[str, Any]]) -> bool:
    return attempt.is_over_budget or (needs_admission(accounts) and not attempt.task.is_agent)


def _admission_of(attempt: Attempt, *, refresh: bool) -> Admission | None:
    """Return what the attempt has to ask; None when it has no guards."""
    options = attempt.task.agentq
    accounts = accounts_of(attempt)
    charged, guarded = _is_charged(attempt, accounts), options.is_guarded and not attempt.task.is_agent
    if not guarded and not charged:
        return None
    estimate = _estimate_of(attempt, attempt.task) if not attempt.task.is_agent else Usage()
    return Admission(
        gates=_gates_of(attempt, attempt.task) if guarded else (),
        accounts=accounts if charged else (),
        tokens=estimate.tokens_in + estimate.tokens_out,
        usd_micro=int(estimate.usd * 1_000_000),
        attempts=charged,
        depth=int(attempt.ours.get("dp", 0)),
        fallback=bool(options.fallbacks),
        cache=wish_of(attempt, refresh=refresh),
        before=_before(attempt),
    )


def _admission_instead(attempt: Attempt, fallback: Any) -> Admission:
    """Return what a fallback asks; of budgets nothing, since it is the cheaper way."""
    estimate = _estimate_of(attempt, fallback)
    return Admission(
        gates=_gates_of(attempt, fallback),
        tokens=estimate.tokens_in + estimate.tokens_out,
        before=_before(attempt),
        charged=accounts_of(attempt),
        at_once=True,
    )


def _before(attempt: Attempt) -> dict[str, Any] | None:
    return attempt.settlement() | {"usage": usage_of(attempt.spent)} if attempt.admitted else None


def _gates_of(attempt: Attempt, task: Any) -> list[dict[str, Any]]:
    options, name = task.agentq, task.name
    values: Mapping[str, Any] = {}
    if any("{" in template for _, template in options.templates()):
        values = {"tenant": (attempt.ours.get("cd") or {}).get("tenant") or "", "step": name, **_named(attempt, task)}
    gates = [_breaker(each, fill(each.name, values, step=name)) for each in options.breakers]
    for rate in options.rates:
        gates.extend(_rate(rate, fill(rate.name, values, step=name)))
    for limit in options.limits:
        # Apart from a rate of the same name, whose requests and tokens would count for nothing.
        gates.append(rate_wish(fill(limit.key, values, step=name), in_flight=limit.slots, part="limit"))
    if options.concurrency is not None:
        gates.append(rate_wish(f"step:{name}", in_flight=options.concurrency, part="concurrency"))
    return list({gate["d"]: gate for gate in gates}.values())


def _named(attempt: Attempt, task: Any) -> Mapping[str, Any]:
    """Return the attempt's arguments by the names that the task has for them, defaults included."""
    args, kwargs = attempt.arguments
    bound = inspect.signature(task.run).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _breaker(breaker: Breaker, name: str) -> dict[str, Any]:
    return breaker_wish(
        name,
        rate=breaker.rate,
        volume=breaker.volume,
        window_ms=_ms(breaker.window),
        reset_ms=_ms(breaker.reset_after),
        jitter=breaker.jitter,
        probes=breaker.probes,
    )


def _rate(rate: Rate, name: str) -> Sequence[dict[str, Any]]:
    requests, tokens = rate.requests, rate.tokens
    if requests is None or tokens is None or requests.window == tokens.window:
        window = requests.window if requests is not None else tokens.window if tokens is not None else None
        return [
            rate_wish(
                name,
                in_flight=rate.in_flight,
                requests=requests.amount if requests is not None else None,
                tokens=tokens.amount if tokens is not None else None,
                window_ms=_ms(window) if window is not None else None,
            )
        ]
    return [
        rate_wish(name, in_flight=rate.in_flight, requests=requests.amount, window_ms=_ms(requests.window)),
        rate_wish(name, tokens=tokens.amount, window_ms=_ms(tokens.window), part="tokens"),
    ]


def _estimate_of(attempt: Attempt, task: Any) -> Usage:
    """Return what the step says that it is going to use; money by the prices where it names a model."""
    estimate = task.agentq.estimate
    if callable(estimate):
        args, kwargs = attempt.arguments
        estimate = estimate(*args, **kwargs)
    if estimate is None:
        return Usage()
    if isinstance(estimate, int) and not isinstance(estimate, bool) and estimate >= 0:
        return Usage(tokens_in=estimate)
    if not isinstance(estimate, Usage):
        reason = "it must return a number of tokens, or a Usage"
        raise InvalidArguments(step=task.name, parameter="estimate", value=estimate, reason=reason)
    return priced(attempt.binding.prices, estimate)


def _ms(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)
