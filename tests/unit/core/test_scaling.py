"""How many workers a pool should have: each part of the law alone, then what holds for all loads."""

from datetime import timedelta
from decimal import Decimal
from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentq.core.scaling import Asked, Objective, PoolLoad, decide_rate, decide_size, decide_window

WIDE = Objective(most=1_000, slo_wait=timedelta(seconds=5), best_effort=True)


def steady(**more: float) -> PoolLoad:
    return PoolLoad.model_validate({"quick_rate": 5, "calm_rate": 5, "service_s": 2, "startup_s": 15, **more})


def test_a_steady_load_gets_the_slots_of_its_objective() -> None:
    size = decide_size(steady(ready=12), WIDE)
    assert 11 <= size.workers <= 13
    assert size.why == "5 steps/s of 2 s each"


def test_a_stricter_objective_gets_more() -> None:
    strict = WIDE.model_copy(update={"slo_wait": timedelta(milliseconds=100)})
    assert decide_size(steady(), strict).workers > decide_size(steady(ready=12), WIDE).workers


def test_slots_of_one_worker_count() -> None:
    one, four = decide_size(steady(ready=12), WIDE), decide_size(steady(ready=3, slots=4), WIDE)
    assert four.workers == ceil(one.workers / 4)


def test_where_steps_come_in_bunches_slots_stay_for_the_next_one_and_nothing_is_held_up() -> None:
    past = [Asked(5, 40)]
    calm = decide_size(steady(ready=40, bunch_slots=14.2, window_s=60), WIDE, past)
    assert calm.workers == 15
    assert calm.why == "steps come in bunches: 14 slots began those of the last minutes in time"
    assert decide_size(steady(ready=40, window_s=60), WIDE, past).workers == 40
    said = WIDE.model_copy(update={"window": timedelta(seconds=60)})
    assert decide_size(steady(ready=40, bunch_slots=14.2), said, past).workers == 40


def test_in_bunches_what_agents_will_ask_for_next_is_reckoned_with() -> None:
    blind, seeing = (
        decide_size(steady(ready=30, bunch_slots=14, running=8, expected=each, expected_in_s=9), WIDE).terms["bunches"]
        for each in (0, 40)
    )
    assert blind == 14
    assert seeing == pytest.approx((8 + 40) * 2 / (5 * 0.7 + 2))


def test_what_chance_explains_moves_nothing() -> None:
    assert decide_rate(steady(quick_rate=5.9)) == (5.0, 5.0)


def test_a_trend_leads_up_to_the_time_at_which_a_worker_is_ready() -> None:
    now, soon = decide_rate(steady(quick_rate=10))
    assert now == 10
    assert soon == 10 + 5 / 50 * (10 + 15)


def test_a_trend_never_lowers() -> None:
    assert decide_rate(steady(quick_rate=2, calm_rate=8)) == (2, 2)


def test_a_backlog_that_is_gone_before_a_worker_could_help_orders_none() -> None:
    assert decide_size(steady(ready=14, waiting=20), WIDE).terms["backlog"] == 0
    assert decide_size(steady(ready=14, waiting=200), WIDE).terms["backlog"] > 30


def test_workers_that_start_already_count_by_how_long_ago_they_were_ordered() -> None:
    just, long = (decide_size(steady(ready=2, starting=20, starting_s=age, waiting=60), WIDE) for age in (0, 14))
    assert long.terms["backlog"] < just.terms["backlog"]


def test_panic_halves_the_time_and_lets_none_go() -> None:
    calm, panic = (decide_size(steady(ready=2, waiting=60, oldest_wait_s=wait), WIDE) for wait in (1, 3))
    assert panic.workers > calm.workers
    assert panic.why.startswith("panic: 60 waiting")
    assert decide_size(steady(ready=40, waiting=1, oldest_wait_s=3), WIDE).workers == 40


def test_timers_and_what_agents_will_ask_for_count_before_they_arrive() -> None:
    plain = decide_size(steady(ready=11), WIDE)
    due = decide_size(steady(ready=11, due_soon=100), WIDE)
    asked = decide_size(steady(ready=11, expected=130, expected_in_s=6), WIDE)
    assert due.workers == asked.workers > plain.workers
    assert "100 due" in due.why
    assert "100 expected" in asked.why


def test_of_what_is_expected_the_rate_knows_its_usual_share() -> None:
    assert decide_size(steady(ready=11, expected=30, expected_in_s=6), WIDE) == decide_size(steady(ready=11), WIDE)


def test_shrinking_goes_to_the_largest_number_of_the_window() -> None:
    past = [Asked(40, 90), Asked(10, 25), Asked(5, 18)]
    size = decide_size(steady(ready=60), WIDE, past)
    assert size.workers == 25
    assert size.asked < 15
    assert "within the last 15 s" in size.why


def test_the_window_of_the_settings_goes_before_the_learned_one() -> None:
    past = [Asked(20, 50)]
    assert decide_size(steady(ready=60, window_s=60), WIDE, past).workers == 50
    fixed = WIDE.model_copy(update={"window": timedelta(seconds=1)})
    assert decide_size(steady(ready=60, window_s=60), fixed, past).workers < 20


