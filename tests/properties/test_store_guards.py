"""Guards under concurrent asking, settling, crashes and lapses: reserved never exceeds a limit, nobody is forgotten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agentq.core.errors import StaleHolder
from agentq.store.admissions import Admission, breaker_wish, rate_wish
from agentq.store.refs import Holder
from tests.kit.server import PrivateServer
from tests.properties.rules import GUARD_RULES
from tests.store.bench import LONG_AGO, Bench, break_rule
from tests.store.snapshot import Snapshot

ROOT: Final = "run"
SLOTS = rate_wish("slots", in_flight=2)
RATE = rate_wish("rate", requests=5, tokens=100, window_ms=3_600_000)
BREAKER = breaker_wish("llm", rate=0.5, volume=2, window_ms=3_600_000, reset_ms=3_600_000, jitter=0, probes=2)
KINDS = ([SLOTS], [RATE], [BREAKER], [SLOTS, RATE], [BREAKER, SLOTS])
STEPS, TOKENS = 10, 250
ACCOUNTS = [{"k": "", "l": ["steps", "tokens"]}]
NUMBERS = st.integers(0, 10_000)


@dataclass
class Running:
    """A taken step: whether it was admitted, and with how many tokens."""

    holder: Holder
    kind: int
    admitted: bool = False
    tokens: int = 0


class Guards(RuleBasedStateMachine):
    """Workers that take, ask, end and die, in any order; ``bench`` is set by the test."""

    bench: ClassVar[Bench]

    @initialize(tripped=st.booleans())
    def begin(self, tripped: bool) -> None:
        """Start with an empty server, two workers, a run with a budget, and a breaker that may be open already."""
        self.bench.client.flushall()
        if tripped:
            gate = {name: str(value) for name, value in BREAKER.items() if name != "d"}
            key = self.bench.keys.of("gate", BREAKER["d"])
            self.bench.client.hset(key, mapping={**gate, "st": "open", "un": LONG_AGO, "ep": 1})
            self.bench.client.pexpire(key, 3_600_000)
        self.count = self.asked = self.enrolled = self.charged = 0
        self.workers = [self.new_worker() for _ in range(2)]
        self.running: list[Running] = []
        self.lost: list[Running] = []
        self.waited: set[str] = set()
        # Its run stays in the hands of one who never dies.
        self.bench.worker("root")
        self.bench.store.offer([self.bench.agent(ROOT, queue="agents", budget={"steps": STEPS, "tokens": TOKENS})])
        self.bench.take_one("root", queues=("agents",))

    def new_worker(self) -> str:
        """Enroll a worker under a fresh id."""
        self.enrolled += 1
        return self.bench.worker(f"w{self.enrolled}")

    def _kind(self, holder: Holder) -> int:
        return int(holder.id[1:]) % len(KINDS)

    @rule(number=NUMBERS, kind=st.integers(0, len(KINDS) - 1))
    def offer(self, number: int, kind: int) -> None:
        """Send a step in a way that asks nobody; its number says which guards it has."""
        self.count += 1
        name = f"s{self.count * len(KINDS) + kind}"
        self.bench.store.offer([self.bench.step(name, root=ROOT, accounts=ACCOUNTS)])

    @rule(number=NUMBERS, slots=st.integers(1, 3))
    def take(self, number: int, slots: int) -> None:
        """A worker takes."""
        worker = self.workers[number % len(self.workers)]
        for got in self.bench.take(worker, slots=slots, idle=not any(r.holder.worker == worker for r in self.running)):
            self.running.append(Running(got.holder, self._kind(got.holder)))

    @rule(number=NUMBERS, tokens=st.integers(0, 60), repeats=st.integers(1, 2), used=st.integers(0, 60))
    def ask(self, number: int, tokens: int, repeats: int, used: int) -> None:
        """An attempt asks, some a second time for a try in place; one whose reply was lost asks again."""
        if not self.running:
            return
        attempt = self.running[number % len(self.running)]
        spent = min(used, attempt.tokens)
        before = {"tokens": spent, "usage": {"tokens": spent}} if attempt.admitted else None
        admission = Admission(gates=KINDS[attempt.kind], accounts=ACCOUNTS, tokens=tokens, before=before)
        self.asked += 1
        lines = {wish["d"]: self._line(wish) for wish in KINDS[attempt.kind] if wish is not BREAKER}
        replies = [self.bench.store.admit(attempt.holder, admission, token=f"a{self.asked}") for _ in range(repeats)]
        assert all(reply == replies[0] for reply in replies)
        verdict = replies[0].verdict
        if before is not None:
            self.charged += spent
        name = attempt.holder.id
        if verdict == "go":
            assert name in self.waited or attempt.admitted or not any(lines.values()), f"{name} has overtaken {lines}"
            attempt.admitted, attempt.tokens = True, tokens
            self.waited.discard(name)
            return
        self.running.remove(attempt)
        if verdict == "waits":
            self.waited.add(name)
        else:
            assert verdict == "refused"
            self.bench.finish(attempt.holder, status="FAILURE")

    @rule(number=NUMBERS, used=st.integers(0, 60), ok=st.sampled_from([0, 1, None]), again=st.booleans())
    def end(self, number: int, used: int, ok: int | None, again: bool) -> None:
        """An admitted attempt commits, with at most what it had reserved."""
        admitted = [attempt for attempt in self.running if attempt.admitted]
        if not admitted:
            return
        attempt = admitted[number % len(admitted)]
        self.running.remove(attempt)
        used = min(used, attempt.tokens)
        settles = {"tokens": used} | ({"ok": ok} if ok is not None else {})
        options: dict[str, Any] = {"usage": {"tokens": used}, "accounts": ACCOUNTS, "settles": settles}
        if again:
            offer = self.bench.step(attempt.holder.id, root=ROOT, accounts=ACCOUNTS)
            self.bench.store.commit(attempt.holder, mode="again", status="RETRY", offers=[offer], **options)
        else:
            self.bench.finish(attempt.holder, **options)
        self.charged += used

    @rule(number=NUMBERS)
    def crash(self, number: int) -> None:
        """A worker dies with all that it runs; what it had reserved is charged."""
        worker = self.workers.pop(number % len(self.workers))
        self.workers.append(self.new_worker())
        self.bench.kill(worker)
        gone = [attempt for attempt in self.running if attempt.holder.worker == worker]
        self.running = [attempt for attempt in self.running if attempt.holder.worker != worker]
        self.lost += gone
        self.charged += sum(attempt.tokens for attempt in gone if attempt.admitted)
        for letter in self.bench.store.letters():
            self.bench.store.replay(letter.letter_id)

    @rule(number=NUMBERS)
    def commit_too_late(self, number: int) -> None:
        """What a dead worker still says changes nothing."""
        if self.lost:
            with pytest.raises(StaleHolder):
                self.bench.finish(self.lost[number % len(self.lost)].holder, settles={"ok": 0, "tokens": 1})

    @rule(lapsed=st.booleans(), reset=st.booleans())
    def let_time_pass(self, lapsed: bool, reset: bool) -> None:
        """Called steps lose their place, an open breaker may be tried."""
        found = self.bench.look()
        for parts in found.parts("called") if lapsed else []:
            key = self.bench.keys.of("called", *parts)
            self.bench.client.zadd(key, dict.fromkeys(self.bench.client.zrange(key, 0, -1), LONG_AGO))
        breaker = self.bench.keys.of("gate", BREAKER["d"])
        if reset and self.bench.client.hget(breaker, "st") == b"open":
            self.bench.client.hset(breaker, "un", LONG_AGO)
        for digest in self.bench.client.zrange(self.bench.keys.of("gates"), 0, -1):
            self.bench.client.zadd(self.bench.keys.of("gates"), {digest: LONG_AGO})
        self.bench.tick()

    def _line(self, wish: dict[str, Any], found: Snapshot | None = None) -> list[str]:
        """Return who really waits in a gate's line."""
        found = found if found is not None else self.bench.look()
        names = found.values.get(self.bench.keys.of("waiters", wish["d"]), [])
        split = [name.decode().split("|") for name in names]
        records = found.records()
        return [
            step
            for root, step, generation in split
            if records[root, step]["s"] == "l" and records[root, step]["g"] == generation
        ]

    @invariant()
    def reserved_is_what_the_records_say_and_within_the_limits(self) -> None:
        """Every reservation is some step's, and all of them together are within each limit."""
        if not hasattr(self, "running"):
            return
        found = self.bench.look()
        kept = [json.loads(record["gd"]) for record in found.records().values() if "gd" in record]
        for wish in (SLOTS, RATE, BREAKER):
            entries = [entry for each in kept for entry in each["g"] if entry["d"] == wish["d"]]
            gate = found.values.get(self.bench.keys.of("gate", wish["d"]), {})
            _check_gate(wish, gate, entries)
        if self._line(SLOTS, found):
            gate = found.values[self.bench.keys.of("gate", SLOTS["d"])]
            assert gate["o"] == "2", "somebody waits for a slot that is free"
        tree = found.values[self.bench.keys.tree(ROOT)]
        reserved = sum(account["r"].get("tokens", 0) for each in kept for account in each.get("a") or [])
        assert int(tree.get("r_tokens", 0)) == reserved
        assert int(tree.get("n_tokens", 0)) == self.charged
        assert self.charged + reserved <= TOKENS
        assert int(tree["n_steps"]) <= STEPS
        assert found.misplaced(("q", "agents")) == []

    def teardown(self) -> None:
        """Bring everything to its end: who waits for a place would never get there if it were forgotten."""
        if hasattr(self, "running"):
            self.bench.drain()
            assert all(each.in_flight == 0 and each.waiting == 0 for each in self.bench.store.gates())
            assert self.bench.without_end("gate", "waiters", "called", "step", "tree") == []


