"""Steps under duplicates, lost replies, crashes and reordering: one commit each, generations grow, nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agentq.core.errors import StaleHolder
from tests.kit.server import PrivateServer
from tests.properties.rules import RARE_RULES, STEP_RULES
from tests.store.bench import Bench, Got, break_rule, meta

ROOT = "run"
WORKERS = st.integers(0, 2)
NUMBERS = st.integers(0, 10_000)
REPEATS = st.integers(1, 2)


@dataclass
class Known:
    """What the outside has seen of a step."""

    generation: int = 0
    taken_generation: int = 0
    running: Got | None = None
    committed: Got | None = None
    failed: bool = False
    attempts: list[Got] = field(default_factory=list)


class Steps(RuleBasedStateMachine):
    """Producers, workers and time, in any order; ``bench`` is set by the test."""

    bench: ClassVar[Bench]

    @initialize()
    def begin(self) -> None:
        """Start with an empty server and three workers."""
        self.bench.client.flushall()
        self.steps: dict[str, Known] = {}
        self.attempts: list[Got] = []
        self.enrolled = 0
        self.workers = [self.new_worker() for _ in range(3)]
        self.seen: list[bytes] = []

    def new_worker(self) -> str:
        """Enroll a worker under a fresh id."""
        self.enrolled += 1
        return self.bench.worker(f"w{self.enrolled}")

    # -- producers

    @rule(
        number=NUMBERS,
        fresh=st.booleans(),
        lane=st.sampled_from([0, 6, 9]),
        delayed=st.booleans(),
        most=st.sampled_from([None, 1]),
        repeats=REPEATS,
    )
    def offer(self, number: int, fresh: bool, lane: int, delayed: bool, most: int | None, repeats: int) -> None:
        """Offer a step: a new one, or one that is known, done, or replaced; with `most`, where there may be no room."""
        due = self.bench.store.now_ms() + 3_600_000 if delayed else None
        step_id = self.any_step(number)
        if fresh or step_id is None:
            step_id = f"s{len(self.steps)}"
            self.steps[step_id] = Known()
        for _ in range(repeats):
            self.bench.store.offer([self.bench.step(step_id, root=ROOT, lane=lane, due_ms=due, most=most)])

    def any_step(self, number: int) -> str | None:
        """Return any step that there ever was."""
        return list(self.steps)[number % len(self.steps)] if self.steps else None

    @rule(number=NUMBERS, front=st.booleans())
    def duplicate(self, number: int, front: bool) -> None:
        """Put a message that was seen at some time into its lane once more."""
        if self.seen:
            push = self.bench.client.rpush if front else self.bench.client.lpush
            push(self.bench.keys.lane("q", 6), self.seen[number % len(self.seen)])

    # -- workers

    @rule(at=WORKERS, slots=st.integers(1, 3), lost=st.booleans())
    def take(self, at: int, slots: int, lost: bool) -> None:
        """Take; when the reply is lost the worker asks again, and must get the same one."""
        worker = self.workers[at]
        taken = self.bench.take(worker, slots=slots, token="t" if lost else None, low_share=3)
        if lost:
            assert self.bench.take(worker, slots=slots, token="t") == taken, "the same token got another reply"
            self.bench.take(worker, slots=0)
        for got in taken:
            self.start(got)

    def start(self, got: Got) -> None:
        """Note an attempt; nobody else may run the step, and its generation is a new one."""
        known = self.steps[got.holder.id]
        other = known.running
        assert other is None or other.holder.worker not in self.workers, f"{got} and {other} run at once"
        assert known.committed is None, f"{got} runs after {known.committed} has committed"
        assert got.generation > known.taken_generation, f"{got} has an old generation"
        known.taken_generation = got.generation
        known.running = got
        known.attempts.append(got)
        self.attempts.append(got)
        self.seen.append(json.dumps(got.message, separators=(",", ":")).encode())

    def end(self, got: Got) -> None:
        """Note that an attempt owns its step no longer."""
        known = self.steps[got.holder.id]
        if known.running == got:
            known.running = None

    def owns(self, got: Got) -> bool:
        """Tell whether an attempt is sure to own its step; one of a dead worker may, until it is released."""
        return self.steps[got.holder.id].running == got and got.holder.worker in self.workers

    def chosen(self, number: int) -> Got | None:
        """Return any attempt that there ever was, half the time one of the last three."""
        among = self.attempts[-3:] if number % 2 else self.attempts
        return among[number // 2 % len(among)] if among else None

    @rule(number=NUMBERS, repeats=REPEATS)
    def commit(self, number: int, repeats: int) -> None:
        """Commit any attempt, also a stale one, also twice."""
        got = self.chosen(number)
        if got is None:
            return
        known = self.steps[got.holder.id]
        for _ in range(repeats):
            try:
                self.bench.finish(got.holder, results=[(got.holder.id, meta(got.holder.id, result=str(got.holder)))])
            except StaleHolder:
                assert known.committed != got or known.failed, f"{got} has committed, and is told that it has not"
                assert not self.owns(got), f"{got} owns its step, and may not commit"
            else:
                assert known.committed in (None, got), f"{got} commits after {known.committed}"
                assert known.running == got or known.committed == got, f"{got} commits and owns nothing"
                known.committed = got
                self.end(got)

    @rule(number=NUMBERS, delayed=st.booleans(), repeats=REPEATS)
    def retry(self, number: int, delayed: bool, repeats: int) -> None:
        """Commit that the step is tried again."""
        got = self.chosen(number)
        if got is None:
            return
        due = self.bench.store.now_ms() + 3_600_000 if delayed else None
        for _ in range(repeats):
            try:
                self.bench.again(got.holder, due_ms=due)
            except StaleHolder:
                assert not self.owns(got)
            else:
                self.end(got)

    @rule(number=NUMBERS, repeats=REPEATS)
    def replace(self, number: int, repeats: int) -> None:
        """Commit that another message will carry the step's id on."""
        got = self.chosen(number)
        if got is None:
            return
        for _ in range(repeats):
            try:
                self.bench.store.commit(got.holder, mode="replaced", status="RETRY")
            except StaleHolder:
                assert not self.owns(got)
            else:
                self.end(got)

    @rule(number=NUMBERS, behind=NUMBERS, repeats=REPEATS)
    def fail_for(self, number: int, behind: int, repeats: int) -> None:
        """Commit a failure that is also the outcome of a step behind it, as Celery does for a chain."""
        got, other = self.chosen(number), self.any_step(behind)
        if got is None or other is None or got.holder.id == other:
            return
        ids = [got.holder.id, other]
        results = [(step_id, meta(step_id, status="FAILURE", result=str(got.holder))) for step_id in ids]
        known = self.steps[got.holder.id]
        # A repeat of a commit that stands does nothing more for the other one.
        first = known.committed is None
        replaced = first and self.bench.record(other, ROOT).get("s") == "r"
        for _ in range(repeats):
            try:
                self.bench.store.commit(got.holder, mode="done", status="FAILURE", results=results)
            except StaleHolder:
                assert not self.owns(got)
                return
            self.end(got)
            known.failed = known.failed or first
            known.committed = got
            if replaced:
                self.steps[other].committed = got

    @rule(number=NUMBERS, lost=st.booleans(), repeats=REPEATS)
    def hand_back(self, number: int, lost: bool, repeats: int) -> None:
        """Hand back any attempt, also one that ended long ago."""
        got = self.chosen(number)
        if got is None:
            return
        for _ in range(repeats):
            self.bench.store.requeue(got.holder.worker, got.holder.take, lost=lost)
        self.end(got)

    @rule(at=WORKERS, repeats=REPEATS)
    def leave(self, at: int, repeats: int) -> None:
        """Have a worker leave in good order, and another come."""
        worker = self.workers[at]
        for _ in range(repeats):
            self.bench.store.leave(worker, chunk=2)
        for got in self.attempts:
            if got.holder.worker == worker:
                self.end(got)
        self.bury(at)

    @rule(at=WORKERS, finished=st.booleans())
    def crash(self, at: int, finished: bool) -> None:
        """Have a worker never come back; it is marked dead, its steps move now or by later ticks."""
        worker = self.workers[at]
        self.bench.expire_lease(worker)
        self.bench.tick(chunk=100 if finished else 1)
        self.bury(at)
        assert self.bench.take_reply(worker, slots=3).refused, "a dead worker took"

    def bury(self, at: int) -> None:
        """Put a new worker into a dead one's place."""
        self.workers[at] = self.new_worker()

    @rule(fire=st.booleans())
    def time(self, fire: bool) -> None:
        """Let time pass."""
        if fire:
            self.bench.fire_timers()
        else:
            self.bench.tick()

    # -- what holds at every moment

    @invariant()
    def everything_is_in_its_one_place(self) -> None:
        """Nothing is in no list, nothing in two; a generation never goes back; the first commit's outcome stands."""
        found = self.bench.look()
        assert found.misplaced(duplicates=True) == []
        for (_, step_id), record in found.records().items():
            known = self.steps[step_id]
            assert int(record["g"]) >= known.generation, f"{step_id} went back to generation {record['g']}"
            known.generation = int(record["g"])
            assert (record["s"] == "d") == (known.committed is not None), f"{step_id}: {record} and {known}"
            if known.committed is not None:
                assert found.result(step_id)["result"] == str(known.committed.holder)

    def teardown(self) -> None:
        """Bring everything to its end: what was lost would never get there."""
        if hasattr(self, "steps"):
            self.bench.drain()
            assert self.bench.take(self.new_worker(), slots=1000) == [], "a duplicate runs after the end"
            assert self.bench.without_end("step", "tree", "members", "result") == []


