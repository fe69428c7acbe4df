"""Breakers: one state for all workers, one probe at a time, every key with an end."""

from __future__ import annotations

import pytest

from tests.store.bench import LONG_AGO, Bench


class Breaker:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.calls = 0

    def admit(self) -> int:
        return self.bench.store.admit_breaker("llm", reset_ms=60_000)

    def report(self, *, failed: bool, attempt: str | None = None) -> bool:
        self.calls += 1
        return self.bench.store.report_breaker(
            "llm",
            failed=failed,
            attempt=attempt if attempt is not None else f"a{self.calls}",
            failures=3,
            window_ms=60_000,
            reset_ms=60_000,
        )

    def trip(self) -> None:
        assert [self.report(failed=True) for _ in range(3)] == [False, False, True]

    def pass_reset(self) -> None:
        (key,) = self.bench.client.scan_iter(match="agentq:1:breaker:*")
        self.bench.client.hset(key, "until", LONG_AGO)


@pytest.fixture
def breaker(bench: Bench) -> Breaker:
    return Breaker(bench)


def test_failures_within_the_window_trip_it(breaker: Breaker) -> None:
    assert breaker.admit() == 0
    breaker.trip()
    assert 0 < breaker.admit() <= 60_000


def test_a_repeated_report_counts_once(breaker: Breaker) -> None:
    assert not any(breaker.report(failed=True, attempt="same") for _ in range(5))
    assert breaker.admit() == 0


def test_failures_outside_the_window_do_not_count(breaker: Breaker, bench: Bench) -> None:
    for _ in range(2):
        breaker.report(failed=True)
    (key,) = bench.client.scan_iter(match="agentq:1:failures:*")
    for member in bench.client.zrange(key, 0, -1):
        bench.client.zadd(key, {member: LONG_AGO})
    assert not breaker.report(failed=True)


def test_after_the_reset_one_probe_goes(breaker: Breaker) -> None:
    breaker.trip()
    breaker.pass_reset()
    assert breaker.admit() == 0
    assert breaker.admit() > 0


def test_a_probe_that_succeeds_closes_it(breaker: Breaker) -> None:
    breaker.trip()
    breaker.pass_reset()
    breaker.admit()
    assert not breaker.report(failed=False)
    assert [breaker.admit() for _ in range(3)] == [0, 0, 0]


def test_a_probe_that_fails_opens_it_again(breaker: Breaker) -> None:
    breaker.trip()
    breaker.pass_reset()
    breaker.admit()
    assert breaker.report(failed=True)
    assert breaker.admit() > 0


def test_a_call_from_before_the_trip_does_not_close_it(breaker: Breaker) -> None:
    breaker.trip()
    breaker.report(failed=False)
    assert breaker.admit() > 0


def test_a_probe_that_never_reports_is_given_up(breaker: Breaker, bench: Bench) -> None:
    breaker.trip()
    breaker.pass_reset()
    breaker.admit()
    (key,) = bench.client.scan_iter(match="agentq:1:breaker:*")
    bench.client.hset(key, "probe", LONG_AGO)
    assert breaker.admit() == 0


def test_its_keys_have_an_end_from_the_first_moment(breaker: Breaker, bench: Bench) -> None:
    breaker.trip()
    assert bench.without_end("breaker", "failures") == []
