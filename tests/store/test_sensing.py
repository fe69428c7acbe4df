"""What a controller sees of all pools in one call."""

from __future__ import annotations

import json

import pytest

from agentq.store.admissions import Admission, breaker_wish, rate_wish
from agentq.store.sensing import Glance, Question
from tests.kit.server import PrivateServer
from tests.store.bench import LEASE_MS, Bench


def look(bench: Bench, queue: str = "q", *, horizon_ms: int = 10_000, known: int = -1, listed: bool = False) -> Glance:
    return bench.store.sense([Question(queue, horizon_ms, known, listed)])[1][queue]


def enroll(bench: Bench, name: str, queues: tuple[str, ...], slots: int = 1, **details: str) -> None:
    assert bench.store.enroll(
        name, label=name, queues=queues, concurrency=slots, lease_ms=LEASE_MS, details=dict(details)
    )


class TestWhatWaits:
    def test_all_lanes_and_suspects_count(self, bench: Bench) -> None:
        bench.store.offer([bench.step() for _ in range(3)] + [bench.step(lane=0), bench.step(lane=9)])
        assert look(bench).waiting == 5
        got = bench.take_one()
        bench.kill(got.holder.worker)
        assert look(bench).waiting == 5, "what died with its worker waits among the suspects"

    def test_what_is_held_counts_by_its_own_queue(self, bench: Bench) -> None:
        enroll(bench, "both", ("q", "other"), 4)
        bench.store.offer([bench.step(), bench.step(), bench.step(queue="other")])
        bench.take("both", slots=3, queues=("q", "other"))
        _, found = bench.store.sense([Question("q", 0), Question("other", 0)])
        assert (found["q"].held, found["other"].held) == (2, 1)
        assert found["q"].waiting == found["other"].waiting == 0

    def test_of_which_tasks_it_is_that_is_held_is_told_if_asked(self, bench: Bench) -> None:
        enroll(bench, "both", ("q", "other"), 4)
        messages = [json.dumps({"headers": {"task": name}, "body": "e30="}) for name in ("plan", "read", "read")]
        bench.store.offer([bench.step(message=each) for each in messages] + [bench.step(queue="other")])
        bench.take("both", slots=4, queues=("q", "other"))
        found = bench.store.sense([Question("q", 0, named=True), Question("other", 0)])[1]
        assert found["q"].names == {"plan": 1, "read": 2}
        assert found["other"].names is None

    def test_timers_count_that_fall_due_within_the_horizon(self, bench: Bench) -> None:
        now = bench.store.now_ms()
        bench.store.offer([bench.step(due_ms=now + 5_000), bench.step(due_ms=now + 60_000), bench.step(queue="other")])
        assert look(bench).due_soon == 1
        assert look(bench, horizon_ms=120_000).due_soon == 2
        assert look(bench, "other").due_soon == 0

    def test_what_a_lost_worker_holds_waits_for_the_next_one(self, bench: Bench) -> None:
        enroll(bench, "both", ("q", "other"), 4)
        bench.store.offer([bench.step(), bench.step(), bench.step(queue="other")])
        bench.take("both", slots=3, queues=("q", "other"))
        bench.expire_lease("both")
        _, found = bench.store.sense([Question("q", 0), Question("other", 0)])
        assert [(each.held, each.waiting) for each in found.values()] == [(0, 2), (0, 1)]
        assert bench.tick(chunk=1).dead == 1
        _, found = bench.store.sense([Question("q", 0), Question("other", 0)])
        assert [each.waiting for each in found.values()] == [2, 1], "it is given back piece by piece"

    def test_the_line_of_a_breaker_moves_when_its_time_is_over(self, bench: Bench) -> None:
        wish = breaker_wish("llm", rate=0.5, volume=10, window_ms=30_000, reset_ms=60_000, jitter=0.0, probes=1)
        bench.store.offer([bench.step(), bench.step()])
        first = bench.take_one().holder
        bench.store.admit(first, Admission(gates=[wish]), token="a")
        bench.store.trip_breaker("llm")
        second = bench.take_one("w2").holder
        assert bench.store.admit(second, Admission(gates=[wish]), token="b").verdict == "waits"
        assert look(bench).due_soon == 0
        assert look(bench, horizon_ms=120_000).due_soon == 1

    def test_a_line_that_waits_for_an_attempts_end_is_no_timer(self, bench: Bench) -> None:
        wish = rate_wish("disk", in_flight=1)
        bench.store.offer([bench.step(), bench.step()])
        for worker, verdict in (("w1", "go"), ("w2", "waits")):
            said = bench.store.admit(bench.take_one(worker).holder, Admission(gates=[wish]), token=worker)
            assert said.verdict == verdict
        assert look(bench, horizon_ms=120_000).due_soon == 0

    def test_a_page_of_timers_stands_for_those_within_a_pools_own_time(self, bench: Bench) -> None:
        now = bench.store.now_ms()
        soon = [bench.step(due_ms=now + 30_000) for _ in range(3)]
        bench.store.offer(soon + [bench.step(due_ms=now + 1_000_000, queue="slow") for _ in range(397)])
        _, found = bench.store.sense([Question("q", 60_000), Question("slow", 2_000_000)])
        assert found["q"].due_soon == 3
        bench.store.offer([bench.step(due_ms=now + 30_000) for _ in range(400)])
        _, found = bench.store.sense([Question("q", 60_000), Question("slow", 2_000_000)])
        assert found["q"].due_soon == 403

    def test_a_page_of_timers_stands_for_all(self, bench: Bench) -> None:
        now = bench.store.now_ms()
        bench.store.offer([bench.step(due_ms=now + 1_000_000) for _ in range(450)])
        assert look(bench, horizon_ms=2_000_000).due_soon == 450


