"""What all workers count together: breakers, rates, limits and budgets, in front of a step and behind it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from agentq.core.models import CacheSummary, GateSummary
from agentq.store.refs import Holder
from agentq.store.steps import StepCalls
from agentq.store.wire import dump, moment

Admitted = Literal["go", "waits", "open", "full", "refused", "degraded", "cached"]
_VERDICTS: dict[int, Admitted] = {1: "go", 2: "waits", 3: "open", 4: "refused", 5: "degraded", 6: "cached"}

_STATES: dict[str | None, Literal["closed", "open", "half_open"]] = {
    None: "closed",
    "open": "open",
    "half": "half_open",
}
_KINDS: dict[str, Literal["breaker", "limit"]] = {"b": "breaker", "r": "limit"}


@dataclass(frozen=True, slots=True)
class Admission:
    """One question for all guards of a step.

    Attributes:
        gates: breakers, rates and limits, as `breaker_wish` and `rate_wish` make them.
        accounts: the budgets' that the step is charged to, as its header names them.
        tokens, usd_micro: what it is expected to use.
        attempts: whether the try counts on a budget.
        depth: how deep it stands.
        fallback: whether the step has something to do while a breaker is open.
        cache: of a cached step, as `cache_wish` makes it.
        before: how what this same attempt has reserved before went, for a second question.
        charged: the accounts for what it has used until then, where ``accounts`` are not asked.
        at_once: it does not wait: it is told when it may come again.
    """

    gates: Sequence[dict[str, Any]] = ()
    accounts: Sequence[dict[str, Any]] = ()
    tokens: int = 0
    usd_micro: int = 0
    attempts: bool = False
    depth: int = 0
    fallback: bool = False
    cache: dict[str, Any] | None = None
    before: Mapping[str, Any] | None = None
    charged: Sequence[dict[str, Any]] = ()
    at_once: bool = False

    def to_wire(self) -> dict[str, Any]:
        """Return the script's argument, without holder and token."""
        want = {"tokens": self.tokens, "usd_micro": self.usd_micro, "attempts": int(self.attempts)}
        want = {name: amount for name, amount in want.items() if amount}
        optional = {
            "gates": list(self.gates),
            "accounts": list(self.accounts),
            "want": want | ({"depth": self.depth} if self.depth else {}),
            "fb": int(self.fallback),
            "c": self.cache,
            "m": dict(self.before) if self.before is not None else None,
            "sa": list(self.charged),
            "nw": int(self.at_once),
        }
        return {name: value for name, value in optional.items() if value}


@dataclass(frozen=True, slots=True)
class AdmissionReply:
    """What the guards said.

    Attributes:
        verdict: ``go``; ``waits``: the step stands in a line and this attempt is over; ``open``: a breaker, named by
            ``name``, which may close in ``wait_ms``; ``full``: a limit, likewise, for what does not wait; ``refused``
            and ``degraded``: a budget's ``refusal``; ``cached``: it was answered before, with ``value`` (JSON).
    """

    verdict: Admitted
    name: str = ""
    wait_ms: int = 0
    refusal: dict[str, Any] = field(default_factory=dict)
    value: bytes = b""


