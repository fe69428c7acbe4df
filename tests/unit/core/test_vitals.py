"""When a worker is fit to take work, and when it is again."""

from __future__ import annotations

from functools import partial

from agentq.core.vitals import MIB, Thresholds, Vitals, decide_health

LIMITS = Thresholds(delay_s=5, errors=0.5, free_bytes=64 * MIB)


def test_a_worker_at_rest_is_fit() -> None:
    assert decide_health(Vitals(free_bytes=1 << 30), LIMITS) == {}
    assert decide_health(Vitals(), LIMITS) == {}


def test_a_loop_that_stands_still_is_told_until_it_comes_round_well() -> None:
    assert decide_health(Vitals(delay_s=5), LIMITS) == {}
    assert decide_health(Vitals(delay_s=6.04), LIMITS) == {
        "delay": "an event loop stands still for 6.0 s (limit 5 s): a step blocks it"
    }
    assert decide_health(Vitals(delay_s=3), LIMITS, before={"delay": "it stood still"})
    assert decide_health(Vitals(delay_s=2), LIMITS, before={"delay": "it stood still"}) == {}


def test_failures_count_against_a_worker_only_where_others_do_better() -> None:
    bad = partial(Vitals, attempts=30, failed=20)
    assert decide_health(bad(others=(100, 1)), LIMITS) == {
        "errors": "20 of 30 attempts of the last minute failed here, and 1 of 100 elsewhere"
    }
    assert decide_health(bad(others=(100, 40)), LIMITS) == {}, "they fail elsewhere too"
    assert decide_health(bad(others=(5, 0)), LIMITS) == {}, "too few elsewhere"
    assert decide_health(bad(), LIMITS) == {}, "nobody else"
    assert decide_health(Vitals(attempts=19, failed=19, others=(100, 0)), LIMITS) == {}, "too few here"
    assert decide_health(Vitals(attempts=30, failed=15, others=(100, 0)), LIMITS) == {}, "half is allowed"


def test_after_failures_it_tries_again_when_the_minute_is_over() -> None:
    found = decide_health(Vitals(attempts=30, failed=20, others=(100, 1)), LIMITS)
    later = decide_health(Vitals(attempts=32, failed=22, others=(0, 0)), LIMITS, before=found)
    assert later == found, "it says by what it was found ill, while it is"
    assert decide_health(Vitals(attempts=10, failed=10), LIMITS, before=found) == {}


def test_memory_must_come_back_by_more_than_it_lacked() -> None:
    assert decide_health(Vitals(free_bytes=63 * MIB), LIMITS) == {"memory": "63 MiB of memory are free (least 64 MiB)"}
    assert decide_health(Vitals(free_bytes=70 * MIB), LIMITS, before={"memory": "too little"})
    assert decide_health(Vitals(free_bytes=80 * MIB), LIMITS, before={"memory": "too little"}) == {}


def test_what_has_no_limit_is_not_looked_at() -> None:
    ill = Vitals(delay_s=1e6, attempts=100, failed=100, others=(100, 0), free_bytes=0)
    assert decide_health(ill, Thresholds()) == {}
    assert set(decide_health(ill, LIMITS)) == {"delay", "errors", "memory"}
