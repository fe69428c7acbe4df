"""Waits by queueing theory, beside known values and beside a simulation."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentq.core.erlang import slots_for, wait_at, waiting_chance


@pytest.mark.parametrize(
    ("slots", "load", "chance"),
    # Tables of Erlang C, for example https://www.erlang.com/calculator/erlc; one slot waits with its utilisation.
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (5, 4.0, 0.5541), (10, 8.0, 0.4092), (20, 18.0, 0.5508)],
)
def test_the_chance_to_wait_is_that_of_the_tables(slots: int, load: float, chance: float) -> None:
    assert waiting_chance(slots, load) == pytest.approx(chance, abs=2e-4)


def test_no_load_never_waits_and_too_much_always() -> None:
    assert waiting_chance(3, 0.0) == 0.0
    assert waiting_chance(3, 3.0) == 1.0
    assert wait_at(0.95, slots=3, rate=1.5, service_s=2.0) == inf
    assert slots_for(1.0, quantile=0.95, rate=0.0, service_s=2.0) == 0


@given(st.floats(0.01, 200), st.floats(0.01, 20), st.floats(0.01, 30), st.floats(0.1, 3))
def test_the_fewest_slots_meet_the_objective_and_one_less_does_not(
    rate: float, service_s: float, wait_s: float, variation: float
) -> None:
    slots = slots_for(wait_s, quantile=0.95, rate=rate, service_s=service_s, variation=variation)

    def wait(number: int) -> float:
        return wait_at(0.95, slots=number, rate=rate, service_s=service_s, variation=variation)

    assert wait(slots) <= wait_s * (1 + 1e-9)
    assert slots == 1 or wait(slots - 1) >= wait_s * (1 - 1e-9)


def test_clockwork_needs_no_more_than_its_load() -> None:
    assert slots_for(0.1, quantile=0.95, rate=2.0, service_s=2.0, variation=0.0) == 5


@pytest.mark.parametrize(("rate", "answer"), [(100.0, 50), (24.99, 50), (2.0, 7)])
def test_of_more_slots_than_there_may_be_it_is_not_asked_how_many(rate: float, answer: int) -> None:
    assert slots_for(1.0, quantile=0.95, rate=rate, service_s=2.0, most=50) == answer
