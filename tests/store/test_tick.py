"""Tick: leases that ran out, timers, and the grace after a gap. Deadlines are rewritten, nothing waits."""

from __future__ import annotations

from tests.store.bench import LEASE_MS, LONG_AGO, Bench


def test_a_worker_whose_lease_ran_out_is_dead_and_its_steps_move(bench: Bench) -> None:
    bench.store.offer([bench.step("s1"), bench.step("s2")])
    bench.take(slots=2)
    bench.expire_lease("w1")
    reply = bench.tick()
    assert (reply.dead, reply.released) == (1, 2)
    assert bench.suspects() == ["s2", "s1"]
    assert bench.store.renew("w1", LEASE_MS) == "dead"


def test_a_live_worker_keeps_what_it_holds_however_long(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    holder = bench.take_one().holder
    for _ in range(5):
        bench.store.renew("w1", LEASE_MS)
        assert bench.tick().dead == 0
    bench.finish(holder)


def test_a_tick_asked_twice_does_nothing_more(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.take_one()
    bench.expire_lease("w1")
    bench.tick()
    reply = bench.tick()
    assert (reply.dead, reply.released) == (0, 0)
    assert bench.suspects() == ["s1"]


def test_after_a_gap_nobody_is_marked_dead_for_a_full_lease(bench: Bench) -> None:
    ticks, now = bench.keys.of("ticks"), bench.store.now_ms()
    bench.expire_lease("w1")
    bench.client.hset(ticks, mapping={"at": now - 1500, "grace": 0})
    assert bench.store.tick(LEASE_MS).dead == 0
    assert int(bench.client.hget(ticks, "grace") or 0) >= now + LEASE_MS
    assert bench.store.tick(LEASE_MS).dead == 0
    assert bench.store.renew("w1", LEASE_MS) == "alive"


def test_the_first_tick_ever_marks_nobody(bench: Bench) -> None:
    bench.client.delete(bench.keys.of("ticks"))
    bench.expire_lease("w1")
    assert bench.store.tick(LEASE_MS).dead == 0


def test_a_clock_that_jumped_back_marks_nobody(bench: Bench) -> None:
    bench.expire_lease("w1")
    later = bench.store.now_ms() + 3_600_000
    bench.client.hset(bench.keys.of("ticks"), mapping={"at": later, "grace": 0})
    assert bench.store.tick(LEASE_MS).dead == 0


def test_a_large_holding_is_released_chunk_by_chunk(bench: Bench) -> None:
    bench.store.offer([bench.step(f"s{number}") for number in range(25)])
    bench.take(slots=25)
    bench.expire_lease("w1")
    released = [bench.tick(chunk=10).released for _ in range(4)]
    assert released == [10, 10, 5, 0]
    assert sorted(bench.suspects()) == sorted(f"s{number}" for number in range(25))
    assert bench.client.exists(bench.keys.worker("w1")) == 0


def test_a_commit_between_two_chunks_counts(bench: Bench) -> None:
    bench.store.offer([bench.step(f"s{number}") for number in range(4)])
    taken = bench.take(slots=4)
    bench.expire_lease("w1")
    assert bench.tick(chunk=2).released == 2
    bench.finish(taken[0].holder)
    assert bench.tick(chunk=2).released == 1
    assert bench.state("s0") == "d"


def test_a_released_step_counts_its_death(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.take_one()
    bench.kill("w1")
    assert (bench.record("s1")["d"], bench.record("s1")["a"]) == ("1", "1")


def test_an_agents_turn_moves_with_its_log(bench: Bench) -> None:
    bench.run_agent("run")
    bench.store.signal("run", "run", "go", "1")
    bench.kill("w1")
    assert bench.take_one("w2").generation == 2
    assert bench.kinds("run") == ["start", "signal"]


def test_ten_thousand_entries_of_a_dead_worker_go_back_in_order(bench: Bench) -> None:
    bench.client.lpush(bench.keys.lane("q", 6), *(f'{{"body":{number}}}' for number in range(10_000)))
    bench.take(slots=10_000)
    bench.expire_lease("w1")
    bench.tick(chunk=7_500)
    assert bench.tick(chunk=7_500).released == 2_500
    assert [message["body"] for message in reversed(bench.lane())] == list(range(10_000))
    bench.client.delete(bench.keys.lane("q", 6))


def test_names_of_runs_that_are_gone_are_forgotten(bench: Bench) -> None:
    bench.run_agent("run")
    bench.client.zadd(bench.keys.of("runs"), {f"gone{number}|gone{number}": number for number in range(20)})
    for _ in range(500):
        bench.tick()
    assert bench.client.zrange(bench.keys.of("runs"), 0, -1) == [b"run|run"]


class TestTimers:
    def test_a_timer_fires_once(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s1", due_ms=bench.store.now_ms() + 60_000)])
        bench.client.zadd(bench.keys.of("due"), {"s1|s1|1": LONG_AGO})
        assert bench.tick().due == 1
        assert bench.tick().due == 0
        assert len(bench.lane()) == 1

    def test_a_timer_of_an_older_generation_fires_nothing(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s1")])
        bench.again(bench.take_one().holder, due_ms=bench.store.now_ms() + 60_000)
        bench.client.zadd(bench.keys.of("due"), {"s1|s1|1": LONG_AGO})
        assert bench.tick().due == 0
        assert bench.state("s1") == "l"

    def test_a_timer_of_what_is_gone_is_forgotten(self, bench: Bench) -> None:
        bench.client.zadd(bench.keys.of("due"), {"x|x|1": LONG_AGO})
        assert bench.tick().due == 0
        assert bench.client.zcard(bench.keys.of("due")) == 0

    def test_many_timers_fire_chunk_by_chunk(self, bench: Bench) -> None:
        due = bench.store.now_ms() + 60_000
        bench.store.offer([bench.step(f"s{number}", due_ms=due) for number in range(120)])
        names = bench.client.zrange(bench.keys.of("due"), 0, -1)
        bench.client.zadd(bench.keys.of("due"), dict.fromkeys(names, LONG_AGO))
        assert [bench.tick().due for _ in range(4)] == [50, 50, 20, 0]

    def test_a_parked_run_gets_a_tick_as_input_and_wakes(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        bench.store.park(run, seen=1, due_ms=bench.store.now_ms() + 60_000)
        bench.fire_timers()
        assert bench.kinds("run") == ["start", "tick"]
        assert bench.take_one().holder.id == "run"
