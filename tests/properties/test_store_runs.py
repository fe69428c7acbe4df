"""Runs under duplicates, lost replies and crashes: no signal and no wake is lost, and a stale turn writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agentq.core.errors import CalledOff, StaleHolder
from agentq.store.refs import Join
from tests.kit.server import PrivateServer
from tests.properties.rules import RARE_RULES, RUN_RULES
from tests.store.bench import Bench, Got, break_rule

RUNS = ["run", "sub"]
"""The second one is a child of the first, in its tree."""

NAMES = st.sampled_from(["a", "b"])
NUMBERS = st.integers(0, 10_000)
REPEATS = st.integers(1, 2)
HOUR_MS = 3_600_000


@dataclass
class Turn:
    """A turn that some worker was given; ``stale`` once another owns the run."""

    got: Got
    seen: int
    stale: bool = False


@dataclass
class Run:
    """What the outside knows of a run."""

    turns: list[Turn] = field(default_factory=list)
    parked_seen: int | None = None
    parked_waits: tuple[str, ...] = ()
    log: list[dict[str, Any]] = field(default_factory=list)
    signals: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    ended: bool = False

    @property
    def current(self) -> Turn | None:
        """The turn that owns the run."""
        return self.turns[-1] if self.turns and not self.turns[-1].stale else None


class Runs(RuleBasedStateMachine):
    """Two agents, their steps, people outside, and time; ``bench`` is set by the test."""

    bench: ClassVar[Bench]

    @initialize()
    def begin(self) -> None:
        """Start the first agent on an empty server."""
        self.bench.client.flushall()
        self.enrolled = self.counter = 0
        self.workers = [self.new_worker() for _ in range(2)]
        self.runs = {name: Run() for name in RUNS}
        self.steps: list[tuple[str, Got]] = []
        self.asked: dict[str, str] = {}
        self.answered: set[str] = set()
        self.cancelled: set[str] = set()
        self.questions: dict[str, str | None] = {}
        self.bench.store.offer([self.bench.agent("run")])

    def new_worker(self) -> str:
        """Enroll a worker under a fresh id."""
        self.enrolled += 1
        return self.bench.worker(f"w{self.enrolled}")

    def fresh(self, stem: str) -> str:
        """Return a name that was not used before."""
        self.counter += 1
        return f"{stem}{self.counter}"

    # -- workers

    @rule(at=st.integers(0, 1), slots=st.integers(1, 2))
    def take(self, at: int, slots: int) -> None:
        """Take turns and steps."""
        for got in self.bench.take(self.workers[at], slots=slots):
            if got.holder.id in RUNS:
                run = self.runs[got.holder.id]
                assert run.current is None, f"{got} runs beside {run.current}"
                run.turns.append(Turn(got, seen=len(self.bench.log(got.holder.id, "run"))))
                run.parked_seen = None
            else:
                self.steps.append((got.holder.id, got))

    def turn(self, name: str, number: int) -> tuple[Run, Turn] | None:
        """Return one of a run's turns, mostly the current one."""
        run = self.runs[name]
        if not run.turns:
            return None
        return run, run.turns[-1] if number % 3 else run.turns[number % len(run.turns)]

    @rule(
        name=st.sampled_from(RUNS),
        number=NUMBERS,
        kind=st.sampled_from(["step", "map", "sub", "local", "question"]),
        repeats=REPEATS,
    )
    def send(self, name: str, number: int, kind: str, repeats: int) -> None:
        """Send an ask with its messages; when the reply is lost, send the same once more."""
        chosen = self.turn(name, number)
        if chosen is None:
            return
        turn = chosen[1]
        ask = "sub" if kind == "sub" and name == "run" and "sub" not in self.asked else self.fresh("ask")
        options: dict[str, Any] = {"asks": [json.dumps({"k": "ask", "id": ask})]}
        if ask == "sub":
            options["offers"] = [self.bench.agent("sub", root="run", parent="run", ask="sub")]
        elif kind == "map":
            options["joins"] = [Join(root="run", id=ask, size=2, parent=name)]
            options["offers"] = [
                self.bench.step(f"{ask}.{index}", root="run", parent=name, join=("run", ask), index=index)
                for index in (0, 1)
            ]
        elif kind == "question":
            options["questions"] = [json.dumps({"id": ask, "run": name, "q": "?"})]
        elif kind == "local":
            options["results"] = [json.dumps({"k": "result", "id": ask, "s": "ok", "v": []})]
        else:
            options["offers"] = [self.bench.step(ask, root="run", parent=name, ask=ask)]
        token, seen = self.fresh("token"), turn.seen
        for _ in range(repeats):
            try:
                tail = self.bench.store.send(turn.got.holder, token=token, seen=seen, **options)
            except StaleHolder:
                assert turn.stale, f"{turn} owns its run and may not send"
                return
            assert not turn.stale, f"{turn} sends and owns nothing"
            assert [json.loads(entry) for entry in tail] == self.bench.log(name, "run")[seen:]
            turn.seen = seen + len(tail)
            self.asked[ask] = name
            if kind == "local" or (ask == "sub" and "run" in self.cancelled):
                # A cancelled agent starts no other: it is told so at once.
                self.answered.add(ask)
            if kind == "question":
                self.questions.setdefault(ask, None)

    @rule(
        name=st.sampled_from(RUNS),
        number=NUMBERS,
        waits=st.sets(NAMES),
        timer=st.booleans(),
        rests=st.booleans(),
        repeats=REPEATS,
        stale_look=st.booleans(),
    )
    def park(
        self, name: str, number: int, waits: set[str], timer: bool, rests: bool, repeats: int, stale_look: bool
    ) -> None:
        """Park, after a look at the log or with what was seen at the last send."""
        chosen = self.turn(name, number)
        if chosen is None:
            return
        run, turn = chosen
        if not stale_look and not turn.stale:
            turn.seen = len(self.bench.log(name, "run"))
        due = self.bench.store.now_ms() + HOUR_MS if timer else None
        rest = HOUR_MS if rests else 0
        first = None
        for _ in range(repeats):
            try:
                parked = self.bench.store.park(
                    turn.got.holder, seen=turn.seen, due_ms=due, waits=sorted(waits), rest_ms=rest
                )
            except StaleHolder:
                assert turn.stale, f"{turn} owns its run and may not park"
                assert first is None, "a repeated park was answered otherwise"
                return
            assert first in (None, parked), "a repeated park was answered otherwise"
            first = parked
        if parked and not turn.stale:
            turn.stale = True
            run.parked_seen, run.parked_waits = turn.seen, tuple(waits)

    @rule(name=st.sampled_from(RUNS), number=NUMBERS, late=st.booleans(), repeats=REPEATS)
    def restart(self, name: str, number: int, late: bool, repeats: int) -> None:
        """Go on as new; what the turn had not seen must be in the next log."""
        chosen = self.turn(name, number)
        if chosen is None or chosen[1].stale:
            return
        run, turn = chosen
        if late:
            self.signal(name, "a", False, 1)
        before = self.bench.log(name, "run")
        token = self.fresh("token")
        for _ in range(repeats):
            self.bench.store.restart(
                turn.got.holder, token=token, seen=turn.seen, message='{"body":"next"}', version="1", carry=[]
            )
        turn.stale = True
        after = self.bench.log(name, "run")
        assert after[1:] == before[turn.seen :], "an input fell between two logs"
        run.forgotten |= {entry["i"] for entry in before[: turn.seen] if entry["k"] == "signal"}
        run.log = after

    @rule(name=st.sampled_from(RUNS), number=NUMBERS)
    def finish(self, name: str, number: int) -> None:
        """End a run, seldom: most of the examples are about living ones."""
        chosen = self.turn(name, number)
        if chosen is None or number % 5:
            return
        run, turn = chosen
        try:
            try:
                self.bench.finish(turn.got.holder, entry=_result(name))
            except CalledOff:
                # One that was cancelled and has cost too many workers is given up (see tick).
                assert name in self.cancelled
                self.bench.finish(turn.got.holder, status="REVOKED", entry=_result(name))
        except StaleHolder:
            assert turn.stale or run.ended
        else:
            assert run.ended or not turn.stale
            turn.stale = run.ended = True
            self.answered.add(name)

    @rule(number=NUMBERS, repeats=REPEATS)
    def finish_step(self, number: int, repeats: int) -> None:
        """Commit any attempt of a step, also a stale one, also twice."""
        if not self.steps:
            return
        step_id, got = self.steps[number % len(self.steps)]
        for _ in range(repeats):
            try:
                self.bench.finish(got.holder, results=[], entry=_result(step_id))
            except StaleHolder:
                return
            except CalledOff:
                # What its worker does then; the entry stands for the outcome, whichever it is.
                self.bench.finish(got.holder, status="REVOKED", results=[], entry=_result(step_id))
            self.answered.add(step_id)

    @rule(at=st.integers(0, 1))
    def crash(self, at: int) -> None:
        """Have a worker never come back."""
        worker = self.workers[at]
        self.bench.kill(worker)
        self.workers[at] = self.new_worker()
        for run in self.runs.values():
            for turn in run.turns:
                turn.stale = turn.stale or turn.got.holder.worker == worker

    @rule(
        name=st.sampled_from(RUNS),
        waits=st.sets(NAMES, min_size=1),
        when=st.sampled_from(["before", "after", "never"]),
        signal=NAMES,
    )
    def rest(self, name: str, waits: set[str], when: str, signal: str) -> None:
        """Have a run look and park, with a signal between the two or right behind."""
        self.take(0, 2)
        run = self.runs[name]
        if run.current is None:
            return
        run.current.seen = len(self.bench.log(name, "run"))
        if when == "before":
            self.signal(name, signal, False, 1)
        self.park(name, 1, waits, False, False, 1, True)
        if when == "after":
            self.signal(name, signal, False, 1)

    # -- people and time

    @rule(name=st.sampled_from(RUNS), signal=NAMES, again=st.booleans(), repeats=REPEATS)
    def signal(self, name: str, signal: str, again: bool, repeats: int) -> None:
        """Send a signal, also under an id that was sent before."""
        run = self.runs[name]
        identity = sorted(run.signals)[0] if again and run.signals else self.fresh("i")
        for _ in range(repeats):
            reply = self.bench.store.signal("run", name, signal, "1", signal_id=identity)
            if reply in ("new", "known"):
                assert (reply == "known") == (identity in run.signals)
                run.signals.add(identity)
            else:
                assert reply == ("ended" if run.ended else "unknown")

    @rule(number=NUMBERS, repeats=REPEATS)
    def answer(self, number: int, repeats: int) -> None:
        """Answer any question, also one that was decided before."""
        if not self.questions:
            return
        ask = list(self.questions)[number % len(self.questions)]
        for repeat in range(repeats):
            mine = f"{number + repeat}"
            reply, standing = self.bench.store.answer("run", ask, mine, by="ann")
            if self.questions[ask] is not None:
                assert (reply, standing) == ("known", self.questions[ask]), "a decision has changed"
            elif self.runs[self.asked[ask]].ended:
                assert reply == "ended"
            else:
                assert (reply, standing) == ("new", mine)
                self.questions[ask] = mine

    @rule(name=st.sampled_from(RUNS))
    def cancel(self, name: str) -> None:
        """Cancel a run; it goes on, since a cancel is an input."""
        if self.bench.store.cancel("run", name, "x") in ("new", "known"):
            self.cancelled.add(name)

    @rule()
    def time(self) -> None:
        """Make every timer due."""
        self.bench.fire_timers()

    # -- what holds at every moment

    @invariant()
    def no_wake_and_no_input_is_lost(self) -> None:
        """A parked run has seen all but signals that it does not wait for; logs grow and hold each input once."""
        found = self.bench.look()
        due_key = self.bench.keys.of("due")
        assert found.misplaced() == []
        for name, run in self.runs.items():
            log = found.log("run", name)
            assert log[: len(run.log)] == run.log, f"the log of {name} has changed its past"
            run.log = log
            ids = [entry["i"] for entry in log if entry["k"] == "signal"]
            assert sorted(ids) == sorted(run.signals - run.forgotten), f"signals of {name}"
            for kind in ("ask", "result", "joined", "answer"):
                names = [entry["id"] for entry in log if entry["k"] == kind]
                assert len(set(names)) == len(names), f"{kind} entries of {name}: {names}"
            assert {entry["id"] for entry in log if entry["k"] == "result"} <= self.answered
            record = found.records().get(("run", name), {})
            if record.get("s") == "p" and run.parked_seen is not None:
                unseen = log[run.parked_seen :]
                missed = [each for each in unseen if each["k"] != "signal" or each["n"] in run.parked_waits]
                # What comes while it rests wakes it at the end of its rest; a cancel does at once.
                resting = "hw" in record and f"run|{name}|{record['g']}".encode() in found.values[due_key]
                assert missed == [] or resting, f"{name} sleeps over {missed}"
                assert "cancel" not in [each["k"] for each in missed], f"{name} rests over a cancel"

    def teardown(self) -> None:
        """Bring everything to its end; a run that nobody can wake would never get there."""
        if hasattr(self, "runs"):
            self.bench.drain()
            assert self.bench.without_end("step", "log", "signals", "tree", "members", "join", "bits", "result") == []


