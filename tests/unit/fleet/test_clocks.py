"""What a controller remembers of a pool, where the server's clock goes back meanwhile."""

from __future__ import annotations

from agentq.core.pools import PoolSpec
from agentq.core.rates import Lulls
from agentq.core.scaling import PoolLoad, Size
from agentq.core.sizing import Decision
from agentq.fleet.control import SAY_AGAIN_S, PoolControl
from agentq.fleet.drivers import Instance
from agentq.fleet.roster import Post, Roster
from agentq.fleet.startups import Startups
from agentq.store.sensing import SeenWorker


def test_no_age_and_no_start_is_shorter_than_nothing() -> None:
    startups = Startups()
    startups.order(2, 60_000, is_listed=False)
    roster = Roster(unlisted_starting=2, starting=(Instance("a", -3.0),))
    assert startups.ages(roster, 50_000) == [0.0, 0.0, 0.0]
    startups.count(2, 50_000)
    assert startups.seconds == 0.0


def test_a_lull_is_not_shorter_than_nothing() -> None:
    lulls = Lulls(most_s=5.0)
    for now, level in ((100.0, 8.0), (101.0, 1.0), (50.0, 1.0), (52.0, 8.0)):
        lulls.see(now, level)
    assert lulls.seconds == [2.0]


def test_who_is_done_is_told_to_end_again_after_a_while_on_any_clock() -> None:
    control = PoolControl(PoolSpec(name="q", max=4), 1)
    done = SeenWorker("w", "q-1", 0, held=0, rests=True, mark={"by": "autoscale"})
    control.roster = Roster(draining=(Post(Instance("q-1", 1.0), (done,)),))
    size = Size(workers=0, asked=0, why="idle")
    decision = Decision(pool="q", at_ms=0, fence=1, had=0, desired=0, load=PoolLoad(), size=size)
    for at_ms, ends in ((3_600_000, ("q-1",)), (3_601_000, ()), (1_000, ("q-1",)), (2_000, ())):
        orders = control.orders(at_ms, decision, chooses=True)
        assert orders.ends == ends
        control.ordered(at_ms, orders)
    assert control.orders(1_000 + int(SAY_AGAIN_S * 1000), decision, chooses=True).ends == ("q-1",)
