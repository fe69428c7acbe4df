"""Budgets over a tree: what is reserved never exceeds the limit, and every refusal is an input like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agentq.store.refs import Join, Offer
from tests.kit.server import PrivateServer
from tests.store.bench import TREE, Bench, break_rule

SENDS = st.lists(
    st.tuples(st.sampled_from(["run", "sub"]), st.integers(0, 3), st.integers(1, 2), st.booleans()), max_size=8
)
"""Who sends, a call (0) or a fan-out of so many, how often the same is sent, and whether under a token of its own."""


@pytest.fixture
def bench(module_server: PrivateServer) -> Iterator[Bench]:
    made = Bench(module_server)
    yield made
    module_server.empty()
    made.store.close()


def check_sends(bench: Bench, limit: int, sends: list[tuple[str, int, int, bool]]) -> None:
    bench.client.flushall()
    bench.worker()
    holders = {"run": bench.run_agent("run", budget={"steps": limit})}
    child = bench.agent("sub", root="run", parent="run", ask="sub", accounts=TREE)
    bench.store.send(holders["run"], token="t", seen=1, offers=[child])
    holders["sub"] = bench.take_one().holder
    for number, (who, size, repeats, fresh) in enumerate(sends):
        ask = f"a{number}"
        own = {"parent": who, "accounts": TREE}
        offers = _members(bench, ask, who, size) if size else [bench.step(ask, root="run", ask=ask, **own)]
        joins = [Join(root="run", id=ask, size=size, parent=who)] if size else []
        before = bench.store.tree("run").get("n_steps", 0)
        for repeat in range(repeats):
            token = f"{number}.{repeat if fresh else 0}"
            bench.store.send(holders[who], token=token, seen=1, joins=joins, offers=offers)
        _check(bench, limit, before, who, ask, offers)
    bench.drain()
    assert bench.without_end("step", "tree", "members", "log", "join", "bits", "result") == []


def _members(bench: Bench, ask: str, who: str, size: int) -> list[Offer]:
    return [
        bench.step(f"{ask}.{index}", root="run", parent=who, join=("run", ask), index=index, accounts=TREE)
        for index in range(size)
    ]


def _check(bench: Bench, limit: int, before: int, who: str, ask: str, offers: list[Offer]) -> None:
    found = bench.look()
    records = found.records()
    used = int(found.values[bench.keys.tree("run")]["n_steps"])
    assert used <= limit
    assert used == len(records) - 1, "steps are counted that are not there"
    sent = [offer.id for offer in offers if ("run", offer.id) in records]
    assert len(sent) == min(len(offers), limit - before), "a step was refused that was within the limit"
    refused = [offer.id for offer in offers if offer.id not in sent]
    if offers[0].ask is not None:
        errors = [each["v"]["code"] for each in found.log("run", who) if each["k"] == "result" and each["id"] == ask]
        assert set(errors) == ({"budget_exceeded"} if refused else set())
        return
    assert all(json.dumps(found.result(name)).count("budget_exceeded") for name in refused)
    joined = [each for each in found.log("run", who) if each["k"] == "joined" and each["id"] == ask]
    assert len(joined) == int(len(refused) == len(offers))


def budget_property(bench: Bench, **options: Any) -> None:
    @settings(**options)
    @given(limit=st.integers(1, 6), sends=SENDS)
    def check(limit: int, sends: list[tuple[str, int, int, bool]]) -> None:
        check_sends(bench, limit, sends)

    check()


def test_reserved_steps_never_exceed_the_limit(bench: Bench) -> None:
    budget_property(bench)


BROKEN = {
    "send whatever it costs": (
        "if short and not is_left_to_admission(short) then return refusal_by",
        "if false then return refusal_by",
    ),
    "one step too many": ("if wish and used + wish > limit then", "if wish and used > limit then"),
    "refuse what stands": (
        "or redis.call('EXISTS', K.step(o.root, o.id)) == 1 then return nil end",
        "then return nil end",
    ),
    "count for nobody": ("redis.call('HINCRBY', account.key, 'n_steps', 1)", ""),
    "leave a refused member out of its join": ("arrive(o.jr, o.jn, o.ji, false, now)\nend", "end"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_the_property_notices_a_missing_rule(bench: Bench, name: str) -> None:
    break_rule(bench, *BROKEN[name])
    with pytest.raises((AssertionError, KeyError)):
        budget_property(
            bench,
            max_examples=300,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