def _result(ask: str) -> str:
    return json.dumps({"k": "result", "id": ask, "s": "ok", "v": 1})


@pytest.fixture
def bench(module_server: PrivateServer) -> Iterator[Bench]:
    made = Bench(module_server)
    yield made
    module_server.empty()
    made.store.close()


def machine(bench: Bench) -> Any:
    return type("TestedRuns", (Runs,), {"bench": bench})


def test_no_signal_and_no_wake_is_lost(bench: Bench) -> None:
    run_state_machine_as_test(machine(bench), settings=settings(stateful_step_count=50))


@pytest.mark.parametrize("name", sorted(RUN_RULES))
def test_the_machine_notices_a_missing_rule(bench: Bench, name: str) -> None:
    wanted, instead = RUN_RULES[name]
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
    # Without its rule a script may also stumble over what it then finds.
    with pytest.raises((AssertionError, StaleHolder, redis.ResponseError)):
        run_state_machine_as_test(machine(bench), settings=quick)


@pytest.mark.parametrize("broken", [False, True])
def test_a_cancel_does_not_wait_for_the_end_of_a_rest(bench: Bench, broken: bool) -> None:
    if broken:
        break_rule(bench, *RARE_RULES["let a cancel wait"])
    holder = bench.run_agent("run")
    assert bench.store.park(holder, seen=1, due_ms=None, rest_ms=HOUR_MS)
    bench.store.cancel("run", "run", "x")
    assert (bench.state("run") == "q") != broken
