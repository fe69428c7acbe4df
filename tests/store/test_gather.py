"""Gathering for stock Celery: nothing comes into the hands of one who was given up."""

from __future__ import annotations

import pytest

from agentq.core.errors import StoreUnavailable
from agentq.store.admissions import Admission, rate_wish
from tests.store.bench import Bench


def test_one_who_was_given_up_gathers_nothing(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.kill("w1")
    with pytest.raises(StoreUnavailable, match="try again"):
        bench.store.gather("w1", ["q"], [])
    assert len(bench.lane()) == 1
    bench.store.gather("w2", ["q"], [])
    assert bench.lane() == []


def test_what_waits_for_guards_is_gathered_too(bench: Bench) -> None:
    slot = Admission(gates=[rate_wish("one", in_flight=1)])
    bench.store.offer([bench.step(name) for name in ("a", "b", "c")])
    held = [bench.take_one().holder for _ in range(3)]
    for holder in held:
        bench.store.admit(holder, slot, token="t")
    bench.finish(held[0])
    assert [bench.state(name) for name in "abc"] == ["d", "q", "l"], "b was called, c waits"
    assert [holding.id for holding in bench.store.peek(["q"])] == ["b", "c"]
    bench.worker("back")
    bench.store.gather("back", ["q"], [])
    assert sorted(holding.id for holding in bench.store.holdings("back")) == ["b", "c"]
    (gate,) = bench.store.gates()
    assert (gate.in_flight, gate.waiting) == (0, 0)
