"""A run that stands still: what is to be taken of it waits in its line; each script answers a repeat as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentq.core.codec import dumps
from agentq.store.logs import StandsStill
from agentq.store.refs import Offer
from tests.kit.server import PrivateServer
from tests.properties.rules import STOP_RULES
from tests.store.bench import Bench, break_rule


def below(bench: Bench, name: str, parent: str = "r", **options: Any) -> Offer:
    return bench.step(name, root="r", parent=parent, **options)


def sub_agent(bench: Bench, name: str) -> Offer:
    return bench.agent(name, root="r", parent="r")


def taken(bench: Bench, slots: int = 9) -> list[str]:
    return [got.holder.id for got in bench.take(slots=slots)]


def resumed(bench: Bench, run: str = "r") -> None:
    assert bench.store.resume("r", run) == "new"
    bench.tick()
    while bench.look().parts("waiters"):
        bench.tick()


def test_nothing_of_a_stopped_run_or_below_it_is_taken(bench: Bench) -> None:
    bench.store.offer([bench.agent("r"), sub_agent(bench, "child"), below(bench, "a"), below(bench, "b", "child")])
    assert bench.store.stop("r", "r", "why", rule="person") == "new"
    assert bench.store.stop("r", "r", "again", rule="person") == "known"
    assert taken(bench) == []
    assert bench.store.stops("r") == [("r", "why")]
    assert {bench.state(name, "r") for name in ("r", "child", "a", "b")} == {"l"}
    bench.client.zadd(bench.keys.of("gates"), dict.fromkeys(bench.client.zrange(bench.keys.of("gates"), 0, -1), 0))
    bench.tick()
    assert taken(bench) == [], "time alone lets nothing go"
    resumed(bench)
    assert bench.store.resume("r", "r") == "known"
    assert bench.store.stops("r") == []
    assert "st" not in bench.record("r")
    assert taken(bench) == ["r", "child", "a", "b"], "in the order in which they would have been taken"
    assert "zs" not in bench.record("a", "r")


def test_only_what_stands_below_the_stopped_one_stands_still(bench: Bench) -> None:
    offers = [sub_agent(bench, "child"), below(bench, "a"), below(bench, "b", "child")]
    bench.store.offer([bench.agent("r"), *offers, below(bench, "u", "child", undoes=True)])
    bench.store.stop("r", "child", "why", rule="person")
    assert taken(bench) == ["r", "a", "u"], "an undo is never stopped"
    resumed(bench, "child")
    assert taken(bench) == ["child", "b"]


def test_what_is_cancelled_goes_to_its_end(bench: Bench) -> None:
    bench.store.offer([bench.agent("r"), below(bench, "a")])
    bench.store.stop("r", "r", "why", rule="person")
    assert taken(bench) == []
    assert bench.store.cancel("r", "r", "enough") == "new"
    (got,) = bench.take(slots=9)
    assert got.holder.id == "r"
    bench.finish(got.holder, status="REVOKED")
    bench.tick()
    assert taken(bench) == ["a"], "to be revoked"
    assert bench.store.stop("r", "r", "why", rule="person") == "ended"
    assert bench.store.resume("r", "r") == "ended"


def test_what_is_cancelled_sends_its_undos(bench: Bench) -> None:
    bench.store.offer([bench.agent("r")])
    bench.store.stop("r", "r", "why", rule="person")
    assert taken(bench) == []
    bench.store.cancel("r", "r", "enough")
    holder = bench.take_one().holder
    bench.store.send(holder, token="1", seen=2, offers=[below(bench, "u", undoes=True)])
    assert taken(bench) == ["u"]


def test_what_a_stopped_run_leaves_behind_goes_on_with_its_end(bench: Bench) -> None:
    """A turn that was under way may bring it to its end; what it has spawned is nobody's to resume then."""
    holder = bench.run_agent("r")
    bench.store.offer([sub_agent(bench, "spawned")])
    bench.store.stop("r", "r", "why", rule="person")
    assert taken(bench) == []
    bench.finish(holder, inside=True)
    bench.tick()
    assert taken(bench) == ["spawned"]


def test_a_take_sets_aside_no_more_than_it_may(bench: Bench) -> None:
    bench.store.offer([bench.agent("r"), *(below(bench, f"s{number:03}") for number in range(700))])
    bench.store.offer([bench.step("other")])
    bench.store.stop("r", "r", "why", rule="person")
    assert taken(bench, 1) == []
    assert 390 <= sum(bench.store.waiting("q").values()) <= 402, "some ms of the server's time, not all at once"
    assert bench.client.exists(bench.keys.bell("q")), "somebody is to go on with it"
    assert taken(bench, 1) == []
    assert taken(bench, 1) == ["other"]
    resumed(bench)
    assert taken(bench, 800) == ["r", *(f"s{number:03}" for number in range(700))]


def test_what_stood_still_comes_behind_what_waits(bench: Bench) -> None:
    bench.store.offer([bench.agent("r"), below(bench, "a")])
    bench.store.stop("r", "r", "why", rule="person")
    assert taken(bench) == []
    bench.store.offer([bench.step("other")])
    resumed(bench)
    assert taken(bench) == ["other", "r", "a"]