class AdmissionCalls(StepCalls):
    """The scripts of shared guards; names are users' text and enter keys as a hash."""

    def admit(self, holder: Holder, admission: Admission, *, token: str, name: str = "") -> AdmissionReply:
        """Ask all guards of a step at once, and reserve what it is to use; the same token gets the same reply.

        Raises StaleHolder when another attempt holds the step.
        """
        reply = self.run_script("admit", dump({**holder.to_wire(), "token": token, **admission.to_wire()}))
        if int(reply[0]) == 0:
            self.expect_held(reply, holder, name)
        verdict = _VERDICTS[int(reply[0])]
        if verdict == "open":
            found: Admitted = "open" if reply[3] == b"b" else "full"
            return AdmissionReply(found, name=reply[1].decode(), wait_ms=int(float(reply[2])))
        if verdict in ("refused", "degraded"):
            return AdmissionReply(verdict, refusal=json.loads(reply[1]))
        if verdict == "cached":
            return AdmissionReply(verdict, value=reply[1])
        return AdmissionReply(verdict)

    def caches(self) -> list[CacheSummary]:
        """Return what is known of cached steps, by name."""
        found: dict[str, dict[str, int]] = {}
        for field_name, value in self.guarded(lambda: self.client.hgetall(self.keys.of("caches"))).items():
            counter, _, name = field_name.decode().partition("|")
            found.setdefault(name, {})[counter] = int(value)
        return [
            CacheSummary(
                step=name,
                hits=told.get("hits", 0),
                runs=told.get("runs", 0),
                saved_tokens=told.get("tokens", 0),
                saved_usd=Decimal(told.get("usd_micro", 0)) / 1_000_000,
            )
            for name, told in sorted(found.items())
        ]

    def drop_cache(self, step: str) -> bool:
        """Have all answers of a cached step count for nothing any more; False when no such step is known.

        Also that of an attempt that runs now.
        """
        if not any(each.step == step for each in self.caches()):
            return False
        self.guarded(lambda: self.client.hincrby(self.keys.of("caches"), f"ep|{step}", 1))
        return True

    def trip_breaker(self, name: str, *, span_ms: int | None = None) -> bool:
        """Open a breaker for a while, by default for its own; False when none of that name is known."""
        return (
            int(self.run_script("trip", digest_of(f"breaker\x00{name}"), "trip", "" if span_ms is None else span_ms))
            == 1
        )

    def reset_breaker(self, name: str) -> bool:
        """Close a breaker and forget its failures; False when none of that name is known."""
        return int(self.run_script("trip", digest_of(f"breaker\x00{name}"), "reset", "")) == 1

    def gates(self, kind: Literal["breaker", "limit"] | None = None) -> list[GateSummary]:
        """Return what is known of breakers, rates and limits, by name."""
        found: list[GateSummary] = []
        names = [name.decode() for name in self.guarded(lambda: self.client.zrange(self.keys.of("gates"), 0, -1))]
        now_ms = self.now_ms()
        for at in range(0, len(names), 200):
            chunk = names[at : at + 200]
            with self.client.pipeline(transaction=False) as pipe:
                for digest in chunk:
                    pipe.hgetall(self.keys.of("gate", digest))
                    pipe.zcard(self.keys.of("waiters", digest))
                replies = self.guarded(pipe.execute)
            for fields, waiting in zip(replies[::2], replies[1::2], strict=True):
                told = {name.decode(): value.decode() for name, value in fields.items()}
                if told.get("k") in _KINDS and kind in (None, _KINDS[told["k"]]):
                    found.append(_summary(told, waiting, now_ms))
        return sorted(found, key=lambda each: (each.kind, each.name))


def _summary(told: dict[str, str], waiting: int, now_ms: int) -> GateSummary:
    window_ms = float(told["wn"]) if "wn" in told else None
    first = 0 if window_ms is None else int(now_ms // -(-window_ms // 20)) - 20
    buckets = {int(name[1:]): value for name, value in told.items() if name[0] == "b" and name[1:].isdigit()}
    shares = [value.split("|") for number, value in buckets.items() if number >= first]
    one, two = (sum(int(pair[at]) for pair in shares) for at in (0, 1))
    breaker = told["k"] == "b"
    state = _STATES[told.get("st")] if breaker else None
    return GateSummary(
        kind=_KINDS[told["k"]],
        name=told.get("nm", ""),
        state=state,
        opens_until=moment(told.get("un")) if state == "open" else None,
        calls=one if breaker else None,
        errors=two if breaker else None,
        trips=int(told.get("tp", 0)) if breaker else None,
        in_flight=int(told.get("pn" if breaker else "o", 0)),
        slots=int(told["in"]) if "in" in told else None,
        requests=None if breaker or "rq" not in told else one + int(told.get("o", 0)),
        requests_limit=int(told["rq"]) if "rq" in told else None,
        tokens=None if "tk" not in told else two + int(told.get("ot", 0)),
        tokens_limit=int(told["tk"]) if "tk" in told else None,
        window_ms=int(window_ms) if window_ms is not None else None,
        waiting=int(waiting),
    )


def cache_wish(name: str, digest: str, *, refresh: bool = False, alone: bool = False) -> dict[str, Any]:
    """Return a cached step as the script knows it; ``digest`` stands for name, version, tenant and arguments.

    ``refresh``: what is kept is of no use; ``alone``: it need not wait for another attempt that makes the same answer.
    """
    return {"d": digest, "nm": name} | ({"sk": 1} if refresh else {}) | ({"fr": 1} if alone else {})


def digest_of(name: str) -> str:
    """Return the part of a key that stands for a guard's name."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def breaker_wish(
    name: str, *, rate: float, volume: int, window_ms: int, reset_ms: int, jitter: float, probes: int
) -> dict[str, Any]:
    """Return a breaker as the script knows it."""
    settings = {"rt": rate, "vo": volume, "wn": window_ms, "rs": reset_ms, "jt": jitter, "pk": probes}
    return {"d": digest_of(f"breaker\x00{name}"), "k": "b", "nm": name, **settings}


def rate_wish(
    name: str,
    *,
    in_flight: int | None = None,
    requests: int | None = None,
    tokens: int | None = None,
    window_ms: int | None = None,
    part: str = "",
) -> dict[str, Any]:
    """Return a rate or a limit as the script knows it; ``part`` tells two apart that have one name."""
    settings = {"in": in_flight, "rq": requests, "tk": tokens, "wn": window_ms}
    given = {field: value for field, value in settings.items() if value is not None}
    return {"d": digest_of(f"limit\x00{name}\x00{part}"), "k": "r", "nm": name, **given}
