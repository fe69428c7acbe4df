"""Retention: a live run's keys have no end; when its last step is done, every one of them has."""

from __future__ import annotations

import json

import pytest

from agentq.store.refs import Arrival, Join
from tests.store.bench import LEASE_MS, Bench, agent_join, meta

OF_A_RUN = (
    "step",
    "log",
    "signals",
    "join",
    "bits",
    "ask",
    "tree",
    "members",
    "cancelled",
    "events",
    "start",
    "result",
)


def everything(bench: Bench) -> None:
    """Make one run that has a key of every kind."""
    run = bench.run_agent("run", start_digest="d", args_digest="a", card={"key": "k"})
    offers = [
        bench.step("c", root="run", parent="run", ask="c"),
        bench.step("m0", root="run", parent="run", join=("run", "map"), index=0),
        bench.agent("sub", root="run", parent="run", ask="sub"),
    ]
    question = json.dumps({"id": "a1", "run": "run", "q": "?"})
    bench.store.send(run, token="t", seen=1, offers=offers, joins=[agent_join("run", "map", 1)], questions=[question])
    bench.store.signal("run", "run", "go", "1")
    bench.store.cancel("run", "sub", "x")


def end(bench: Bench, worker: str) -> None:
    for got in bench.take(worker, slots=10):
        bench.finish(got.holder)


def test_a_live_run_ends_nothing_and_an_ended_one_everything(bench: Bench) -> None:
    everything(bench)
    end(bench, "w2")
    kinds = {bench.keys.kind_of(key) or "result" for key in bench.without_end(*OF_A_RUN)}
    assert kinds == set(OF_A_RUN)
    bench.kill("w1")
    end(bench, "w2")
    assert bench.without_end(*OF_A_RUN) == []
    assert bench.client.pttl(bench.keys.step("run", "m0")) > bench.store.retention_ms - 60_000


def test_children_that_outlive_their_parent_keep_the_tree(bench: Bench) -> None:
    everything(bench)
    bench.store.leave("w1")
    bench.worker("w3")
    taken = {got.holder.id: got.holder for got in bench.take("w3", slots=10)}
    sub = taken.pop("sub")
    for holder in taken.values():
        bench.finish(holder)
    assert bench.client.ttl(bench.keys.log("run", "run")) == -1
    bench.finish(sub)
    assert bench.without_end(*OF_A_RUN) == []


def test_a_large_tree_is_retired_chunk_by_chunk(bench: Bench) -> None:
    bench.store.offer([bench.step(f"s{number}", root="run") for number in range(450)])
    for got in bench.take(slots=450):
        bench.finish(got.holder)
    assert len(bench.without_end("step")) == 450
    left = []
    while bench.client.zcard(bench.keys.of("retiring")):
        bench.tick()
        left.append(len(bench.without_end("step")))
    assert left == [250, 50, 0]
    assert bench.without_end(*OF_A_RUN) == []


def test_two_large_trees_retire_side_by_side(bench: Bench) -> None:
    for root in ("a", "b"):
        bench.store.offer([bench.step(f"{root}{number}", root=root) for number in range(250)])
    for got in bench.take(slots=500):
        bench.finish(got.holder)
    for _ in range(2):
        bench.tick()
    assert {len(bench.without_end("step"))} == {100}


def test_who_ticks_hears_that_more_waits_and_others_let_the_server_breathe(bench: Bench) -> None:
    bench.store.offer([bench.step(f"s{number}", root="run") for number in range(450)])
    for got in bench.take(slots=450):
        bench.finish(got.holder)
    assert [bench.tick().behind for _ in range(3)] == [1, 1, 0]
    ticks, retiring = bench.keys.of("ticks"), bench.keys.of("retiring")

    def does_its_work(*, ahead_ms: int) -> bool:
        """Whether a tick does so when another keeper has left the word that it begins so many ms later."""
        bench.client.zadd(retiring, {"run": 0})
        bench.client.hset(ticks, "next", bench.store.now_ms() + ahead_ms)
        return bool(bench.store.tick(LEASE_MS).behind)

    # This process may come to its tick too late; not every time.
    assert not all(does_its_work(ahead_ms=10) for _ in range(50))
    assert does_its_work(ahead_ms=60_000), "the server's clock was set back"


