"""Plans for machines: what is chosen is the cheapest that keeps to the objective in the simulator."""

from random import Random
from xml.etree import ElementTree

import pytest

from agentq.console.plans import plan_table, plan_words
from agentq.core.planning import Mix, Shape, Window
from agentq.fleet.plan_picture import picture
from agentq.fleet.planning import pair_of, plan, shapes_of, simulate_mix, windows_of
from agentq.fleet.simulator.policies import Fixed
from agentq.fleet.simulator.traces import Arrival, Trace
from agentq.fleet.simulator.world import Kind, Pool

SMALL = Shape(name="small", slots=1, cost_per_hour=0.1, startup_s=2)
LARGE = Shape(name="large", slots=8, cost_per_hour=0.25, startup_s=2)
DEAR = Shape(name="dear", slots=8, cost_per_hour=4.0, startup_s=2)


def load(rates: list[float], *, minute: float = 60.0, seed: int = 1) -> Trace:
    """Random arrivals of one-second steps, at each rate for a minute."""
    random, arrivals = Random(seed), []
    for number, rate in enumerate(rates):
        at = number * minute
        while rate:
            at += random.expovariate(rate)
            if at >= (number + 1) * minute:
                break
            arrivals.append(Arrival(at, random.uniform(0.5, 1.5)))
    return Trace("made", len(rates) * minute, tuple(arrivals))


STEADY = load([3.0] * 6)


def test_a_load_is_seen_minute_by_minute() -> None:
    trace = Trace("t", 130, (Arrival(1, 2), Arrival(59, 4, (Arrival(0, 1),)), Arrival(125, 1)))
    first, second, third = windows_of(trace)
    assert (first.rate, first.service_s) == (2 / 60, 3)
    assert (second.rate, second.service_s) == (1 / 60, 1), "what the second asks for comes when it ends"
    assert third == Window(60, 1 / 60, 1, 1.0)


def test_a_worker_with_several_slots_runs_as_many_steps_at_once_and_costs_once() -> None:
    trace = Trace("burst", 10, tuple(Arrival(0.0, 5.0) for _ in range(8)))
    pool = Pool(trace, seed=1, kind=Kind(), fixed=[Kind(slots=8, startup_s=0, cost=2.0)])
    outcome = pool.run(Fixed(0, every=1.0))
    assert outcome.waits == [0.0] * 8
    assert outcome.spent == 2 * outcome.worker_s


def test_a_worker_that_is_sent_away_with_several_steps_ends_them_all_first() -> None:
    class Fickle:
        every = 1.0

        def decide(self, pool: Pool, now: float) -> int:
            return 1 if now < 2 else 0

    trace = Trace("burst", 4, tuple(Arrival(1.0, 3.0 + at) for at in range(3)))
    pool = Pool(trace, seed=1, kind=Kind(slots=4, startup_s=0.1))
    outcome = pool.run(Fickle())
    assert outcome.steps == 3
    assert outcome.worker_s == pytest.approx(6.0, abs=0.01)


def test_the_cheapest_that_meets_the_objective_is_chosen() -> None:
    found = plan([STEADY], [SMALL, LARGE], slo_s=5.0)
    assert found.chosen is not None
    assert found.chosen.meets
    assert found.chosen.cost == min(each.cost for each in found.tried if each.meets)
    # Eight slots for less than the price of three: one large is the answer, whatever else there is.
    assert {shape.name for shape in shapes_of(found.chosen.mix)} == {"large"}
    alone = {shape.name: found.alone(shape) for shape in (SMALL, LARGE)}
    assert all(each is not None and each.meets for each in alone.values())


def test_what_is_dear_is_not_taken_and_the_same_arguments_give_the_same_plan() -> None:
    one, other = (plan([STEADY], [SMALL, DEAR], slo_s=5.0) for _ in range(2))
    assert one == other
    assert one.chosen is not None
    assert "dear" not in pair_of(one.chosen.mix)


def test_a_load_with_one_busy_hour_takes_some_that_always_run_and_some_as_needed() -> None:
    day = load([2.0] * 20 + [12.0] * 4 + [2.0] * 20)
    base = Shape(name="base", slots=2, cost_per_hour=0.1, startup_s=2)
    found = plan([day], [base, Shape(name="spot", slots=1, cost_per_hour=0.2, startup_s=2)], slo_s=5.0, check=[day])
    assert found.chosen is not None
    assert found.chosen.mix.base == base
    assert found.chosen.mix.elastic is not None
    assert found.checked is not None
    assert found.checked.share == pytest.approx(found.chosen.share, abs=0.05)


def test_where_nothing_starts_soon_enough_nothing_is_chosen_and_it_is_said() -> None:
    burst = Trace("burst", 60, tuple(Arrival(30.0, 1.0) for _ in range(60)))
    slow = Shape(name="slow", slots=1, cost_per_hour=0.1, startup_s=600)
    found = plan([burst], [slow], slo_s=1.0)
    assert found.chosen is None
    assert "No mix of these shapes" in plan_words(found, [slow])[0]
    assert plan_table(found).row_count == len(found.of_each_pair)


def test_a_plan_is_drawn_with_a_dot_for_each_mix_and_a_ring_around_the_chosen() -> None:
    found = plan([STEADY], [SMALL, LARGE], slo_s=5.0)
    drawn = picture(found)
    root = ElementTree.fromstring(drawn)  # noqa: S314 — we made it
    titles = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any(str(found.chosen.mix) in title for title in titles if found.chosen)
    assert drawn.count('r="8"') == 1


def test_words_compare_many_small_with_few_large() -> None:
    words = plan_words(plan([STEADY], [SMALL, LARGE], slo_s=5.0), [SMALL, LARGE])
    assert any("Many small (small) cost" in line and "few large (large)" in line for line in words)


def test_a_mix_of_large_and_small_shares_one_queue() -> None:
    tried = simulate_mix(STEADY, Mix(LARGE, 1, SMALL), 5.0, most=16)
    assert tried.share == 1.0
    assert tried.most < 4, "the large one carries it nearly alone"
