"""Joins under duplicates and any order: released once, exactly when the set of members says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agentq.store.refs import Arrival, Join
from tests.kit.server import PrivateServer
from tests.properties.rules import JOIN_RULES
from tests.store.bench import Bench, agent_join, break_rule

ARRIVALS = st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20)
"""Which member says that it has ended, and whether well; later words of the same member are repeats."""


@pytest.fixture
def bench(module_server: PrivateServer) -> Iterator[Bench]:
    made = Bench(module_server)
    yield made
    module_server.empty()
    made.store.close()


def is_released(size: int, need: int | None, arrived: dict[int, bool]) -> bool:
    succeeded = sum(arrived.values())
    return len(arrived) == size or (need is not None and succeeded >= need)


def check_fan_out(bench: Bench, size: int, need: int | None, words: list[tuple[int, bool]], parks: bool) -> None:
    bench.client.flushall()
    bench.worker()
    run = bench.run_agent("run")
    bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", size, need=need)])
    if parks and size:
        assert bench.store.park(run, seen=1, due_ms=None)
    arrived: dict[int, bool] = {}
    released = size == 0
    for place, succeeded in words:
        bench.store.arrive([Arrival(root="run", id="map", index=place, succeeded=succeeded)])
        if place < size:
            arrived.setdefault(place, succeeded)
        released = released or is_released(size, need, arrived)
        assert bench.kinds("run").count("joined") == int(released), (arrived, bench.kinds("run"))
        assert bench.state("run") == ("q" if released else "p") or not (parks and size)
    bench.drain()
    assert bench.without_end("join", "bits", "tree", "members", "step", "log") == []


def check_canvas(bench: Bench, size: int, words: list[tuple[int, bool]]) -> None:
    bench.client.flushall()
    bench.store.offer([], [Join(root="g", id="g", size=size, body=bench.step("body", root="run"))])
    arrived: dict[int, bool] = {}
    released = False
    for place, succeeded in words:
        bench.store.arrive([Arrival(root="g", id="g", index=f"t:{place}", succeeded=succeeded)])
        arrived.setdefault(place, succeeded)
        released = released or is_released(size, None, arrived)
        assert len(bench.lane()) == int(released)
        assert (bench.state("body", "run") == "q") == released
        # Its tree stands while the body may still read from it.
        assert bench.client.ttl(bench.keys.join("g", "g")) == -1
    for place in range(6):
        bench.store.arrive([Arrival(root="g", id="g", index=f"t:{place}", succeeded=True)])
    bench.drain()
    assert bench.without_end("join", "bits", "tree", "members", "step") == []


def fan_out_property(bench: Bench, **options: Any) -> None:
    @settings(**options)
    @given(size=st.integers(0, 4), need=st.none() | st.integers(1, 4), words=ARRIVALS, parks=st.booleans())
    def check(size: int, need: int | None, words: list[tuple[int, bool]], parks: bool) -> None:
        check_fan_out(bench, size, need, words, parks)

    check()


def canvas_property(bench: Bench, **options: Any) -> None:
    @settings(**options)
    @given(size=st.integers(1, 5), words=ARRIVALS)
    def check(size: int, words: list[tuple[int, bool]]) -> None:
        check_canvas(bench, size, words)

    check()


def test_a_fan_out_is_joined_once_by_the_set_of_its_members(bench: Bench) -> None:
    fan_out_property(bench)


def test_a_canvas_body_is_queued_once_by_the_set_of_its_branches(bench: Bench) -> None:
    canvas_property(bench)


OF_CANVAS = {"count every branch", "let the join go with its release"}
QUICK: dict[str, Any] = {
    "max_examples": 300,
    "derandomize": True,
    "database": None,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
    "report_multiple_bugs": False,
}


@pytest.mark.parametrize("name", sorted(JOIN_RULES))
def test_the_properties_notice_a_missing_rule(bench: Bench, name: str) -> None:
    break_rule(bench, *JOIN_RULES[name])
    check = canvas_property if name in OF_CANVAS else fan_out_property
    with pytest.raises(AssertionError):
        check(bench, **QUICK)
