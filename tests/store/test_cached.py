"""Cached steps: one attempt makes an answer, the others wait without a slot and take it; nothing of it is left over."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentq.store.admissions import Admission, AdmissionReply, cache_wish, digest_of, rate_wish
from agentq.store.refs import Holder
from tests.kit.server import PrivateServer
from tests.properties.rules import CACHE_RULES
from tests.store.bench import TREE, Bench, break_rule

HOUR_MS = 3_600_000
READ, OTHER = digest_of("read|1"), digest_of("read|2")


class Calls:
    """Cached steps by name; each holds what it was taken with."""

    def __init__(self, bench: Bench, *gates: dict[str, Any]) -> None:
        self.bench = bench
        self.gates = gates
        self.held: dict[str, Holder] = {}

    def ask(self, name: str, digest: str = READ, *, token: str | None = None, **more: Any) -> AdmissionReply:
        wish = cache_wish("read", digest, refresh=more.pop("refresh", False), alone=more.pop("alone", False))
        return self.bench.store.admit(
            self.held[name],
            Admission(gates=self.gates, cache=wish, **more),
            token=token if token is not None else uuid.uuid4().hex,
        )

    def begin(self, name: str, digest: str = READ, worker: str = "w1", **more: Any) -> str:
        """Offer, take and ask."""
        self.bench.store.offer([self.bench.step(name)])
        assert self.take(worker) == name
        return self.ask(name, digest, **more).verdict

    def take(self, worker: str = "w1") -> str:
        got = self.bench.take_one(worker)
        self.held[got.holder.id] = got.holder
        return got.holder.id

    def resume(self, digest: str = READ) -> tuple[str, str]:
        """Take what was called, ask, and end it if it was answered."""
        name = self.take()
        verdict = self.ask(name, digest).verdict
        if verdict == "cached":
            self.bench.finish(self.held.pop(name))
        return name, verdict

    def answer(self, name: str, value: str | None = "1", **more: Any) -> None:
        """Commit what its function has returned."""
        kept = {"ms": HOUR_MS, **more} | ({"v": value} if value is not None else {})
        self.bench.finish(self.held.pop(name), settles={"ok": 1, "c": kept})

    def fail(self, name: str) -> None:
        self.bench.store.commit(self.held.pop(name), mode="done", status="FAILURE", settles={"ok": 0})

    @property
    def told(self) -> tuple[int, int]:
        """How often it was answered, and how often an answer was made."""
        (found,) = self.bench.store.caches()
        return found.hits, found.runs

    def is_clean(self) -> bool:
        """No flight is left, nobody waits, and what is kept has its end."""
        look = self.bench.look()
        return (
            look.parts("gate") == look.parts("waiters") == look.parts("called") == []
            and self.bench.client.zcard(self.bench.keys.of("gates")) == 0
            and self.bench.without_end("cached") == []
        )


def test_an_answer_stands_for_the_next_call(bench: Bench) -> None:
    calls = Calls(bench)
    assert calls.begin("a") == "go"
    calls.answer("a", '{"x":1}', tokens=70, usd_micro=1500)
    bench.store.offer([bench.step("b")])
    calls.take()
    reply = calls.ask("b")
    assert (reply.verdict, reply.value) == ("cached", b'{"x":1}')
    assert bench.record("b")["a"] == "0", "no attempt was made"
    bench.finish(calls.held.pop("b"))
    (found,) = bench.store.caches()
    assert (found.step, found.runs, found.saved_tokens, str(found.saved_usd)) == ("read", 1, 70, "0.0015")
    assert bench.store.tree("b")["n_saved_tokens"] == 70
    assert calls.is_clean()


def test_another_digest_is_another_answer(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    calls.answer("a")
    assert calls.begin("b", OTHER) == "go"
    calls.answer("b", "2")
    assert calls.told == (0, 2)


def test_fifty_calls_make_one_answer(bench: Bench) -> None:
    calls = Calls(bench)
    assert calls.begin("first") == "go"
    others = [f"c{number:02}" for number in range(50)]
    assert [calls.begin(name) for name in others] == ["waits"] * 50
    assert {bench.state(name) for name in others} == {"l"}, "who waits holds no worker"
    assert {bench.record(name)["a"] for name in others} == {"0"}
    assert bench.take() == []
    calls.answer("first")
    assert [calls.resume() for _ in others] == [(name, "cached") for name in others], "in their order"
    assert calls.told == (50, 1)
    assert calls.is_clean()


def test_more_than_one_script_calls_come_soon(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("first")
    for number in range(150):
        calls.begin(f"c{number:03}")
    calls.answer("first")
    # A hundred were called at once; each that is answered calls further ones.
    assert [calls.resume()[1] for _ in range(150)] == ["cached"] * 150
    assert calls.is_clean()


def test_a_failing_runner_hands_the_call_to_the_next(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    assert [calls.begin(name) for name in "bcd"] == ["waits"] * 3
    calls.fail("a")
    assert calls.resume() == ("b", "go")
    assert bench.take() == [], "one at a time"
    calls.fail("b")
    assert calls.resume() == ("c", "go")
    calls.answer("c")
    assert calls.resume() == ("d", "cached")
    assert calls.is_clean()


def test_a_dead_runner_frees_the_call(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a", worker="w2")
    assert calls.begin("b") == "waits"
    bench.kill("w2")
    # The dead one's own step is a suspect, and asks anew.
    found = {calls.take("w1"), calls.take("w3" if bench.worker("w3") else "")}
    assert found == {"a", "b"}
    assert calls.ask("b").verdict == "go"
    assert calls.ask("a").verdict == "waits"
    calls.answer("b")
    assert calls.resume() == ("a", "cached")
    assert calls.is_clean()


def test_a_runner_that_tries_again_later_hands_the_call_on(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    calls.begin("b")
    bench.again(calls.held.pop("a"), due_ms=bench.store.now_ms() + HOUR_MS)
    assert calls.resume() == ("b", "go")
    calls.answer("b")
    bench.fire_timers()
    assert calls.resume() == ("a", "cached")


def test_a_runner_that_tries_again_in_place_keeps_the_call(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    calls.begin("b")
    assert calls.ask("a", before={"ok": 0}).verdict == "go"
    assert bench.take() == [], "the other one waits on"
    calls.answer("a")
    assert calls.resume() == ("b", "cached")


def test_a_called_one_that_no_worker_takes_lets_the_next_one_go(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    bench.store.offer([bench.step("b", queue="nobody")])
    calls.held["b"] = bench.take_one("w1", queues=("nobody",)).holder
    assert calls.ask("b").verdict == "waits"
    assert calls.begin("c") == "waits"
    calls.fail("a")
    assert (bench.state("b"), bench.state("c")) == ("q", "l")
    bench.client.zadd(bench.keys.of("called", READ), {"b|b": 1})
    bench.client.zadd(bench.keys.of("gates"), {READ: 1})
    bench.tick()
    assert calls.resume() == ("c", "go")
    calls.answer("c")
    calls.held["b"] = bench.take_one("w1", queues=("nobody",)).holder
    assert calls.ask("b").verdict == "cached"


def test_a_cancelled_one_leaves_the_line(bench: Bench) -> None:
    run = bench.run_agent()
    calls = Calls(bench)
    calls.begin("a")
    bench.store.send(run, token="t", seen=1, offers=[bench.step("b", root="run", parent="run", ask="b")])
    assert calls.take() == "b"
    assert calls.ask("b").verdict == "waits"
    bench.store.send(run, token="u", seen=1, cancels=["b"])
    (got,) = bench.take()
    assert (got.holder.id, got.cancelled) == ("b", True)
    bench.store.commit(got.holder, mode="done", status="REVOKED")
    calls.answer("a")
    assert calls.is_clean()


def test_an_answer_ends_after_its_time(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    calls.answer("a", ms=7_000_000)
    left = bench.client.pttl(bench.keys.of("cached", READ))
    assert 6_000_000 < left <= 7_000_000
    bench.client.delete(bench.keys.of("cached", READ))
    assert calls.begin("b") == "go"


def test_the_same_token_gets_the_same_answer(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    calls.answer("a")
    bench.store.offer([bench.step("b")])
    calls.take()
    replies = [calls.ask("b", token="t") for _ in range(3)]
    assert [(reply.verdict, reply.value) for reply in replies] == [("cached", b"1")] * 3
    assert calls.told == (1, 1)
    assert bench.record("b")["a"] == "0"
    # Gone in between, it is asked for anew.
    bench.client.delete(bench.keys.of("cached", READ))
    assert calls.ask("b", token="t").verdict == "go"
    assert bench.record("b")["a"] == "1"


def test_what_is_too_large_is_waited_for_by_nobody(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    assert [calls.begin(name) for name in "bc"] == ["waits"] * 2
    calls.answer("a", None)
    assert [calls.resume() for _ in range(2)] == [("b", "go"), ("c", "go")], "side by side"
    assert calls.begin("d") == "go"
    for name in "bcd":
        calls.answer(name, None)
    assert calls.is_clean()


def test_a_refused_answer_is_made_anew(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    calls.answer("a", '"of earlier code"')
    assert calls.begin("b") == "cached"
    assert calls.ask("b", refresh=True).verdict == "go"
    calls.answer("b", "2")
    assert bench.record("b")["a"] == "1"
    bench.store.offer([bench.step("c")])
    calls.take()
    assert calls.ask("c").value == b"2"


def test_a_refused_answer_has_saved_nothing(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    calls.answer("a", '"of earlier code"', tokens=70, usd_micro=1500)
    bench.store.offer([bench.step("b", hedge="p95")])
    calls.take()
    assert calls.ask("b").verdict == "cached"
    assert [calls.ask("b", refresh=True, token="t").verdict for _ in range(2)] == ["go", "go"]
    (found,) = bench.store.caches()
    assert (found.hits, found.saved_tokens, float(found.saved_usd)) == (0, 0, 0.0)
    tree = bench.store.tree("b")
    assert (tree["n_cached"], tree["n_saved_tokens"], tree["n_saved_usd_micro"]) == (0, 0, 0)
    assert bench.record("b")["hg"] == "p95"
    calls.answer("b", "2")
    assert calls.is_clean()


def test_a_hedge_does_not_wait_for_what_it_is_to_overtake(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    assert calls.begin("b", alone=True) == "go"
    assert calls.begin("c") == "waits"
    calls.answer("b", "2")
    assert calls.resume() == ("c", "cached")
    calls.fail("a")
    assert calls.is_clean()


def test_who_tries_again_and_finds_an_answer_is_at_it_no_more(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    calls.begin("b", alone=True)
    calls.answer("b", "2")
    assert calls.ask("a", before={"ok": 0}).verdict == "cached"
    bench.finish(calls.held.pop("a"))
    assert calls.is_clean()


def test_dropped_answers_count_for_nothing(bench: Bench) -> None:
    calls = Calls(bench)
    assert not bench.store.drop_cache("read")
    calls.begin("a")
    calls.answer("a")
    calls.begin("late", OTHER)
    assert bench.store.drop_cache("read")
    # Also what was under way.
    calls.answer("late")
    assert calls.begin("b", OTHER) == "go"
    assert calls.begin("c") == "go"
    for name in "bc":
        calls.answer(name)
    assert calls.begin("d") == "cached"


def test_a_limit_is_not_used_by_what_was_answered(bench: Bench) -> None:
    calls = Calls(bench, rate_wish("one", in_flight=1))
    calls.begin("a")
    # Its own arguments are free, but the limit is not.
    assert calls.begin("b", OTHER) == "waits"
    assert calls.begin("c") == "waits"
    calls.answer("a")
    assert {calls.take(), calls.take()} == {"b", "c"}
    assert calls.ask("b", OTHER).verdict == "go"
    assert calls.ask("c").verdict == "cached", "though the only slot is taken"
    bench.finish(calls.held.pop("c"))
    calls.answer("b")
    (limit,) = bench.store.gates()
    assert (limit.in_flight, limit.waiting) == (0, 0)


def test_who_was_called_to_a_slot_and_finds_an_answer_gives_it_back(bench: Bench) -> None:
    calls = Calls(bench, rate_wish("one", in_flight=1))
    calls.begin("a")
    assert calls.begin("b", OTHER) == "waits"
    calls.answer("a")
    calls.take()
    # Another has made it meanwhile, past the limit.
    bench.client.hset(bench.keys.of("cached", OTHER), mapping={"ep": 0, "v": "5"})
    bench.client.expire(bench.keys.of("cached", OTHER), 100)
    assert calls.ask("b", OTHER).verdict == "cached"
    bench.finish(calls.held.pop("b"))
    (limit,) = bench.store.gates()
    assert limit.in_flight == 0


def test_an_answered_step_uses_nothing_of_a_budget_but_itself(bench: Bench) -> None:
    calls = Calls(bench)
    calls.begin("a")
    calls.answer("a")
    run = bench.run_agent(budget={"attempts": 1, "steps": 1})
    offers = [bench.step("b", root="run", parent="run", ask="b", accounts=TREE)]
    bench.store.send(run, token="t", seen=1, offers=offers, accounts=TREE)
    calls.take()
    assert calls.ask("b", accounts=TREE, attempts=True).verdict == "cached"
    tree = bench.store.tree("run")
    assert (tree["n_steps"], tree.get("n_attempts", 0)) == (1, 0)


# -- each rule is needed


@pytest.fixture
def broken(clean_server: PrivateServer) -> Iterator[Bench]:
    """A bench without the checks at the end: what lacks a rule need not come to rest."""
    made = Bench(clean_server)
    made.worker("w1")
    made.worker("w2")
    yield made
    made.client.flushall()
    made.store.close()


NOTICED_BY: dict[str, Callable[[Bench], None]] = {
    "let all make it": test_fifty_calls_make_one_answer,
    "hold others back for good": test_a_hedge_does_not_wait_for_what_it_is_to_overtake,
    "answer what was dropped": test_dropped_answers_count_for_nothing,
    "keep what was dropped meanwhile": test_dropped_answers_count_for_nothing,
    "keep it for ever": test_fifty_calls_make_one_answer,
    "hand it on with each try": test_a_runner_that_tries_again_in_place_keeps_the_call,
    "count what was answered as an attempt": test_an_answer_stands_for_the_next_call,
    "leave its flight behind": test_fifty_calls_make_one_answer,
    "keep a place that is not used": test_who_tries_again_and_finds_an_answer_is_at_it_no_more,
}


@pytest.mark.parametrize("name", sorted(CACHE_RULES))
def test_a_missing_rule_is_noticed(broken: Bench, name: str) -> None:
    break_rule(broken, *CACHE_RULES[name])
    with pytest.raises((AssertionError, KeyError, ValueError)):
        NOTICED_BY[name](broken)
