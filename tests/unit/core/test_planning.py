"""Mixes of machine sizes: what a load needs, and in which order mixes are worth a try."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentq.core.planning import (
    Mix,
    Need,
    Shape,
    Window,
    decide_candidates,
    estimate,
    needed_at,
    needs_of,
    neighbours,
)

SMALL = Shape(name="small", slots=1, cost_per_hour=0.1)
LARGE = Shape(name="large", slots=8, cost_per_hour=0.4)
DAY = (Need(2, 3000.0), Need(8, 500.0), Need(20, 100.0))


def test_a_busier_minute_needs_more_slots_and_an_empty_one_none() -> None:
    calm, busy, none = Window(60, 1, 2, 1), Window(60, 5, 2, 1), Window(60, 0, 0, 1)
    needs = needs_of([busy, calm, none, calm], 5.0)
    assert [need.seconds for need in needs] == [60, 120, 60]
    assert needs[0].slots == 0 < needs[1].slots < needs[2].slots


def test_a_shorter_wait_needs_more_slots() -> None:
    window = Window(60, 5, 2, 1)
    assert needs_of([window], 0.1)[-1].slots > needs_of([window], 10.0)[-1].slots


@pytest.mark.parametrize(("share", "slots"), [(0.0, 2), (0.8, 2), (0.95, 8), (1.0, 20)])
def test_the_slots_that_are_enough_for_a_share_of_the_time(share: float, slots: int) -> None:
    assert needed_at(share, DAY) == slots


def test_what_comes_and_goes_costs_while_it_is_there_and_whole_machines_only() -> None:
    seconds = 3600.0
    assert estimate(Mix(None, 0, SMALL), DAY) == pytest.approx(0.1 * (2 * 3000 + 8 * 500 + 20 * 100) / seconds)
    assert estimate(Mix(None, 0, LARGE), DAY) == pytest.approx(0.4 * (1 * 3000 + 1 * 500 + 3 * 100) / seconds)
    mixed = Mix(LARGE, 1, SMALL)
    assert estimate(mixed, DAY) == pytest.approx(0.4 + 0.1 * 12 * 100 / seconds)


def test_candidates_hold_each_shape_alone_and_come_cheapest_first() -> None:
    found = decide_candidates([SMALL, LARGE], DAY)
    costs = [each.cost for each in found]
    assert costs == sorted(costs)
    mixes = [each.mix for each in found]
    assert len(set(mixes)) == len(mixes)
    for shape in (SMALL, LARGE):
        assert Mix(None, 0, shape) in mixes
        assert any(mix.base == shape and mix.elastic is None and mix.fixed_slots >= 20 for mix in mixes)


def test_a_mix_says_what_it_is() -> None:
    assert str(Mix(LARGE, 2, SMALL)) == "2 large, and small as needed"
    assert str(Mix(None, 0, SMALL)) == "small as needed"
    assert str(Mix(LARGE, 3, None)) == "3 large"
    assert Mix(LARGE, 2, SMALL).largest == LARGE


def test_neighbours_are_a_little_less_and_a_little_more() -> None:
    assert [mix.number for mix in neighbours(Mix(LARGE, 2, SMALL))] == [1, 3, 4]
    assert neighbours(Mix(None, 0, SMALL)) == []


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"cost_per_hour": -1}, {"name": "a b"}, {"startup_s": -1}])
def test_an_impossible_shape_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Shape.model_validate({"name": "x", "slots": 1, "cost_per_hour": 1, **wrong})


needs = st.lists(st.tuples(st.integers(0, 60), st.floats(1, 1000)), min_size=1, max_size=6, unique_by=lambda e: e[0])


@given(needs, st.integers(1, 16), st.integers(0, 20))
def test_no_estimate_is_below_what_the_work_costs(found: list[tuple[int, float]], slots: int, number: int) -> None:
    day = tuple(Need(*each) for each in sorted(found))
    shape = Shape(name="x", slots=slots, cost_per_hour=1)
    base = shape if number else None
    mean = sum(need.slots * need.seconds for need in day) / sum(need.seconds for need in day)
    assert estimate(Mix(base, number, shape), day) >= mean / slots - 1e-9
    assert estimate(Mix(base, number, shape), day) <= number + ceil(day[-1].slots / slots) + 1e-9
