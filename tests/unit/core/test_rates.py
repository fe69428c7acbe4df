"""Rates, means and lulls."""

from math import inf
from random import Random

import pytest

from agentq.core.rates import Lulls, Mean, Rate


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
