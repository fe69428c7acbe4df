"""What the survey says of the queues: workers, what waits, and how long attempts last."""

from __future__ import annotations

import json

import pytest

from tests.kit.server import PrivateServer
from tests.store.bench import LEASE_MS, Bench

QUEUES = ("q", "other")


def enroll(bench: Bench, name: str, queues: tuple[str, ...], slots: int) -> None:
    assert bench.store.enroll(name, label=name, queues=queues, concurrency=slots, lease_ms=LEASE_MS)


class TestSurvey:
    def test_a_queue_that_nobody_knows_is_empty(self, bench: Bench) -> None:
        stands = bench.store.survey(["nobody's"])["nobody's"]
        assert (stands.workers, stands.slots, stands.busy, stands.waiting) == (0, 0, 0, (0, 0, 0, 0))
        assert (stands.oldest_s, stands.service_s, stands.per_second) == (None, None, 0.0)

    def test_workers_slots_and_what_they_hold_are_counted_by_queue(self, bench: Bench) -> None:
        enroll(bench, "w3", ("q",), 4)
        enroll(bench, "w4", QUEUES, 2)
        enroll(bench, "gone", ("q",), 8)
        bench.expire_lease("gone")
        bench.store.offer([bench.step() for _ in range(5)] + [bench.step(lane=0)])
        bench.take("w3", slots=3)
        found = bench.store.survey(QUEUES)
        assert (found["q"].workers, found["q"].slots, found["q"].busy) == (4, 8, 3)
        assert (found["other"].workers, found["other"].slots, found["other"].busy) == (1, 2, 0)
        assert found["q"].waiting == (0, 0, 3, 0), "the critical one was taken first"

    def test_a_worker_that_says_why_it_takes_nothing_does_not_count(self, bench: Bench) -> None:
        bench.client.hset(bench.keys.worker("w2"), "report", json.dumps({"why": "its loop is late", "loop_ms": 3000}))
        found = bench.store.survey(["q"])["q"]
        assert (found.workers, found.resting, found.slots) == (1, 1, 1)

    def test_nobody_serves_a_pool_that_is_drained(self, bench: Bench) -> None:
        bench.store.drain("pool|q")
        found = bench.store.survey(["q"])["q"]
        assert (found.workers, found.resting, found.slots) == (0, 2, 0)
        bench.store.undrain("pool|q")
        assert bench.store.survey(["q"])["q"].workers == 2

    def test_the_oldest_waits_since_its_offer(self, bench: Bench) -> None:
        bench.store.offer([bench.step("old"), bench.step("new"), bench.step("urgent", lane=0)])
        bench.client.hset(bench.keys.step("old", "old"), "c", bench.store.now_ms() - 60_000)
        oldest = bench.store.survey(["q"])["q"].oldest_s
        assert oldest is not None
        assert 60 <= oldest < 120

    def test_what_attempts_took_makes_the_mean(self, bench: Bench) -> None:
        for took_ms in (1000, 3000):
            bench.store.offer([bench.step()])
            got = bench.take_one()
            record = bench.keys.step(got.holder.root, got.holder.id)
            bench.client.hset(record, "b", bench.store.now_ms() - took_ms)
            bench.finish(got.holder)
        found = bench.store.survey(["q"])["q"]
        assert found.service_s == pytest.approx(2.0, abs=0.3)
        again = bench.store.survey(["q"])["q"]
        assert again.service_s == pytest.approx(found.service_s, abs=0.01), "nothing new, nothing forgotten"

    def test_of_short_attempts_some_stand_for_all(self, bench: Bench) -> None:
        bench.store.offer([bench.step() for _ in range(64)])
        for _ in range(64):
            bench.finish(bench.take_one().holder)
        sums = bench.client.hvals(bench.keys.of("pace", "q"))
        counted = sum(int(each.split(b"|")[0]) for each in sums if each.count(b"|") == 5)
        assert 32 <= counted <= 96
        service = bench.store.survey(["q"])["q"].service_s
        assert service is not None
        assert service < 0.1

    def test_a_turn_that_parks_has_held_a_slot_too(self, bench: Bench) -> None:
        holder = bench.run_agent()
        bench.client.hset(bench.keys.step("run", "run"), "b", bench.store.now_ms() - 5000)
        assert bench.store.park(holder, seen=1, due_ms=None, waits=[])
        assert bench.store.survey(["q"])["q"].service_s == pytest.approx(5.0, abs=0.5)

    def test_what_was_found_lately_is_told_again(self, bench: Bench) -> None:
        assert bench.store.survey(["q"], fresh_ms=60_000)["q"].waiting == (0, 0, 0, 0)
        bench.store.offer([bench.step()])
        assert bench.store.survey(["q"], fresh_ms=60_000)["q"].waiting == (0, 0, 0, 0)
        assert bench.store.survey(["other", "q"], fresh_ms=60_000)["q"].waiting == (0, 0, 1, 0), (
            "a new queue: a new look"
        )
        assert bench.store.survey(["q"], fresh_ms=60_000)["q"].waiting == (0, 0, 1, 0)
        bench.store.offer([bench.step()])
        assert bench.store.survey(["q"])["q"].waiting == (0, 0, 2, 0)


def test_what_waits_is_counted_in_split_mode_too(clean_server: PrivateServer) -> None:
    bench = Bench(clean_server, split=True)
    bench.store.offer([bench.step() for _ in range(3)])
    assert bench.store.survey(["q"])["q"].waiting == (0, 0, 3, 0)
    clean_server.flush()
    bench.store.close()
