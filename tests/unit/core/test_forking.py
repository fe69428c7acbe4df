"""Where a fork begins: what it has of the journal, what it asks for again, and how late its clock is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentq.core.errors import StepFailed
from agentq.core.forking import ask_of, find_failed, journal_of, prefix_before, undone_by
from agentq.core.ids import step_id
from agentq.core.journal import Answer, Ask, AskKind, Cancel, Entry, Joined, Result, Signal, Start, Tick, ok

RUN = "0c9d3c7e-6a54-4b57-9c7e-2f1d7c1f6a11"
NEW = "5d0b6f0e-7f0a-4d0b-9d3c-0a6f5b1c9e42"


def ask(name: str, after: int, kind: AskKind = "call", **more: object) -> Ask:
    key = f"{name}/x/0"
    return Ask(id=step_id(RUN, key), key=key, kind=kind, name=name, after=after, **more)  # type: ignore[arg-type]


def done(name: str, t: int = 0) -> Result:
    return Result(t=t, id=ask(name, 0).id, status="ok", value=name)


def error(name: str) -> StepFailed:
    return StepFailed(step=name, step_id=ask(name, 0).id, error_type="ValueError", message="no")


def failure(name: str, t: int = 0) -> Result:
    return Result(t=t, id=ask(name, 0).id, status="error", value=error(name).to_wire())


def names(entries: list[Entry]) -> list[str]:
    """Asks by name, marked ones with an exclamation mark; inputs by kind."""
    return [f"{each.name}{'!' if each.again else ''}" if isinstance(each, Ask) else each.k for each in entries]


def fork(entries: Sequence[Any], redo: set[str], **more: bool) -> list[Entry]:
    prefix = prefix_before(entries, frozenset(ask(name, 0).id for name in redo), **more)
    return journal_of(prefix, origin=RUN, new=NEW, now_ms=1000)


def test_what_was_seen_and_asked_before_stays_and_the_step_is_sent_again() -> None:
    entries = [Start(), ask("a", 1), done("a"), ask("b", 2), failure("b"), ask("c", 3), done("c")]
    assert names(fork(entries, {"b"})) == ["start", "a", "b!", "result"]
    assert names(fork(entries, {"a"})) == ["start", "a!"]


def test_what_came_later_is_carried_if_it_was_asked_for_before() -> None:
    entries = [Start(), ask("a", 1), ask("b", 1), ask("c", 1), failure("a"), Tick(), done("b"), failure("c")]
    forked = fork(entries, {"a"})
    assert names(forked) == ["start", "a!", "b", "c!", "result"]
    assert isinstance(forked[-1], Result)
    assert (forked[-1].id, forked[-1].value) == (step_id(NEW, "b/x/0"), "b")


def test_signals_that_came_later_are_there_and_a_cancel_is_not() -> None:
    entries: list[Entry] = [
        Start(),
        Signal(name="s", id="1"),
        ask("a", 2),
        done("a"),
        Signal(name="s", id="2"),
        Cancel(),
    ]
    assert names(fork(entries, {"a"})) == ["start", "a!", "signal", "signal"]
    assert names(fork(entries, set(), uncancel=True)) == ["start", "a", "signal", "result", "signal"]


def test_local_calls_and_events_are_not_sent_and_questions_are_put_again() -> None:
    question = ask("q", 1, kind="ask")
    entries: list[Entry] = [Start(), ask("e", 1, kind="emit"), ask("l", 1, kind="local"), question, ask("a", 1)]
    assert names(fork([*entries, done("a")], {"a"})) == ["start", "e", "l", "q!", "a!"]
    answered: list[Entry] = [*entries, done("a"), Answer(id=question.id, value=1)]
    assert names(fork(answered, {"a"})) == ["start", "e", "l", "q", "a!", "answer"]


def test_a_run_that_was_spawned_is_not_spawned_twice() -> None:
    forked = fork([Start(), ask("child", 1, kind="spawn"), ask("a", 1), failure("a")], {"a"})
    assert names(forked) == ["start", "child", "a!", "result"]
    assert isinstance(forked[-1], Result)
    assert (forked[-1].id, forked[-1].status) == (step_id(NEW, "child/x/0"), "error")


def test_the_failed_step_is_found_by_the_error_and_else_by_what_was_seen_last() -> None:
    entries: list[Entry] = [Start(), ask("a", 1), failure("a"), ask("b", 2), failure("b")]
    assert find_failed(entries, RUN, error("a").to_wire()) == ask("a", 0).id
    own = StepFailed(step="agent", step_id=RUN, error_type="RuntimeError", message="gave up").to_wire()
    assert find_failed(entries, RUN, own) == ask("b", 0).id
    assert find_failed([*entries, ask("c", 3), done("c")], RUN, own) is None
    refused = {"code": "budget_exceeded", "fields": {"limit_name": "steps", "limit": "1", "used": "1"}}
    last = Result(id=ask("c", 0).id, status="error", value=refused)
    assert find_failed([*entries, ask("c", 3), last], RUN, refused) == ask("c", 0).id


def test_a_member_stands_for_its_fan_out() -> None:
    fan_out = ask("m", 1, kind="map", members=3)
    entries: list[Entry] = [Start(), fan_out, Joined(id=fan_out.id)]
    member = step_id(fan_out.id, "2")
    assert ask_of([fan_out], member) == fan_out
    assert ask_of([fan_out], step_id(fan_out.id, "3")) is None
    broken = StepFailed(step="m", step_id=member, error_type="ValueError", message="no").to_wire()
    assert find_failed(entries, RUN, broken) == fan_out.id


def test_what_was_taken_back_is_done_again_and_taking_back_is_forgotten() -> None:
    undo = ask("undo", 4, kind="undo", undoes=ask("a", 0).id)
    entries: list[Entry] = [Start(), ask("a", 1), done("a"), ask("b", 2), done("b"), ask("c", 3), failure("c"), undo]
    entries.append(ok(undo.id, None))
    assert undone_by(entries) == {ask("a", 0).id}
    assert find_failed(entries, RUN, error("c").to_wire()) == ask("c", 0).id
    assert names(fork(entries, {"a", "c"})) == ["start", "a!"]


def test_an_ask_that_stands_there_twice_counts_at_its_first_place() -> None:
    again = ask("a", 1, again=True)
    entries: list[Entry] = [Start(), again, ask("b", 1, again=True), ask("a", 1), done("b"), done("a")]
    assert names(fork(entries, {"b"})) == ["start", "a", "b!", "result"]


def test_the_time_between_two_runs_does_not_count() -> None:
    entries: list[Entry] = [Start(t=100), ask("a", 1), done("a", t=200), ask("b", 2), failure("b", t=300)]
    start = fork(entries, {"b"})[0]
    assert isinstance(start, Start)
    assert (start.origin, start.lags) == (RUN, ((2, 800),))
    # A fork of the fork, later: at its beginning the timers stood where they had stood.
    second: list[Entry] = [start, ask("a", 1), done("a", t=200), ask("b", 2), failure("b", t=1010)]
    later = prefix_before(second, frozenset({ask("b", 0).id}))
    assert later.lags(5000) == ((2, 4800),)
    third = prefix_before([*second, ask("c", 3), failure("c", t=1020)], frozenset({ask("c", 0).id}))
    assert third.lags(5000) == ((2, 800), (3, 3990))