def test_it_sleeps_only_after_its_idle_time_and_with_nothing_due() -> None:
    def idle(seconds: float, **more: float) -> PoolLoad:
        return PoolLoad.model_validate({"service_s": 2, "startup_s": 3, "ready": 1, "idle_s": seconds, **more})

    assert decide_size(idle(59), WIDE).workers == 1
    assert decide_size(idle(61), WIDE).workers == 0
    assert decide_size(idle(61, due_soon=1), WIDE).workers == 1
    assert decide_size(idle(61, expected=2.0), WIDE).workers == 1
    assert decide_size(idle(61, expected=0.2), WIDE).workers == 0
    assert decide_size(idle(61, ready=0, expected=2.0), WIDE).workers == 2


def test_a_pool_that_starts_too_slowly_does_not_sleep_and_says_so() -> None:
    load = PoolLoad(service_s=2, startup_s=30, ready=1, idle_s=600)
    refused = decide_size(load, WIDE.model_copy(update={"best_effort": False}))
    assert refused.workers == 1
    assert "slower than the objective" in refused.why
    assert decide_size(load, WIDE).workers == 0


def test_from_zero_the_first_steps_get_a_slot_each() -> None:
    assert decide_size(PoolLoad(waiting=7), WIDE).workers == 7


@pytest.mark.parametrize(
    ("objective", "load", "workers", "word"),
    [
        ({"most": 5}, {}, 5, "at most 5 workers"),
        ({"usd_per_hour": Decimal(9), "cost_per_hour": Decimal(2)}, {}, 4, "9 USD per hour"),
        ({}, {"provider_slots": 7}, 7, "provider's rate limit"),
        ({}, {"is_breaker_open": True, "ready": 2, "starting": 1}, 3, "breaker"),
        ({}, {"is_breaker_open": True}, 1, "breaker"),
        ({"least": 2}, {"is_breaker_open": True, "ready": 1}, 2, "breaker"),
        ({"least": 30}, {}, 30, "at least 30"),
    ],
)
def test_caps(objective: dict[str, object], load: dict[str, float], workers: int, word: str) -> None:
    size = decide_size(steady(waiting=100, **load), Objective.model_validate({**WIDE.model_dump(), **objective}))
    if objective == {"least": 30}:
        size = decide_size(steady(ready=11), Objective.model_validate({**WIDE.model_dump(), **objective}))
    assert size.workers == workers
    assert word in size.why


def test_the_least_may_not_be_more_than_the_most() -> None:
    with pytest.raises(ValidationError, match="least is 9, but must be at most most"):
        Objective(least=9, most=3)


loads = st.builds(
    PoolLoad,
    waiting=st.integers(0, 10_000),
    oldest_wait_s=st.floats(0, 1_000),
    running=st.integers(0, 500),
    quick_rate=st.floats(0, 500),
    calm_rate=st.floats(0, 500),
    service_s=st.floats(0.001, 100),
    variation=st.floats(0, 20),
    due_soon=st.integers(0, 1_000),
    expected=st.floats(0, 1_000),
    expected_in_s=st.floats(0, 100),
    startup_s=st.floats(0, 200),
    ready=st.integers(0, 500),
    starting=st.integers(0, 100),
    starting_s=st.floats(0, 300),
    idle_s=st.floats(0, 1_000),
    slots=st.integers(1, 64),
)
objectives = st.builds(Objective, least=st.integers(0, 5), most=st.integers(5, 600), best_effort=st.booleans())


@given(loads, objectives)
def test_the_size_stays_between_its_ends(load: PoolLoad, objective: Objective) -> None:
    assert objective.least <= decide_size(load, objective).workers <= max(objective.most, objective.least)


@given(loads, objectives, st.integers(1, 1_000))
def test_more_waiting_never_means_fewer(load: PoolLoad, objective: Objective, more: int) -> None:
    busier = load.model_copy(update={"waiting": load.waiting + more})
    assert decide_size(busier, objective).asked >= decide_size(load, objective).asked


@given(loads, objectives, st.lists(st.builds(Asked, st.floats(0, 100), st.integers(0, 600))))
def test_the_past_only_holds_up(load: PoolLoad, objective: Objective, past: list[Asked]) -> None:
    alone, after = decide_size(load, objective), decide_size(load, objective, past)
    assert after.workers >= alone.workers
    assert after.asked == alone.asked
    assert after.workers <= max(alone.workers, load.ready + load.starting)


def test_the_window_is_learned_from_lulls() -> None:
    assert decide_window([], 15) == 15
    assert decide_window([25.0] * 6, 15) == 30
    assert decide_window([50.0] * 6, 15) == 60
    assert decide_window([100.0] * 6, 15) == 15
    assert decide_window([inf] * 6, 15) == 15


def test_what_no_pool_could_carry_is_not_counted_slot_by_slot() -> None:
    load = PoolLoad(quick_rate=10_000, calm_rate=10_000, forecast_rate=10_000, service_s=2, slots=4, ready=1)
    size = decide_size(load, Objective(most=5))
    assert (size.workers, size.forecast, size.why) == (5, 5, "at most 5 workers")
    assert size.terms["steady"] == 21
