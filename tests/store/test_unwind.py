"""What stands below an agent that could not end it by itself: sub-agents hear of it, questions close."""

from __future__ import annotations

import json

from agentq.store.refs import Holder, Offer
from tests.store.bench import Bench, agent_join, meta


def child_of(bench: Bench, name: str, **options: object) -> Offer:
    return bench.agent(name, root="run", parent="run", **options)


def park(bench: Bench, holder: Holder) -> None:
    seen = len(bench.store.read_log(holder.root, holder.id))
    assert bench.store.park(holder, seen=seen, due_ms=None, waits=["go"])


def ask(name: str) -> str:
    return json.dumps({"id": name, "run": "run", "q": "Well?"})


def fail_from_outside(bench: Bench, holder: Holder) -> None:
    results = [(holder.id, meta(holder.id, status="FAILURE"))]
    bench.store.commit(holder, mode="done", status="FAILURE", results=results)


def test_an_agent_that_is_ended_from_outside_takes_along_what_it_called(bench: Bench) -> None:
    parent = bench.run_agent("run")
    called, spawned = child_of(bench, "called", ask="called"), child_of(bench, "spawned", ask="spawned", spawned=True)
    bench.store.send(parent, token="t", seen=1, offers=[called, spawned], questions=[ask("ask")])
    for got in bench.take("w2", slots=2):
        park(bench, got.holder)
    fail_from_outside(bench, parent)
    assert len(bench.store.asks()) == 0
    bench.tick()
    assert bench.kinds("called", "run")[-1] == "cancel"
    assert bench.state("called", "run") == "q"
    assert bench.kinds("spawned", "run") == ["start"]
    assert bench.client.hget(bench.keys.ask("run", "ask"), "s") == b"closed"
    assert bench.client.zcard(bench.keys.of("unwinding")) == 0


def test_the_walk_goes_on_from_chunk_to_chunk(bench: Bench) -> None:
    parent = bench.run_agent("run")
    children = [child_of(bench, f"child{number}", ask=f"child{number}") for number in range(7)]
    bench.store.send(parent, token="t", seen=1, offers=children)
    fail_from_outside(bench, parent)
    for _ in range(4):
        bench.tick(chunk=2)
    assert all(bench.kinds(f"child{number}", "run")[-1] == "cancel" for number in range(7))


def test_an_agent_that_ends_by_itself_says_what_ends_with_it(bench: Bench) -> None:
    parent = bench.run_agent("run")
    bench.store.send(parent, token="t", seen=1, offers=[child_of(bench, "child", ask="child")])
    bench.store.commit(parent, mode="done", status="FAILURE", inside=True)
    bench.tick()
    assert bench.kinds("child", "run") == ["start"]


def test_the_sub_agents_of_a_fan_out_hear_that_it_was_given_up(bench: Bench) -> None:
    parent = bench.run_agent("run")
    members = [child_of(bench, f"m{number}", join=("run", "map"), index=number) for number in range(3)]
    bench.store.send(parent, token="t", seen=1, joins=[agent_join("run", "map", 3)], offers=members)
    bench.store.send(parent, token="u", seen=1, cancels=["map"])
    bench.tick()
    assert [bench.kinds(f"m{number}", "run")[-1] for number in range(3)] == ["cancel"] * 3
    assert bench.kinds("run") == ["start"]


def test_a_cancelled_agent_starts_no_other(bench: Bench) -> None:
    parent = bench.run_agent("run")
    bench.store.cancel("run", "run", "enough")
    undo = child_of(bench, "undo", ask="undo", undoes=True)
    entries = bench.store.send(parent, token="t", seen=2, offers=[child_of(bench, "late", ask="late"), undo])
    (refused,) = [json.loads(entry) for entry in entries]
    assert (refused["id"], refused["v"]["code"]) == ("late", "run_cancelled")
    assert bench.record("late", "run") == {}
    assert bench.state("undo", "run") == "q"


def test_a_step_that_waits_for_another_try_ends_at_once(bench: Bench) -> None:
    parent = bench.run_agent("run")
    bench.store.send(parent, token="t", seen=1, offers=[bench.step("late", root="run", parent="run", ask="late")])
    bench.again(bench.take_one("w2").holder, due_ms=bench.store.now_ms() + 3_600_000)
    bench.store.send(parent, token="u", seen=1, cancels=["late"])
    got = bench.take_one("w2")
    assert (got.holder.id, got.generation, got.cancelled) == ("late", 2, True)
    assert bench.client.zcard(bench.keys.of("due")) == 0


def test_a_member_that_waits_for_another_try_ends_with_its_fan_out(bench: Bench) -> None:
    parent = bench.run_agent("run")
    members = [
        bench.step(f"m{number}", root="run", parent="run", join=("run", name), index=number)
        for name, number in (("map", 0), ("other", 1))
    ]
    joins = [agent_join("run", "map", 1), agent_join("run", "other", 2)]
    bench.store.send(parent, token="t", seen=1, joins=joins, offers=members)
    for got in bench.take("w2", slots=2):
        bench.again(got.holder, due_ms=bench.store.now_ms() + 3_600_000)
    bench.store.send(parent, token="u", seen=1, cancels=["map"])
    bench.tick()
    got = bench.take_one("w2")
    assert (got.holder.id, got.generation, got.cancelled) == ("m0", 2, True)
    assert bench.state("m1", "run") == "l"