@pytest.fixture
def bench(module_server: PrivateServer) -> Iterator[Bench]:
    made = Bench(module_server)
    yield made
    module_server.empty()
    made.store.close()


def machine(bench: Bench) -> Any:
    return type("TestedSteps", (Steps,), {"bench": bench})


def test_steps_are_committed_once_and_never_lost(bench: Bench) -> None:
    run_state_machine_as_test(machine(bench), settings=settings(stateful_step_count=60))


LONG_SEARCHED = {
    "commit by anybody",
    "commit twice for one token",
    "keep what was committed",
    "take whatever is there",
}
"""The machine finds these too, each after many seconds; test_search.py finds them at once."""


@pytest.mark.parametrize("name", sorted(STEP_RULES.keys() - LONG_SEARCHED))
def test_the_machine_notices_a_missing_rule(bench: Bench, name: str) -> None:
    wanted, instead = STEP_RULES[name]
    break_rule(bench, wanted, instead)
    quick = settings(
        max_examples=300,
        stateful_step_count=60,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    # The last one: a worker of the final clean-up finds that it does not own what it took.
    with pytest.raises((AssertionError, StaleHolder)):
        run_state_machine_as_test(machine(bench), settings=quick)


def test_a_missing_check_of_the_generation_lets_a_stale_message_start(bench: Bench) -> None:
    """Too rare a coincidence for the machine to find every time: the stale message must come first."""
    break_rule(bench, *RARE_RULES["take an old generation"])
    bench.store.offer([bench.step("s1")])
    lane = bench.keys.lane("q", 6)
    stale = bench.client.lindex(lane, 0)
    bench.again(bench.take_one().holder)
    bench.client.rpush(lane, stale)
    assert bench.take_one(slots=5).generation == 1  # with the rule it is 2: tests/store/test_take.py


@pytest.mark.parametrize("broken", [False, True])
def test_what_there_is_no_room_for_stands_somewhere(bench: Bench, broken: bool) -> None:
    if broken:
        break_rule(bench, *RARE_RULES["forget what there is no room for"])
    bench.store.offer([bench.step("s1", most=1), bench.step("s2", most=1)])
    assert (bench.look().misplaced() != []) == broken
    if broken:
        bench.client.rpush(bench.keys.of("backlog", "6", "", "q"), "s2|s2|1")


@pytest.mark.parametrize("broken", [False, True])
def test_what_went_on_otherwise_is_not_let_in(bench: Bench, broken: bool) -> None:
    if broken:
        break_rule(bench, *RARE_RULES["let in whatever its record says"])
    bench.store.offer([bench.step("s1", most=1), bench.step("s2", most=1)])
    # Condemned, say, by a hand that left its name in the backlog.
    bench.client.hset(bench.keys.step("s2", "s2"), "s", "x")
    bench.finish(bench.take_one().holder)
    if broken:
        bench.client.set(bench.keys.message("s2", "s2"), '{"body":"s2"}')
    bench.tick()
    assert bench.state("s2") == ("q" if broken else "x")
    if not broken:
        # For the clean-up it stands in the timers.
        bench.client.hset(bench.keys.step("s2", "s2"), "s", "l")
        bench.client.zadd(bench.keys.of("due"), {"s2|s2|1": 1})


@pytest.mark.parametrize("broken", [False, True])
def test_an_outcome_that_stands_is_not_overwritten_from_aside(bench: Bench, broken: bool) -> None:
    if broken:
        break_rule(bench, "if state ~= 'd' or id == f[12] then", "if true then")
    bench.store.offer([bench.step("s1"), bench.step("s2", root="s1")])
    first, second = bench.take_one().holder, bench.take_one().holder
    bench.finish(first)
    bench.finish(second, results=[("s1", meta("s1", status="FAILURE", result=9)), (second.id, meta(second.id))])
    (standing,) = bench.store.outcomes(["s1"])
    assert standing is not None
    assert (json.loads(standing)["status"] == "FAILURE") == broken