def test_a_turn_that_sends_is_over(bench: Bench) -> None:
    holder = bench.run_agent("r")
    ask = dumps({"k": "ask", "id": "a", "key": "step/x/0", "kind": "call", "name": "step", "after": 1})
    local = dumps({"k": "ask", "id": "l", "key": "l/x/0", "kind": "local", "name": "l", "after": 1})
    given: dict[str, Any] = {"token": "1", "seen": 1, "asks": [local, ask], "offers": [below(bench, "a")]}
    given["results"] = [dumps({"k": "result", "id": "l", "s": "ok", "v": 1})]
    given |= {"stop": {"rule": "repeats", "why": "nothing new"}, "usage": {"tokens": 5}}
    for _ in range(2):
        # The second is what a client repeats whose reply was lost.
        with pytest.raises(StandsStill):
            bench.store.send(holder, **given)
    assert [(line["k"], line.get("again")) for line in bench.log("r")[1:]] == [
        ("ask", None),
        ("ask", 1),
        ("result", None),
    ]
    assert bench.record("a", "r") == {}, "nothing is sent"
    assert bench.store.tree("r")["n_tokens"] == 5
    record = bench.record("r")
    assert (record["s"], record["zs"], record["st"]) == ("l", "r", "nothing new")
    assert bench.events("r").count("stopped") == 1
    assert taken(bench) == []
    assert bench.client.hlen(bench.keys.held(holder.worker)) == 0
    assert bench.store.resume("r", "r", allow=["repeats"]) == "new"
    assert bench.log("r")[-1]["allow"] == ["repeats"]
    bench.tick()
    assert taken(bench) == ["r"]


def test_a_sub_agent_sends_nothing_below_a_stopped_run(bench: Bench) -> None:
    bench.run_agent("r")
    bench.store.offer([sub_agent(bench, "child")])
    holder = bench.take_one().holder
    bench.store.stop("r", "r", "why", rule="person")
    with pytest.raises(StandsStill):
        bench.store.send(holder, token="1", seen=1, offers=[below(bench, "a", "child")])
    assert bench.record("a", "r") == {}
    resumed(bench)
    assert taken(bench) == ["child"]


def test_a_run_that_has_moved_is_not_stopped_for_having_been_quiet(bench: Bench) -> None:
    bench.store.offer([bench.agent("r")])
    assert bench.store.stop("r", "r", "quiet", rule="quiet", seen=0) == "moved"
    assert bench.store.stop("r", "r", "quiet", rule="quiet", seen=1) == "new"
    assert bench.store.stop("r", "nobody", "quiet", rule="quiet") == "unknown"
    assert bench.store.resume("r", "nobody") == "unknown"
    resumed(bench)


def test_a_parked_run_that_goes_on_sees_the_word(bench: Bench) -> None:
    holder = bench.run_agent("r")
    bench.store.park(holder, seen=1, due_ms=None)
    bench.store.stop("r", "r", "why", rule="person")
    bench.store.signal("r", "r", "go", "1")
    assert bench.state("r") == "p", "nobody waits for that"
    resumed(bench)
    assert bench.kinds("r") == ["start", "signal", "resume"]
    assert taken(bench) == ["r"]


# -- each rule is needed


@pytest.fixture
def broken(clean_server: PrivateServer) -> Iterator[Bench]:
    """A bench without the checks at the end: what lacks a rule need not come to rest."""
    made = Bench(clean_server)
    made.worker("w1")
    yield made
    made.client.flushall()
    made.store.close()


NOTICED_BY: dict[str, Callable[[Bench], None]] = {
    "take what stands still": test_nothing_of_a_stopped_run_or_below_it_is_taken,
    "stop what stands above it": test_only_what_stands_below_the_stopped_one_stands_still,
    "look at its own run alone": test_nothing_of_a_stopped_run_or_below_it_is_taken,
    "stop an undo": test_only_what_stands_below_the_stopped_one_stands_still,
    "hold the cancelled": test_what_is_cancelled_sends_its_undos,
    "let the last go first": test_what_stood_still_comes_behind_what_waits,
    "stop what has moved": test_a_run_that_has_moved_is_not_stopped_for_having_been_quiet,
    "send below a stopped run": test_a_sub_agent_sends_nothing_below_a_stopped_run,
    "send what stops it": test_a_turn_that_sends_is_over,
    "forget what was asked": test_a_turn_that_sends_is_over,
    "keep the turn's custody": test_a_turn_that_sends_is_over,
    "leave its line at its end": test_what_a_stopped_run_leaves_behind_goes_on_with_its_end,
    "tell its journal nothing": test_a_parked_run_that_goes_on_sees_the_word,
    "keep the reason": test_nothing_of_a_stopped_run_or_below_it_is_taken,
}


@pytest.mark.parametrize("name", sorted(STOP_RULES))
def test_a_missing_rule_is_noticed(broken: Bench, name: str) -> None:
    break_rule(broken, *STOP_RULES[name])
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception, StandsStill)):
        NOTICED_BY[name](broken)