def _check_gate(wish: dict[str, Any], gate: dict[str, str], entries: list[dict[str, Any]]) -> None:
    buckets = [value.split("|") for name, value in gate.items() if name[0] == "b" and name[1:].isdigit()]
    if wish is BREAKER:
        probes = [entry for entry in entries if entry.get("p") and entry["ep"] == int(gate["ep"])]
        assert int(gate.get("pn", 0)) == len(probes)
        assert len(probes) + int(gate.get("ok", 0)) <= wish["pk"], "more probes than it has"
        assert gate.get("st") == "half" or not probes
        return
    assert int(gate.get("o", 0)) == len(entries)
    assert len(entries) <= wish.get("in", 1000)
    if wish is RATE:
        assert int(gate.get("ot", 0)) == sum(entry["n"] for entry in entries)
        assert len(entries) + sum(int(one) for one, _ in buckets) <= wish["rq"]
        assert sum(entry["n"] for entry in entries) + sum(int(two) for _, two in buckets) <= wish["tk"]


@pytest.fixture
def bench(module_server: PrivateServer) -> Iterator[Bench]:
    made = Bench(module_server)
    yield made
    module_server.flush()
    made.store.close()


def machine(bench: Bench) -> Any:
    return type("TestedGuards", (Guards,), {"bench": bench})


def test_reserved_never_exceeds_a_limit(bench: Bench) -> None:
    run_state_machine_as_test(machine(bench), settings=settings(max_examples=40, stateful_step_count=40))


@pytest.mark.long
def test_reserved_never_exceeds_a_limit_for_long(bench: Bench) -> None:
    run_state_machine_as_test(
        machine(bench), settings=settings(max_examples=1000, stateful_step_count=120, deadline=None)
    )


# Each is noticed by a test of tests/store/test_gates.py too, at once.
@pytest.mark.long
@pytest.mark.parametrize("name", sorted(GUARD_RULES))
def test_the_machine_notices_a_missing_rule(bench: Bench, name: str) -> None:
    break_rule(bench, *GUARD_RULES[name])
    quick = settings(
        max_examples=200,
        stateful_step_count=50,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    with pytest.raises((AssertionError, StaleHolder, KeyError)):
        run_state_machine_as_test(machine(bench), settings=quick)
