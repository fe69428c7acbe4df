"""An attempt that its keeper kills for its hard limit: marked first, taken once more, and ended there."""

from __future__ import annotations

import pytest

from tests.store.bench import LEASE_MS, Bench


def test_the_next_taker_is_told_to_end_the_step(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    take = bench.take_one().holder.take
    assert bench.store.mark_overdue("w1", take)
    assert bench.store.mark_overdue("w1", take)
    bench.store.requeue("w1", take, lost=True)
    got = bench.take_one("w2")
    assert (got.overdue, got.cancelled) == (True, False)
    bench.finish(got.holder)


def test_a_lost_reply_of_the_take_tells_it_again(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.store.mark_overdue("w1", bench.take_one().holder.take)
    bench.store.leave("w1")
    assert bench.take_one("w2", token="t").overdue
    got = bench.take_one("w2", token="t")
    assert got.overdue
    bench.finish(got.holder)


def test_it_is_a_start_and_no_death(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    take = bench.take_one().holder.take
    bench.store.mark_overdue("w1", take)
    bench.store.leave("w1", counted=True)
    record = bench.record("s1")
    assert record["a"] == "1"
    assert "d" not in record


def test_a_commit_that_comes_first_counts(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    holder = bench.take_one().holder
    bench.store.mark_overdue("w1", holder.take)
    bench.finish(holder)
    bench.store.requeue("w1", holder.take, lost=True)
    assert bench.state("s1") == "d"
    assert not bench.store.mark_overdue("w1", holder.take)


def test_the_retry_after_it_runs(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.store.mark_overdue("w1", bench.take_one().holder.take)
    bench.store.leave("w1")
    bench.again(bench.take_one("w2").holder)
    assert not bench.take_one("w2").overdue


@pytest.mark.parametrize("ends", ["park", "restart"])
def test_a_turn_that_comes_to_rest_first_has_not_overrun(bench: Bench, ends: str) -> None:
    run = bench.run_agent()
    bench.store.mark_overdue("w1", run.take)
    if ends == "park":
        bench.store.park(run, seen=1, due_ms=None, waits=["go"])
        bench.store.signal("run", "run", "go", "1", signal_id="i")
    else:
        bench.store.restart(run, token="t", seen=1, message=bench.agent("run").message, version="1", carry=[])
    assert not bench.take_one("w2").overdue


def test_what_another_owns_is_not_marked(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    first = bench.take_one().holder.take
    bench.store.requeue("w1", first)
    bench.take_one("w2")
    assert not bench.store.mark_overdue("w1", first)
    assert "ov" not in bench.record("s1")


class TestLostData:
    """A server that came back without its data, and workers that did not notice."""

    def test_a_worker_learns_of_it_and_enrolls_again(self, bench: Bench) -> None:
        bench.client.flushdb()
        assert bench.store.renew("w1", LEASE_MS) == "unknown"
        assert bench.worker("w1")
        assert bench.store.renew("w1", LEASE_MS) == "alive"

    def test_also_when_it_has_taken_meanwhile(self, bench: Bench) -> None:
        bench.client.flushdb()
        bench.take()
        assert bench.store.renew("w1", LEASE_MS) == "unknown"

    def test_take_numbers_are_never_used_again(self, bench: Bench) -> None:
        """Else an attempt from before could commit the step of the one that now has its number."""
        bench.store.offer([bench.step("s1")])
        before = bench.take_one().holder.take
        bench.client.flushdb()
        bench.store.offer([bench.step("s1")])
        holder = bench.take_one(floor=before).holder
        assert holder.take > before
        bench.finish(holder)

    def test_nor_after_enrolling_again(self, bench: Bench) -> None:
        bench.client.flushdb()
        bench.store.enroll("w1", label="w1", queues=("q",), concurrency=1, lease_ms=LEASE_MS, floor=7)
        bench.store.offer([bench.step("s1")])
        holder = bench.take_one().holder
        assert holder.take == 8
        bench.finish(holder)
