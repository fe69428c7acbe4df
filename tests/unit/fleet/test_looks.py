"""Looks at a platform that answers slowly: bounded in each round, all pools in their turn, and said."""

from __future__ import annotations

import pytest

from agentq.core.errors import DriverFailed
from agentq.fleet.drivers import Observed
from agentq.fleet.drivers.looks import LOOKS_S, STALE_S, Looks

POOLS = [f"pool-{number}" for number in range(20)]


class Slow:
    """A platform that takes so many seconds to tell of one pool; nothing else takes time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.now = 100.0
        self.asked: list[str] = []
        self.is_away = False

    def look(self, pool: str) -> Observed:
        self.asked.append(pool)
        self.now += self.seconds
        if self.is_away:
            raise DriverFailed(driver="slow", pool=pool, reason="it cannot be reached")
        return Observed(wanted=len(self.asked))

    def looks(self) -> Looks:
        return Looks(self.look, fresh_s=2.0, a_second=10, clock=lambda: self.now)


@pytest.mark.parametrize(("seconds", "each_round"), [(5.0, 1), (0.5, 4)])
def test_a_round_ends_in_time_and_all_are_looked_at_in_their_turn(seconds: float, each_round: int) -> None:
    slow = Slow(seconds)
    looks = slow.looks()
    for number in range(len(POOLS) // each_round):
        before = slow.now
        seen = looks.at(POOLS)
        assert slow.now - before <= LOOKS_S + seconds
        assert slow.asked == POOLS[: (number + 1) * each_round], "whom nobody has looked at for longest comes first"
        assert not any(seen[pool].is_unknown for pool in slow.asked[-each_round:])


def test_who_was_not_looked_at_for_long_is_unknown_and_that_is_said_of_all() -> None:
    slow = Slow(4.0)
    looks = slow.looks()
    first = looks.at(POOLS)
    assert [pool for pool in POOLS if not first[pool].is_unknown] == POOLS[:1]
    assert {each.trouble for each in first.values()} == {
        "the platform answers so slowly that not every pool is looked at in time"
    }
    for _ in range(2):
        assert not looks.at(POOLS)[POOLS[0]].is_unknown, "what was seen some seconds ago counts"
    slow.now += STALE_S
    assert looks.at(POOLS)[POOLS[0]].is_unknown
    # What comes and goes with each turn would be an event each time: it is told until all are seen in time again.
    slow.seconds = 0.5
    for _ in POOLS:
        looks.at(POOLS)
    assert {(each.is_unknown, each.trouble is None) for each in looks.at(POOLS).values()} == {(False, False)}
    slow.seconds = 0.0
    assert {(each.is_unknown, each.trouble) for each in looks.at(POOLS).values()} == {(False, None)}


def test_a_pools_own_trouble_comes_first() -> None:
    slow = Slow(5.0)
    looks = Looks(
        lambda pool: slow.look(pool) and Observed(None, trouble="no room"),
        fresh_s=2.0,
        a_second=10,
        clock=lambda: slow.now,
    )
    assert looks.at(POOLS)[POOLS[0]].trouble == "no room"


def test_what_was_changed_is_looked_at_first() -> None:
    slow = Slow(0.0)
    looks = slow.looks()
    looks.at(POOLS)
    looks.forget("pool-7")
    looks.at(POOLS)
    assert slow.asked == [*POOLS, "pool-7"]


def test_a_platform_that_is_away_is_asked_once() -> None:
    slow = Slow(5.0)
    slow.is_away = True
    with pytest.raises(DriverFailed, match="cannot be reached"):
        slow.looks().at(POOLS)
    assert slow.asked == POOLS[:1]
