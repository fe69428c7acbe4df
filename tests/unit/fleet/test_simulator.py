"""The simulated pool: nothing is lost in it, and its figures are those of theory where theory has them."""

from pathlib import Path
from random import Random

import pytest

from agentq.core.erlang import wait_at, waiting_chance
from agentq.core.errors import InvalidFile
from agentq.fleet.simulator.contest import RIVALS, hold, make_law
from agentq.fleet.simulator.picture import picture
from agentq.fleet.simulator.policies import Clairvoyant, Fixed
from agentq.fleet.simulator.traces import TRACES, Arrival, Trace, bursty, cascade, load_trace
from agentq.fleet.simulator.world import Policy, Pool


def poisson(rate: float, mean: float, steps: int, seed: int = 1) -> Trace:
    random, at, arrivals = Random(seed), 0.0, []
    for _ in range(steps):
        at += random.expovariate(rate)
        arrivals.append(Arrival(at, random.expovariate(1 / mean)))
    return Trace("poisson", at, tuple(arrivals))


@pytest.mark.parametrize("name", TRACES)
def test_every_step_of_a_trace_runs_once_and_the_workers_cost_at_least_the_work(name: str) -> None:
    trace = TRACES[name](1)
    short = Trace(name, 400, tuple(each for each in trace.arrivals if each.at < 400))
    for policy in (make_law(), Clairvoyant(), Fixed(20)):
        pool = Pool(short, seed=1)
        outcome = pool.run(policy)
        assert outcome.steps == short.steps == pool.ended
        assert outcome.worker_s >= short.work
        assert not pool.workers


def test_the_same_seed_is_the_same_load_and_another_is_another() -> None:
    assert cascade(3) == cascade(3)
    assert cascade(3) != cascade(4)
    assert Pool(cascade(3, seconds=600), seed=3).run(make_law()) == Pool(cascade(3, seconds=600), seed=3).run(
        make_law()
    )


def test_the_waits_of_a_fixed_pool_are_those_of_erlang() -> None:
    waits = [
        wait
        for seed in range(4)
        for wait in Pool(poisson(0.75, 2.0, 10_000, seed), seed=1, startup_s=0.001).run(Fixed(3)).waits
    ]
    share = sum(wait > 0 for wait in waits) / len(waits)
    assert share == pytest.approx(waiting_chance(3, 1.5), rel=0.05)
    p95 = sorted(waits)[int(len(waits) * 0.95)]
    assert p95 == pytest.approx(wait_at(0.95, slots=3, rate=0.75, service_s=2.0), rel=0.1)


def test_one_who_knows_the_future_is_in_time_for_less() -> None:
    trace = bursty(5, seconds=1200)
    law, bound = Pool(trace, seed=5).run(make_law()), Pool(trace, seed=5).run(Clairvoyant())
    assert bound.share == 1.0
    assert law.share < 1.0
    assert bound.worker_s < law.worker_s


def test_a_busy_worker_that_is_sent_away_ends_its_step_first() -> None:
    class Fickle:
        every = 1.0

        def decide(self, pool: Pool, now: float) -> int:
            return 8 if int(now) % 2 == 0 else 0

    trace = poisson(3.0, 4.0, 300)
    policy: Policy = Fickle()
    outcome = Pool(trace, seed=1, startup_s=0.2).run(policy)
    assert outcome.steps == 300
    assert outcome.changes > 100


def test_workers_that_still_start_are_sent_away_first() -> None:
    pool = Pool(Trace("none", 0.0, ()), seed=1)
    pool.resize(3)
    pool.resize(1)
    assert (pool.starting, pool.size) == (1, 1)


def test_a_contest_tunes_on_some_seeds_and_compares_on_others() -> None:
    trace = bursty(1, seconds=200)
    contest = hold("short", tuning=(1,), held_out=(2, 3), make=lambda seed: trace)
    assert [duel.name for duel in contest.duels] == [rival.name for rival in RIVALS]
    for duel in contest.duels:
        assert duel.rival is None or len(duel.rival.shares) == 2
    for front in contest.fronts.values():
        assert [point.cost for point in front] == sorted(point.cost for point in front)
        assert [point.share for point in front] == sorted(point.share for point in front)
    assert contest.bound.cost < contest.law.cost
    drawn = picture([contest])
    assert drawn.startswith("<svg")
    assert "short" in drawn


def test_a_recorded_load_is_read(tmp_path: Path) -> None:
    file = tmp_path / "monday.jsonl"
    file.write_text(
        '{"at": 100.5, "service": 2, "children": [{"service": 1}, {"service": 1}]}\n\n{"at": 100, "service": 0.5}\n'
    )
    trace = load_trace(file)
    assert (trace.name, trace.steps, trace.work) == ("monday", 4, 4.5)
    assert [each.at for each in trace.arrivals] == [0.0, 0.5]


@pytest.mark.parametrize(
    "line", ["nonsense", "{}", '{"at": 1}', '{"service": -1}', '{"service": 1e999}', "[1]", '{"service": "NaN"}']
)
def test_a_line_that_is_no_step_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text('{"at": 1, "service": 1}\n' + line + "\n")
    with pytest.raises(InvalidFile, match=r"bad\.jsonl:2: no step"):
        load_trace(file)


def test_a_load_without_a_step_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InvalidFile, match="no step"):
        load_trace(tmp_path / "empty.jsonl")
