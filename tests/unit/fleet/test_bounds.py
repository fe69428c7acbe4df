"""What bounds a pool from outside: rates of providers, limits, open breakers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Literal

from agentq.core.guards import Breaker, Limit, Rate
from agentq.core.models import GateSummary
from agentq.engine.options import StepOptions
from agentq.fleet.bounds import Bound, bound_of, gates_of
from agentq.fleet.sensors import PoolSensor
from tests.unit.fleet.test_sensors import glance, sums


def sensed(**steps: tuple[int, int, int]) -> PoolSensor:
    """Of each step its attempts, their ms and tokens each."""
    sensor = PoolSensor()
    ended = {name: sums(many, ms, tokens=many * tokens) for name, (many, ms, tokens) in steps.items()}
    sensor.see(1_000, glance(ended=ended))
    return sensor


def guarded(**options: Any) -> dict[str, Any]:
    return gates_of({"answer": SimpleNamespace(agentq=StepOptions(**options)), "plain": SimpleNamespace()})


def gate(name: str, kind: Literal["breaker", "limit"] = "breaker", state: Any = "open") -> GateSummary:
    return GateSummary(kind=kind, name=name, state=state if kind == "breaker" else None)


NOW = datetime(2026, 3, 1, tzinfo=UTC)


def bound(sensor: PoolSensor, gates: dict[str, Any], standing: list[GateSummary]) -> Bound:
    return bound_of(sensor, gates, standing, int(NOW.timestamp() * 1000))


def test_a_pool_without_guards_has_no_bound() -> None:
    assert guarded() == {}
    assert bound(sensed(answer=(10, 1000, 0)), {}, []).slots is None


def test_calls_a_second_carry_as_many_slots_as_last_so_long() -> None:
    gates = guarded(rate=Rate("openai", requests="120/min"))
    assert bound(sensed(answer=(100, 3000, 0)), gates, []).slots == 6


def test_tokens_a_second_carry_by_what_a_step_uses() -> None:
    gates = guarded(rate=Rate("openai", tokens="60k/min"))
    # A thousand tokens each second, five hundred a step: two steps a second, of four seconds each.
    assert bound(sensed(answer=(100, 4000, 500)), gates, []).slots == 8


def test_a_limit_is_what_it_says_and_the_tightest_counts() -> None:
    gates = guarded(limit=Limit("disk", 3), rate=Rate("openai", requests="600/min"))
    assert bound(sensed(answer=(100, 1000, 0)), gates, []).slots == 3


def test_a_bound_of_few_steps_is_none_of_the_pool() -> None:
    gates = guarded(limit=Limit("disk", 3))
    assert bound(sensed(answer=(10, 1000, 0), read=(90, 1000, 0)), gates, []).slots is None


def test_a_gate_for_each_name_that_its_places_were_filled_with() -> None:
    gates = guarded(rate=Rate("llm:{model}", in_flight=4))
    known = [gate("llm:small", "limit"), gate("llm:large", "limit"), gate("disk", "limit")]
    assert bound(sensed(answer=(100, 1000, 0)), gates, known).slots == 8


def test_an_open_breaker_counts_where_most_stands_behind_it() -> None:
    gates = guarded(breaker=Breaker("llm:{model}"))
    assert bound(sensed(answer=(100, 1000, 0)), gates, [gate("llm:small")]).breaker == "llm:small"
    assert bound(sensed(answer=(100, 1000, 0)), gates, [gate("llm:small", state="closed")]).breaker is None
    assert bound(sensed(answer=(100, 1000, 0)), gates, [gate("other")]).breaker is None
    mostly_others = sensed(answer=(10, 1000, 0), read=(90, 1000, 0))
    assert bound(mostly_others, gates, [gate("llm:small")]).breaker is None


def test_a_breaker_that_nobody_has_asked_since_its_time_is_over_holds_nothing() -> None:
    gates, sensor, still = guarded(breaker=Breaker("llm")), sensed(answer=(100, 1000, 0)), timedelta(seconds=1)
    for until, named in ((NOW + still, "llm"), (NOW - still, None)):
        assert bound(sensor, gates, [gate("llm").model_copy(update={"opens_until": until})]).breaker == named


def test_steps_with_a_fallback_go_on_behind_an_open_breaker() -> None:
    gates = guarded(breaker=Breaker("llm"), fallback=lambda: None)
    assert bound(sensed(answer=(100, 1000, 0)), gates, [gate("llm")]).breaker is None
