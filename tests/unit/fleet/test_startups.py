"""How long workers take to start, of platforms that list none: what they were told counts, when they hear it."""

from __future__ import annotations

import pytest

from agentq.fleet.startups import ASSUMED_S, LONGEST_S, Startups


def told(startups: Startups, instances: int, at_s: float) -> None:
    startups.order(instances, int(at_s * 1000), is_listed=False)


def there(startups: Startups, workers: int, at_s: float) -> None:
    startups.count(workers, int(at_s * 1000))


@pytest.fixture
def startups() -> Startups:
    """Ten were started in eight seconds."""
    made = Startups()
    told(made, 10, 0)
    there(made, 10, 8)
    assert made.seconds == pytest.approx(8)
    return made


def test_a_change_that_the_platform_has_not_heard_is_no_slow_start(startups: Startups) -> None:
    # An HPA leaves eleven for ten as it is, and acts when it is told sixteen.
    for second in range(10, 310):
        told(startups, 11, second)
    told(startups, 16, 310)
    there(startups, 16, 318)
    assert startups.seconds == pytest.approx(8)


def test_a_change_that_has_just_been_heard_is_as_old_as_it_is(startups: Startups) -> None:
    told(startups, 11, 10)
    told(startups, 12, 20)
    there(startups, 12, 26)
    assert 8 < startups.seconds < 10, "sixteen seconds, and six"


def test_who_comes_long_after_was_started_for_another_reason(startups: Startups) -> None:
    told(startups, 11, 10)
    there(startups, 11, 10 + LONGEST_S)
    assert startups.seconds == pytest.approx(8)


def test_slow_starts_are_learnt_while_the_number_grows() -> None:
    startups = Startups()
    # Four minutes each, one more asked for every ten seconds.
    for second in range(0, 1200, 10):
        there(startups, max(0, (second - 240) // 10), second)
        told(startups, 1 + second // 10, second)
    assert ASSUMED_S < 60 < startups.seconds <= 250
