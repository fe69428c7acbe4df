"""Gathering for stock Celery: nothing comes into the hands of one who was given up."""

from __future__ import annotations

import pytest

from agentq.core.errors import StoreUnavailable
from tests.store.bench import Bench


def test_one_who_was_given_up_gathers_nothing(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.kill("w1")
    with pytest.raises(StoreUnavailable, match="try again"):
        bench.store.gather("w1", ["q"], [])
    assert len(bench.lane()) == 1
    bench.store.gather("w2", ["q"], [])
    assert bench.lane() == []
