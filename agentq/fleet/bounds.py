"""What bounds a pool from outside: providers' rates, limits, and breakers that are open.

More workers than these carry would only wait with the others. It knows what steps declare and how gates stand, and
of the pool which of its time goes to which step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from math import ceil, inf
from string import Formatter
from typing import Any, Final

from agentq.core.models import GateSummary
from agentq.fleet.sensors import PoolSensor

MOSTLY: Final = 0.5
"""A bound of steps that take a smaller share of the pool's time is none of the pool: the others go on."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One guard of a step.

    Attributes:
        name: with places for arguments, as it was declared.
        in_flight, requests_s, tokens_s: what a limit or rate lets go: at once, and each second; infinite for no bound.
    """

    kind: str
    name: str
    in_flight: float = inf
    requests_s: float = inf
    tokens_s: float = inf


@dataclass(frozen=True, slots=True)
class Bound:
    """What bounds a pool now.

    Attributes:
        slots: how many steps at once the providers' rates carry; None where they bound nothing.
        breaker: the name of an open one, behind which most of the pool's work stands; None for none.
    """

    slots: int | None = None
    breaker: str | None = None


def gates_of(tasks: Mapping[str, Any]) -> dict[str, tuple[Gate, ...]]:
    """The guards of the app's steps, by the step's name; of steps that have some."""
    found = {}
    for name, task in tasks.items():
        options = getattr(task, "agentq", None)
        if options is not None and options.is_guarded:
            found[name] = tuple(_gates(name, options))
    return found


def bound_of(
    sensor: PoolSensor, gates: Mapping[str, tuple[Gate, ...]], standing: Iterable[GateSummary], now_ms: int
) -> Bound:
    """What bounds the pool, by what its steps have guarded and how the gates stand."""
    total = sum(step.busy_s for step in sensor.steps.values())
    if total <= 0 or not gates:
        return Bound()
    now = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
    open_ones = [each.name for each in standing if each.kind == "breaker" and _is_open(each, now)]
    limits = [each.name for each in standing if each.kind == "limit"]
    slots, bounded, stopped, named = 0.0, 0.0, 0.0, None
    for name, step in sensor.steps.items():
        if step.attempts <= 0:
            continue
        mine = gates.get(name, ())
        behind = [each for gate in mine if gate.kind == "breaker" for each in open_ones if _is_of(gate.name, each)]
        if behind:
            stopped += step.attempts
            named = behind[0]
        carried = min(
            (_carries(gate, step.service.value, step.share(step.tokens), limits) for gate in mine), default=inf
        )
        if carried < inf:
            slots += carried
            bounded += step.busy_s
    attempts = sum(step.attempts for step in sensor.steps.values())
    share = bounded / total
    return Bound(
        slots=max(1, ceil(slots / share)) if share >= MOSTLY else None,
        breaker=named if attempts > 0 and stopped / attempts >= MOSTLY else None,
    )


def _is_open(breaker: GateSummary, now: datetime) -> bool:
    """Whether it lets nobody through. It turns half open only when somebody asks: its time may be over for long."""
    return breaker.state == "open" and (breaker.opens_until is None or now < breaker.opens_until)


def _carries(gate: Gate, service_s: float, tokens: float, known: Iterable[str]) -> float:
    """How many attempts at once keep the gate busy (https://en.wikipedia.org/wiki/Little%27s_law)."""
    if gate.kind == "breaker":
        return inf
    each = min(
        gate.in_flight,
        gate.requests_s * service_s if gate.requests_s < inf else inf,
        gate.tokens_s / tokens * service_s if tokens > 0 and gate.tokens_s < inf else inf,
    )
    # One gate for each name that its places were filled with.
    many = sum(_is_of(gate.name, name) for name in known) if "{" in gate.name else 1
    return each * max(many, 1)


def _gates(name: str, options: Any) -> Iterable[Gate]:
    # With a fallback a step goes on behind an open breaker.
    for breaker in () if options.fallbacks else options.breakers:
        yield Gate("breaker", breaker.name)
    for rate in options.rates:
        yield Gate(
            "limit",
            rate.name,
            in_flight=rate.in_flight if rate.in_flight is not None else inf,
            requests_s=_per_second(rate.requests),
            tokens_s=_per_second(rate.tokens),
        )
    for limit in options.limits:
        yield Gate("limit", limit.key, in_flight=limit.slots)
    if options.concurrency is not None:
        yield Gate("limit", name, in_flight=options.concurrency)


def _per_second(quota: Any) -> float:
    return inf if quota is None else float(quota.amount / quota.window.total_seconds())


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts = [re.escape(text) + ("" if field is None else ".*") for text, field, _, _ in Formatter().parse(template)]
    return re.compile("".join(parts))


def _is_of(template: str, name: str) -> bool:
    return template == name or ("{" in template and _pattern(template).fullmatch(name) is not None)
