"""Breakers, rates and limits: one state for all workers, places in order, nothing held by the dead."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from agentq.store.admissions import Admission, AdmissionReply, breaker_wish, rate_wish
from agentq.store.refs import Holder
from tests.kit.server import PrivateServer
from tests.properties.rules import GUARD_RULES
from tests.store import test_accounts
from tests.store.bench import LONG_AGO, Bench, break_rule


class Gates:
    """Steps that ask for admission, by name."""

    def __init__(self, bench: Bench, *wishes: dict[str, Any]) -> None:
        self.bench = bench
        self.wishes = wishes
        self.held: dict[str, Holder] = {}
        bench.worker("w1")
        bench.worker("w2")

    def offer(self, *names: str) -> None:
        self.bench.store.offer([self.bench.step(name) for name in names])

    def take(self, worker: str = "w1") -> str:
        got = self.bench.take_one(worker)
        self.held[got.holder.id] = got.holder
        return got.holder.id

    def ask(self, name: str, **more: Any) -> AdmissionReply:
        return self.bench.store.admit(
            self.held[name], Admission(gates=more.pop("gates", self.wishes), **more), token=uuid.uuid4().hex
        )

    def begin(self, name: str, worker: str = "w1", **more: Any) -> str:
        """Offer, take and ask."""
        self.offer(name)
        assert self.take(worker) == name
        return self.ask(name, **more).verdict

    def resume(self, worker: str = "w1", **more: Any) -> tuple[str, str]:
        """Take what was called and ask."""
        name = self.take(worker)
        return name, self.ask(name, **more).verdict

    def end(self, name: str, *, ok: bool | None = True, tokens: int | None = None, **more: Any) -> None:
        settles = {"ok": int(ok)} if ok is not None else {}
        if tokens is not None:
            settles["tokens"] = tokens
        self.bench.finish(self.held.pop(name), settles=settles, **more)

    def call(self, name: str, *, ok: bool | None = True, **more: Any) -> str:
        verdict = self.begin(name, **more)
        if verdict == "go":
            self.end(name, ok=ok)
        return verdict

    @property
    def gate(self) -> Any:
        (summary,) = self.bench.store.gates()
        return summary

    def rewrite(self, wish: dict[str, Any], **fields: Any) -> None:
        self.bench.client.hset(self.bench.keys.of("gate", wish["d"]), mapping=fields)

    def look(self) -> None:
        """Let time bring what it brings to every gate."""
        for digest in self.bench.client.zrange(self.bench.keys.of("gates"), 0, -1):
            self.bench.client.zadd(self.bench.keys.of("gates"), {digest: LONG_AGO})
        self.bench.tick()

    def is_clean(self) -> bool:
        """Nothing is held or waits, and every key has its end."""
        return (
            all(each.in_flight == 0 and each.waiting == 0 for each in self.bench.store.gates())
            and self.bench.without_end("gate", "waiters", "called") == []
        )


SLOTS = rate_wish("account:7", in_flight=2)
RATE = rate_wish("openai", requests=3, tokens=1000, window_ms=60_000)
BREAKER = breaker_wish("llm", rate=0.5, volume=4, window_ms=60_000, reset_ms=60_000, jitter=0.2, probes=2)


def test_no_more_than_the_slots_run_at_once(bench: Bench) -> None:
    gates = Gates(bench, SLOTS)
    assert [gates.begin(name) for name in "abc"] == ["go", "go", "waits"]
    assert bench.state("c") == "l"
    assert bench.record("c")["a"] == "0", "a step that waits has made no attempt"
    gates.end("a")
    assert gates.resume() == ("c", "go")
    gates.end("b")
    gates.end("c")
    assert gates.is_clean()


def test_waiting_steps_go_in_the_order_of_their_asking(bench: Bench) -> None:
    gates = Gates(bench, rate_wish("one", in_flight=1))
    assert [gates.begin(name) for name in "abcd"] == ["go", "waits", "waits", "waits"]
    order = []
    running = "a"
    for _ in range(3):
        gates.end(running)
        running = gates.take()
        # One that comes late finds the place given away already, to whom it belongs.
        assert gates.begin(f"late-{running}") == "waits"
        assert gates.ask(running).verdict == "go"
        order.append(running)
    assert order == ["b", "c", "d"]


def test_a_dead_holder_frees_its_slot_at_once(bench: Bench) -> None:
    gates = Gates(bench, rate_wish("one", in_flight=1))
    gates.begin("a", worker="w2")
    gates.begin("b")
    bench.kill("w2")
    assert gates.gate.waiting == 0
    # The one that died is a suspect, which goes first into an idle worker; the slot is the other's all the same.
    found = {gates.take("w1"), gates.take("w2b" if bench.worker("w2b") else "")}
    assert found == {"a", "b"}
    assert gates.ask("a").verdict == "waits"
    assert gates.ask("b").verdict == "go"
    gates.end("b")
    assert gates.resume() == ("a", "go")


def test_a_called_step_that_no_worker_takes_lets_the_next_one_go(bench: Bench) -> None:
    gates = Gates(bench, rate_wish("one", in_flight=1))
    gates.begin("a")
    bench.store.offer([bench.step("b", queue="nobody")])
    gates.held["b"] = bench.take_one("w1", queues=("nobody",)).holder
    assert gates.ask("b").verdict == "waits"
    assert gates.begin("c") == "waits"
    gates.end("a")
    assert (bench.state("b"), bench.state("c")) == ("q", "l")
    (called,) = bench.look().parts("called")
    bench.client.zadd(bench.keys.of("called", *called), {"b|b": LONG_AGO})
    gates.look()
    assert gates.resume() == ("c", "go")
    # Its turn has not passed: it stands in front of those that came after it.
    assert gates.begin("d") == "waits"
    gates.held["b"] = bench.take_one("w1", queues=("nobody",)).holder
    assert gates.ask("b").verdict == "waits"
    gates.end("c")
    assert (bench.state("b"), bench.state("d")) == ("q", "l")


def test_a_cancelled_step_leaves_its_line(bench: Bench) -> None:
    gates = Gates(bench, rate_wish("one", in_flight=1))
    bench.store.offer([bench.agent("run")])
    run = bench.take_one().holder
    for name in ("a", "b", "c"):
        bench.store.send(run, token=name, seen=1, offers=[bench.step(name, root="run", parent="run", ask=name)])
        gates.take()
        gates.ask(name)
    bench.store.send(run, token="x", seen=1, cancels=("b",))
    (got,) = bench.take()
    assert (got.holder.id, got.cancelled) == ("b", True)
    bench.finish(got.holder, status="REVOKED")
    gates.end("a")
    assert gates.resume() == ("c", "go")
    gates.end("c")
    assert gates.is_clean()


def test_a_repeated_question_reserves_once(bench: Bench) -> None:
    gates = Gates(bench, SLOTS)
    gates.offer("a")
    gates.take()
    replies = [bench.store.admit(gates.held["a"], Admission(gates=[SLOTS]), token="t").verdict for _ in range(3)]
    assert replies == ["go"] * 3
    assert gates.gate.in_flight == 1


def test_a_second_question_of_an_attempt_settles_the_first(bench: Bench) -> None:
    gates = Gates(bench, SLOTS, RATE)
    gates.begin("a", tokens=500)
    assert gates.ask("a", tokens=100, before={"tokens": 200}).verdict == "go"
    rate = next(each for each in bench.store.gates() if each.name == "openai")
    assert (rate.in_flight, rate.requests, rate.tokens) == (1, 2, 300)
    gates.end("a", tokens=50)
    assert bench.store.gates("limit")[1].tokens == 250


def test_all_gates_or_none(bench: Bench) -> None:
    """Who waits at one holds nothing of the others."""
    first, second = rate_wish("first", in_flight=1), rate_wish("second", in_flight=1)
    gates = Gates(bench)
    assert gates.begin("a", gates=[second]) == "go"
    assert gates.begin("b", gates=[first, second]) == "waits"
    assert gates.begin("c", gates=[first]) == "go"
    gates.end("a")
    # Called by the second gate, it finds the first taken, and gives its place there to others.
    assert gates.resume(gates=[first, second]) == ("b", "waits")
    assert gates.begin("d", gates=[second]) == "go"
    gates.end("d")
    gates.end("c")
    assert gates.resume(gates=[first, second]) == ("b", "go")
    gates.end("b")
    assert gates.is_clean()


def test_requests_within_the_window(bench: Bench) -> None:
    gates = Gates(bench, RATE)
    assert [gates.call(name) for name in "abcd"] == ["go", "go", "go", "waits"]
    assert gates.gate.requests == 3
    _pass_window(gates, RATE)
    assert gates.resume() == ("d", "go")


def _pass_window(gates: Gates, wish: dict[str, Any]) -> None:
    key = gates.bench.keys.of("gate", wish["d"])
    buckets = [name for name in gates.bench.client.hkeys(key) if name[1:].isdigit()]
    gates.bench.client.hdel(key, *buckets)
    gates.bench.client.hset(key, "b1", "3|900")
    gates.look()


def test_what_is_reserved_counts_until_its_attempt_ends(bench: Bench) -> None:
    gates = Gates(bench, RATE)
    gates.begin("a", tokens=600)
    assert gates.begin("b", tokens=600) == "waits"
    # However long it takes: its window has passed, its attempt has not.
    record = json.loads(bench.record("a")["gd"])
    record["g"][0]["b"] = 1
    bench.client.hset(bench.keys.step("a", "a"), "gd", json.dumps(record))
    gates.look()
    assert bench.state("b") == "l"
    gates.end("a")
    assert gates.resume(tokens=600) == ("b", "go")
    assert gates.gate.tokens == 600, "what was used before the window is forgotten"


def test_tokens_are_settled_with_what_was_used(bench: Bench) -> None:
    gates = Gates(bench, RATE)
    gates.begin("a", tokens=900)
    assert gates.begin("b", tokens=300) == "waits"
    gates.end("a", tokens=100)
    assert gates.resume(tokens=300) == ("b", "go")
    assert gates.gate.tokens == 400
    gates.end("b")
    assert gates.gate.tokens == 400, "an attempt that says nothing has used what it reserved"


def test_a_killed_attempt_is_charged_its_reservation(bench: Bench) -> None:
    gates = Gates(bench, RATE)
    gates.begin("a", worker="w2", tokens=700)
    bench.kill("w2")
    assert (gates.gate.in_flight, gates.gate.requests, gates.gate.tokens) == (0, 1, 700)


def test_an_estimate_above_the_whole_limit_goes_alone(bench: Bench) -> None:
    gates = Gates(bench, RATE)
    assert gates.begin("a", tokens=5000) == "go"
    assert gates.begin("b", tokens=1) == "waits"


def test_a_large_head_is_not_overtaken_by_small_ones(bench: Bench) -> None:
    gates = Gates(bench, RATE)
    gates.begin("a", tokens=500)
    assert gates.begin("large", tokens=800) == "waits"
    assert gates.begin("small", tokens=1) == "waits"
    gates.end("a", tokens=0)
    assert gates.resume(tokens=800) == ("large", "go")
    assert gates.resume(tokens=1) == ("small", "go")


# -- breakers


def trip(gates: Gates) -> None:
    assert [gates.call(f"bad{number}", ok=number < 2) for number in range(4)] == ["go"] * 4
    assert gates.gate.state == "open"


def pass_reset(gates: Gates) -> None:
    gates.rewrite(BREAKER, un=LONG_AGO)
    gates.look()


def names(prefix: str, size: int) -> Iterable[str]:
    return [f"{prefix}{number}" for number in range(size)]


def test_too_many_failures_among_enough_calls_trip_it(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    assert [gates.call(name, ok=False) for name in "abc"] == ["go"] * 3
    assert gates.gate.state == "closed", "three calls are too few to say anything"
    gates.call("d", ok=False)
    assert (gates.gate.state, gates.gate.trips) == ("open", 1)
    assert gates.begin("e") == "waits"


def test_a_small_share_of_failures_does_not(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    for number in range(12):
        gates.call(f"s{number}", ok=number % 3 != 2)
    assert (gates.gate.state, gates.gate.calls, gates.gate.errors) == ("closed", 12, 4)


def test_failures_outside_the_window_do_not_count(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    for name in "abc":
        gates.call(name, ok=False)
    key = bench.keys.of("gate", BREAKER["d"])
    (bucket,) = [name for name in bench.client.hkeys(key) if name[1:].isdigit()]
    bench.client.hset(key, "b1", bench.client.hget(key, bucket))
    bench.client.hdel(key, bucket)
    gates.call("d", ok=False)
    assert (gates.gate.state, gates.gate.calls) == ("closed", 1)


def test_while_open_a_step_with_a_fallback_is_told_so(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    trip(gates)
    gates.offer("f")
    gates.take()
    reply = gates.ask("f", fallback=True)
    assert (reply.verdict, reply.name) == ("open", "llm")
    assert 0 < reply.wait_ms <= 72_000
    assert bench.state("f") == "h"


def test_after_the_reset_as_many_probes_go_as_it_says(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    trip(gates)
    assert [gates.begin(name) for name in names("w", 5)] == ["waits"] * 5
    pass_reset(gates)
    assert [gates.resume()[0] for _ in range(2)] == ["w0", "w1"]
    assert bench.take() == [], "a third probe was called"
    assert gates.begin("late") == "waits"
    gates.end("w0")
    assert gates.gate.state == "half_open"
    gates.end("w1")
    assert gates.gate.state == "closed"
    assert [gates.resume()[1] for _ in range(4)] == ["go"] * 4
    for name in list(gates.held):
        gates.end(name)
    assert gates.is_clean()


def test_a_probe_that_fails_opens_it_again(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    trip(gates)
    pass_reset(gates)
    assert gates.begin("p") == "go"
    assert gates.begin("q") == "go"
    gates.end("p", ok=False)
    assert (gates.gate.state, gates.gate.trips) == ("open", 2)
    gates.end("q")
    assert gates.gate.state == "open", "a probe of the last time says nothing of this one"


def test_a_dead_prober_does_not_wedge_it(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    trip(gates)
    pass_reset(gates)
    gates.begin("p", worker="w2")
    gates.begin("q", worker="w2")
    assert gates.begin("r") == "waits"
    bench.kill("w2")
    assert (gates.gate.in_flight, gates.gate.waiting) == (1, 0), "r was called to the place of one of them"
    worker = bench.worker("w3")
    taken = [gates.take(worker) for worker in ("w1", worker, bench.worker("w4"))]
    assert {name: gates.ask(name).verdict for name in sorted(taken)} == {"p": "go", "q": "waits", "r": "go"}


def test_a_probe_that_was_killed_for_its_hard_limit_has_failed(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    trip(gates)
    pass_reset(gates)
    gates.begin("p", worker="w2")
    bench.store.mark_overdue("w2", gates.held["p"].take)
    bench.kill("w2")
    assert (gates.gate.state, gates.gate.trips) == ("open", 2)


def test_a_call_from_before_the_trip_does_not_close_it(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    gates.begin("old")
    trip(gates)
    gates.end("old")
    assert gates.gate.state == "open"


def test_an_attempt_that_says_nothing_is_not_counted(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    gates.begin("a")
    gates.end("a", ok=None)
    assert gates.gate.calls == 0


def test_people_trip_and_reset_it(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    assert not bench.store.trip_breaker("llm")
    gates.call("a")
    assert bench.store.trip_breaker("llm", span_ms=1_000_000)
    assert gates.gate.state == "open"
    assert gates.begin("b") == "waits"
    assert bench.store.reset_breaker("llm")
    assert gates.resume() == ("b", "go")
    assert gates.gate.state == "closed"


def test_a_hundred_waiting_calls_and_more_come_chunk_by_chunk(bench: Bench) -> None:
    gates = Gates(bench, BREAKER)
    trip(gates)
    for name in names("w", 150):
        assert gates.begin(name) == "waits"
    bench.store.reset_breaker("llm")
    assert gates.gate.waiting == 50
    gates.look()
    assert gates.gate.waiting == 0
    assert len(bench.take(slots=200)) == 150


@pytest.mark.parametrize("wish", [SLOTS, RATE, BREAKER])
def test_an_idle_gate_has_an_end(bench: Bench, wish: dict[str, Any]) -> None:
    gates = Gates(bench, wish)
    gates.call("a")
    assert gates.is_clean()
    key = bench.keys.of("gate", wish["d"])
    bench.client.delete(key)
    gates.look()
    assert bench.store.gates() == []
    assert bench.client.zcard(bench.keys.of("gates")) == 0


def test_a_gate_that_was_only_looked_at_has_an_end(bench: Bench) -> None:
    first, second = rate_wish("first", in_flight=1), rate_wish("second", in_flight=1)
    gates = Gates(bench)
    assert gates.begin("a", gates=[second]) == "go"
    assert gates.begin("b", gates=[first, second]) == "waits"
    assert bench.client.pttl(bench.keys.of("gate", first["d"])) > 0
    gates.end("a")
    assert gates.resume(gates=[first, second]) == ("b", "go")
    assert bench.client.pttl(bench.keys.of("gate", first["d"])) == -1
    gates.end("b")


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
    "reserve nothing": test_no_more_than_the_slots_run_at_once,
    "let the dead keep their places": test_a_killed_attempt_is_charged_its_reservation,
    "charge nothing for the dead": test_accounts.test_a_killed_attempt_is_charged_what_it_had_reserved,
    "settle what was settled": test_accounts.test_a_retry_settles_what_its_attempt_had_reserved_once,
    "as many probes as come": test_after_the_reset_as_many_probes_go_as_it_says,
    "keep a dead prober's place": test_a_dead_prober_does_not_wedge_it,
    "let late ones overtake": test_a_large_head_is_not_overtaken_by_small_ones,
    "reserve over the budget": test_accounts.test_what_is_reserved_and_used_never_exceeds_the_limit,
    "count too many tokens": test_tokens_are_settled_with_what_was_used,
    "call nobody": test_no_more_than_the_slots_run_at_once,
    "run what no budget has room for": test_accounts.test_a_step_beyond_the_number_is_refused_when_it_is_taken,
}


@pytest.mark.parametrize("name", sorted(GUARD_RULES))
def test_a_missing_rule_is_noticed(broken: Bench, name: str) -> None:
    break_rule(broken, *GUARD_RULES[name])
    with pytest.raises((AssertionError, KeyError, ValueError)):
        NOTICED_BY[name](broken)
