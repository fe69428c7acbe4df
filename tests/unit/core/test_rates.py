"""Rates, means, bunches and lulls."""

from math import inf
from random import Random

import pytest

from agentq.core.rates import Bunches, Lulls, Mean, Rate


def test_a_young_rate_is_the_mean_of_its_life() -> None:
    rate = Rate(60.0)
    rate.see(10, 2.0)
    assert rate.value == 5.0


def test_a_rate_follows_a_change_within_a_few_of_its_constants() -> None:
    rate = Rate(10.0)
    for _ in range(100):
        rate.see(2, 1.0)
    assert rate.value == pytest.approx(2.0)
    for _ in range(10):
        rate.see(8, 1.0)
    assert rate.value == pytest.approx(2 + 6 * (1 - 0.3679), abs=0.05)


def test_a_rate_is_the_same_however_often_it_is_read() -> None:
    seldom, often = Rate(10.0), Rate(10.0)
    for _ in range(30):
        seldom.see(4, 2.0)
        for _ in range(8):
            often.see(0.5, 0.25)
    assert seldom.value == pytest.approx(often.value, rel=1e-6)


def test_no_time_changes_nothing() -> None:
    rate = Rate(10.0)
    rate.see(5, 0.0)
    assert (rate.value, rate.age_s) == (0.0, 0.0)


def test_mean_and_variation_are_those_of_the_sample() -> None:
    random = Random(7)
    mean = Mean(memory=5_000)
    for _ in range(5_000):
        mean.see(random.expovariate(0.5))
    assert mean.value == pytest.approx(2.0, rel=0.05)
    assert mean.variation == pytest.approx(1.0, rel=0.1)


def test_a_mean_forgets() -> None:
    mean = Mean(memory=20)
    for value in [10.0] * 500 + [1.0] * 200:
        mean.see(value)
    assert mean.value == pytest.approx(1.0, abs=0.01)


def test_before_there_is_anything_to_tell_the_variation_is_that_of_chance() -> None:
    assert Mean().variation == 1.0


def test_lulls_are_as_long_as_what_was_needed_was_not() -> None:
    lulls = Lulls(most_s=120)
    for now, level in [(0, 10), (5, 12), (10, 3), (30, 4), (50, 11), (55, 2), (75, 9)]:
        lulls.see(now, level)
    assert lulls.seconds == [40.0, 20.0]


def test_a_lull_that_nothing_waits_for_is_endless_and_the_lower_level_the_new_one() -> None:
    lulls = Lulls(most_s=120)
    for now, level in [(0, 10), (10, 2), (131, 2), (140, 0), (150, 2)]:
        lulls.see(now, level)
    assert lulls.seconds == [inf, 10.0]


def bunched(sizes: list[int], *, every: int = 20, seconds: float = 1.0) -> Bunches:
    """A second in which so many come, then seconds with none, over and over."""
    bunches = Bunches()
    for _ in range(60):
        for size in sizes:
            bunches.see(size, seconds)
            for _ in range(every - 1):
                bunches.see(0, seconds)
    return bunches


def test_a_bunch_has_its_size_and_asks_for_slots_that_begin_it_in_time() -> None:
    bunches = bunched([24])
    assert bunches.size == pytest.approx(24, rel=0.2)
    # 24 steps of two seconds, begun within four of seconds of patience and the block itself.
    assert 24 * 2 / (4 + 2.5) * 0.8 < bunches.slots(2.0, 4.0, 0.95) <= 24 * 2 / 4
    assert bunched([48]).slots(2.0, 4.0, 0.95) == pytest.approx(2 * bunches.slots(2.0, 4.0, 0.95), abs=1)


def test_the_rare_bunch_may_be_late() -> None:
    assert bunched([24] * 59 + [60]).slots(2.0, 4.0, 0.95) == pytest.approx(bunched([24]).slots(2.0, 4.0, 0.95), abs=1)


@pytest.mark.parametrize("rate", [0.2, 2.0, 20.0])
def test_what_comes_by_chance_is_no_bunch(rate: float) -> None:
    random, bunches = Random(3), Bunches()
    for _ in range(1200):
        came, at = 0, random.expovariate(rate)
        while at < 1:
            came, at = came + 1, at + random.expovariate(rate)
        bunches.see(came, 1.0)
    assert bunches.size < 1.5
    assert bunches.slots(2.0, 4.0, 0.95) == 0


def test_a_new_level_is_no_bunch() -> None:
    bunches = Bunches()
    for level in (2, 12, 3, 10) * 3:
        for _ in range(90):
            bunches.see(level, 1.0)
    assert bunches.size < 1.5


def test_bunches_are_forgotten() -> None:
    bunches = bunched([24])
    for _ in range(800):
        bunches.see(3, 1.0)
    assert bunches.slots(2.0, 4.0, 0.95) == 0


def test_before_there_is_anything_to_learn_from_nothing_is_a_bunch() -> None:
    bunches = Bunches()
    bunches.see(100, 1.0)
    assert (bunches.size, bunches.slots(2.0, 4.0, 0.95)) == (1.0, 0.0)