def test_a_large_tree_that_comes_back_to_life_loses_its_end_chunk_by_chunk(bench: Bench) -> None:
    size = 620
    bench.store.offer([bench.step(f"s{number}", root="run") for number in range(size)])
    for got in bench.take(slots=size):
        bench.finish(got.holder)
    while bench.client.zcard(bench.keys.of("retiring")):
        bench.tick()
    bench.store.offer([bench.step("late", root="run")])
    left = [len(bench.without_end("step"))]
    while bench.client.zcard(bench.keys.of("reviving")):
        bench.tick()
        left.append(len(bench.without_end("step")))
    assert left == [501, 621]
    # It ends before it has wholly come back: every key has its end again.
    bench.finish(bench.take_one().holder)
    bench.store.offer([bench.step("later", root="run")])
    assert bench.client.zcard(bench.keys.of("reviving")) == 1
    bench.finish(bench.take_one().holder)
    while bench.client.zcard(bench.keys.of("retiring")):
        bench.tick()
    assert bench.client.zcard(bench.keys.of("reviving")) == 0
    assert bench.without_end(*OF_A_RUN) == []


def test_a_large_tree_whose_end_is_near_comes_back_at_once(bench: Bench) -> None:
    bench.store.offer([bench.step(f"s{number}", root="run") for number in range(620)])
    for got in bench.take(slots=1200):
        bench.finish(got.holder)
    while bench.client.zcard(bench.keys.of("retiring")):
        bench.tick()
    bench.client.pexpire(bench.keys.step("run", "s0"), 60_000)
    bench.store.offer([bench.step("late", root="run")])
    assert len(bench.without_end("step")) == 621


@pytest.mark.parametrize("size", [3, 150])
def test_a_tree_that_comes_back_to_life_loses_its_end(bench: Bench, size: int) -> None:
    """A plain task between two steps: the tree has ended in between."""
    bench.store.offer([bench.step(f"s{number}", root="run") for number in range(size)])
    for got in bench.take(slots=size):
        bench.finish(got.holder)
    bench.tick()
    assert bench.client.ttl(bench.keys.step("run", "s0")) > 0
    bench.store.offer([bench.step("late", root="run")])
    for key in (bench.keys.step("run", "s0"), bench.keys.result("s0"), bench.keys.tree("run")):
        assert bench.client.ttl(key) == -1
    bench.tick()
    assert bench.client.ttl(bench.keys.step("run", "s0")) == -1
    bench.finish(bench.take_one().holder)
    while bench.client.zcard(bench.keys.of("retiring")):
        bench.tick()
    assert bench.without_end(*OF_A_RUN) == []


def test_a_canvas_has_an_end_when_its_body_is_done(bench: Bench) -> None:
    body = bench.step("body", root="run")
    bench.store.offer([], [Join(root="g", id="g", size=2, body=body, members="[]")])
    bench.store.offer([bench.step(name, root="run") for name in ("a", "b")])
    for got in bench.take(slots=2):
        arrival = Arrival(root="g", id="g", index=f"t:{got.holder.id}", succeeded=True)
        bench.finish(got.holder, arrivals=[arrival])
        assert bench.client.ttl(bench.keys.join("g", "g")) == -1
    assert bench.client.ttl(bench.keys.result("a")) == -1
    bench.finish(bench.take_one().holder)
    assert bench.without_end(*OF_A_RUN) == []


def test_a_replaced_step_keeps_its_tree(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.store.commit(bench.take_one().holder, mode="replaced", status="RETRY", results=[("s1", meta("s1"))])
    assert bench.client.ttl(bench.keys.step("s1", "s1")) == -1


def test_a_progress_note_gets_its_end_with_the_run(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    holder = bench.take_one().holder
    bench.store.progress(holder, meta("s1", status="PROGRESS"))
    assert bench.client.ttl(bench.keys.result("s1")) == -1
    bench.store.commit(holder, mode="done", status="SUCCESS")
    assert bench.client.ttl(bench.keys.result("s1")) > 0


def test_a_dead_mark_and_a_card_have_an_end(bench: Bench) -> None:
    bench.kill("w1")
    bench.store.leave("w2")
    bench.worker("w3")
    bench.take("w3")
    for kind in ("dead", "worker"):
        assert bench.without_end(kind) == []