class TestPace:
    def run_one(self, bench: Bench, took_ms: int, *, status: str = "SUCCESS") -> None:
        bench.store.offer([bench.step()])
        got = bench.take_one()
        record = bench.keys.step(got.holder.root, got.holder.id)
        bench.client.hset(record, "b", bench.store.now_ms() - took_ms)
        bench.finish(got.holder, status=status)

    def test_sums_of_a_step_tell_its_mean_and_variance(self, bench: Bench) -> None:
        for took_ms in (1000, 3000):
            self.run_one(bench, took_ms)
        sums = look(bench).sums
        assert sums is not None
        (only,) = sums.values()
        assert (only.attempts, only.failed, only.ended) == (2, 0, 2)
        assert only.ms == pytest.approx(4000, abs=500)
        assert only.squares == pytest.approx(10_000_000, rel=0.2)

    def test_failures_count(self, bench: Bench) -> None:
        self.run_one(bench, 500)
        self.run_one(bench, 500, status="FAILURE")
        sums = look(bench).sums
        assert sums is not None
        assert sum(each.failed for each in sums.values()) == 1

    def test_what_is_known_already_is_not_told_again(self, bench: Bench) -> None:
        self.run_one(bench, 1000)
        first = look(bench)
        assert first.sums
        assert look(bench, known=first.count).sums is None
        self.run_one(bench, 1000)
        assert look(bench, known=first.count).sums

    def test_a_survey_in_between_takes_nothing_away(self, bench: Bench) -> None:
        self.run_one(bench, 1000)
        bench.store.survey(["q"])
        bench.store.survey(["q"])
        sums = look(bench).sums
        assert sums is not None
        assert [each.attempts for each in sums.values()] == [1]


class TestWorkers:
    def test_they_are_told_one_by_one_when_asked(self, bench: Bench) -> None:
        enroll(bench, "mine", ("q",), instance="pod-7")
        bench.store.drain("worker|mine", by="autoscale")
        assert look(bench).listed == ()
        listed = {each.id: each for each in look(bench, listed=True).listed or ()}
        assert listed["mine"].instance == "pod-7"
        assert listed["mine"].mark is not None
        assert listed["mine"].mark["by"] == "autoscale"
        assert not listed["mine"].rests, "it has not heard of it yet"
        assert listed["mine"].since_ms > 0

    def test_one_that_takes_nothing_rests(self, bench: Bench) -> None:
        enroll(bench, "ill", ("q",))
        before = look(bench)
        bench.client.hset(bench.keys.worker("ill"), "report", json.dumps({"why": "its loop is late"}))
        found = look(bench, listed=True)
        assert (found.workers, found.resting) == (before.workers - 1, before.resting + 1)
        assert [each.id for each in found.listed or () if each.rests] == ["ill"]

    def test_a_pool_that_a_person_drained_is_closed(self, bench: Bench) -> None:
        bench.store.drain("pool|q")
        assert look(bench).is_closed
        bench.store.undrain("pool|q")
        assert not look(bench).is_closed


def test_what_waits_is_seen_in_split_mode_too(clean_server: PrivateServer) -> None:
    bench = Bench(clean_server, split=True)
    bench.store.offer([bench.step() for _ in range(3)])
    assert look(bench).waiting == 3
    clean_server.flush()
