"""The rules by which a run is a zombie: pure functions over its journal."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentq.core.ids import step_key
from agentq.core.journal import Answer, Ask, Entry, Joined, Result, Resume, Signal, Start, Tick, decode, encode
from agentq.core.zombies import (
    NONE,
    Standing,
    Verdict,
    Zombies,
    decide_cycles,
    decide_quiet,
    decide_repeats,
    decide_tokens,
    decide_wall,
    decide_watched,
    decide_zombie,
    tail_of,
)


class Journal:
    """A journal as a run writes it."""

    def __init__(self, *, start: Start | None = None) -> None:
        self.entries: list[Entry] = [start if start is not None else Start(t=0)]
        self._times: dict[str, int] = {}

    @property
    def seen(self) -> int:
        return sum(not isinstance(entry, Ask) for entry in self.entries)

    def ask(self, name: str, arguments: str = "", *, kind: Any = "call", undoes: str | None = None) -> Ask:
        stem = f"{name}/{arguments}"
        at = self._times.get(stem, 0)
        self._times[stem] = at + 1
        key = step_key(name, arguments, at)
        ask = Ask(id=key, key=key, kind=kind, name=name, after=self.seen, undoes=undoes)
        self.entries.append(ask)
        return ask

    def tell(self, ask: Ask, value: Any, *, status: Any = "ok", tokens: int = 0) -> None:
        self.entries.append(Result(t=0, id=ask.id, status=status, value=value, tokens=tokens))

    def call(self, name: str, arguments: str = "", value: Any = None, *, tokens: int = 0) -> None:
        self.tell(self.ask(name, arguments), value, tokens=tokens)

    def verdict(self, rules: Zombies) -> Verdict | None:
        # As it is read back from the store.
        return decide_zombie(tail_of(decode(encode(entry)) for entry in self.entries), rules)


REPEATS = Zombies(repeats=3)
CYCLES = Zombies(cycles=3)
TOKENS = Zombies(tokens=100)


def test_the_same_call_for_the_same_answer_is_stopped_when_it_is_made_again() -> None:
    journal = Journal()
    for _ in range(3):
        journal.call("look", "a", ["nothing"])
        assert journal.verdict(REPEATS) is None
    journal.ask("look", "a")
    verdict = journal.verdict(REPEATS)
    assert verdict is not None
    assert verdict.rule == "repeats"
    assert verdict.why == 'it called "look" with the same arguments again and got the same answer 3 times in a row'


def test_other_calls_in_between_do_not_hide_it() -> None:
    journal = Journal()
    for number in range(4):
        journal.call("think", str(number), number)
        journal.ask("look") if number == 3 else journal.call("look", value=0)
    assert journal.verdict(REPEATS) is not None


def test_another_call_behind_it_goes() -> None:
    journal = Journal()
    for _ in range(3):
        journal.call("look", value=0)
    journal.ask("report")
    assert journal.verdict(REPEATS) is None


def test_other_answers_or_arguments_are_progress() -> None:
    journal = Journal()
    for number in range(20):
        journal.call("next", value=number)
        journal.call("read", str(number), value=0)
    journal.ask("next")
    assert journal.verdict(Zombies(repeats=2, cycles=2)) is None


def test_failures_are_the_same_whatever_step_they_name() -> None:
    journal = Journal()
    for number in range(3):
        wire = {"code": "step_failed", "fields": {"step_id": str(number), "error_type": "OSError", "message": "away"}}
        journal.tell(journal.ask("look"), wire, status="error")
    journal.ask("look")
    assert journal.verdict(REPEATS) is not None


def test_thousands_of_equal_calls_at_once_are_one_round() -> None:
    journal = Journal()
    for _ in range(2):
        asked = [journal.ask("sample", "prompt") for _ in range(1000)]
        for ask in asked:
            journal.tell(ask, "the same")
    journal.ask("sample", "prompt", kind="map")
    assert journal.verdict(Zombies(repeats=2000, cycles=2)) is None


@pytest.mark.parametrize("waited", [Tick(t=1), Signal(t=1, name="go", id="1"), Answer(t=1, id="q", value=True)])
def test_who_waits_for_the_world_is_no_zombie(waited: Entry) -> None:
    journal = Journal()
    for _ in range(50):
        journal.call("poll", value="pending")
        journal.call("other", value="pending")
        journal.entries.append(waited)
    journal.ask("poll")
    assert journal.verdict(Zombies(repeats=2, cycles=2)) is None


def test_going_round_in_circles_is_stopped_when_it_begins_again() -> None:
    journal = Journal()
    for _ in range(3):
        assert journal.verdict(CYCLES) is None
        for name in ("plan", "search", "weigh"):
            journal.call(name, value=1)
    journal.ask("plan")
    verdict = journal.verdict(CYCLES)
    assert verdict == Verdict("cycles", "it went through the same 3 calls with the same answers 3 times in a row")


def test_a_circle_that_is_left_is_none() -> None:
    journal = Journal()
    for _ in range(5):
        journal.call("a", value=1)
        journal.call("b", value=1)
    journal.ask("c")
    assert journal.verdict(CYCLES) is None


def test_one_call_again_and_again_is_no_circle() -> None:
    journal = Journal()
    for _ in range(40):
        journal.call("a", value=1)
    journal.ask("a")
    assert journal.verdict(CYCLES) is None


def test_undoing_is_no_evidence() -> None:
    journal = Journal()
    for _ in range(9):
        journal.tell(journal.ask("take_back", kind="local", undoes="x"), None)
        journal.tell(journal.ask("take_back", kind="undo", undoes="x"), None)
    assert journal.verdict(Zombies(repeats=2, cycles=2)) is None


def test_tokens_for_what_was_known() -> None:
    journal = Journal()
    journal.call("think", "a", "an answer", tokens=99)
    assert journal.verdict(TOKENS) is None, "the first time it is news"
    journal.call("think", "a", "an answer", tokens=99)
    assert journal.verdict(TOKENS) is None
    journal.call("think", "a", "an answer", tokens=1)
    assert journal.verdict(TOKENS) == Verdict("tokens", "it used 100 tokens for answers that it had had before")
    journal.call("think", "b", "another", tokens=1000)
    assert journal.verdict(TOKENS) is None, "something new"


def test_what_a_map_has_used_counts_too() -> None:
    journal = Journal()
    for _ in range(2):
        ask = journal.ask("think", kind="map")
        journal.entries.append(Joined(t=0, id=ask.id, tokens=150))
    assert journal.verdict(TOKENS) is not None


def test_a_persons_word_lets_it_go_on() -> None:
    journal = Journal()
    for _ in range(3):
        journal.call("look", value=0)
    journal.ask("look")
    assert journal.verdict(REPEATS) is not None
    journal.entries.append(Resume(t=1))
    assert journal.verdict(REPEATS) is None, "the same evidence counts no more"
    for _ in range(3):
        journal.call("look", value=0)
    journal.ask("look")
    assert journal.verdict(REPEATS) is not None, "new evidence does"
    journal.entries.append(Resume(t=2, allow=("repeats",)))
    for _ in range(30):
        journal.call("look", value=0)
    journal.ask("look")
    assert journal.verdict(REPEATS) is None, "the rule is allowed"
    assert journal.verdict(Zombies(repeats=3, tokens=1, cycles=2)) is None


def test_a_fork_begins_without_the_evidence_of_its_origin() -> None:
    journal = Journal(start=Start(t=0, origin="o", lags=((4, 1000),)))
    for _ in range(3):
        journal.call("look", value=0)
    journal.ask("look")
    assert journal.seen == 4
    assert journal.verdict(REPEATS) is None
    for _ in range(3):
        journal.call("look", value=0)
    journal.ask("look")
    assert journal.verdict(REPEATS) is not None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1)), max_size=60), st.integers(2, 4))
def test_repeats_are_what_a_look_back_finds(calls: list[tuple[str, int]], most: int) -> None:
    journal = Journal()
    history: dict[str, list[int]] = {}
    for name, value in calls:
        ask = journal.ask(name)
        before = history.setdefault(name, [])
        tail = before[-most:]
        expected = len(tail) == most and len(set(tail)) == 1
        assert (decide_repeats(tail_of(journal.entries), Zombies(repeats=most)) is not None) == expected
        journal.tell(ask, value)
        before.append(value)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1)), max_size=50), st.integers(2, 3))
def test_cycles_are_what_a_look_back_finds(calls: list[tuple[str, int]], most: int) -> None:
    journal = Journal()
    rounds: list[tuple[str, int]] = []
    for name, value in calls:
        ask = journal.ask(name)
        found = decide_cycles(tail_of(journal.entries), Zombies(cycles=most)) is not None
        assert found == any(is_cycle(rounds, name, length, most) for length in range(2, 9))
        journal.tell(ask, value)
        rounds.append((name, value))


def is_cycle(rounds: list[tuple[str, int]], begun: str, length: int, most: int) -> bool:
    """Whether the last rounds are the same `length` ones `most` times, and go on with the first of them."""
    last = rounds[-length * most :]
    if len(last) < length * most or rounds[-length][0] != begun or len(set(last)) == 1:
        return False
    return all(last[at] == last[at - length] for at in range(length, len(last)))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 60)), max_size=40))
def test_tokens_are_what_a_sum_finds(calls: list[tuple[str, int, int]]) -> None:
    journal = Journal()
    known: set[tuple[str, int]] = set()
    spent = 0
    for name, value, tokens in calls:
        journal.call(name, value=value, tokens=tokens)
        spent = spent + tokens if (name, value) in known else 0
        known.add((name, value))
        assert (decide_tokens(tail_of(journal.entries), TOKENS) is not None) == (spent >= 100)


def standing(**changed: Any) -> Standing:
    given = {"now_ms": 100_000, "since_ms": 0, "moved_ms": 40_000, "is_running": True}
    return Standing(**{**given, **changed})


def test_quiet_looks_only_at_what_runs() -> None:
    assert decide_quiet(standing(), 60_000) == Verdict(
        "quiet", "a step of it runs, and nothing was heard of it for 60 s"
    )
    assert decide_quiet(standing(), 60_001) is None
    assert decide_quiet(standing(is_running=False), 60_000) is None
    assert decide_quiet(standing(allowed=frozenset({"quiet"})), 60_000) is None
    assert decide_quiet(standing(), None) is None


def test_wall_counts_from_the_last_word() -> None:
    assert decide_wall(standing(), 100_000) == Verdict("wall", "it has not ended after 100 s")
    assert decide_wall(standing(since_ms=1), 100_000) is None
    assert decide_wall(standing(allowed=frozenset({"wall"})), 1) is None


def test_the_next_look_is_when_the_first_rule_may_find_it() -> None:
    assert decide_watched(standing(), {"quiet": 70_000, "wall": 120_000}) == (None, 110_000)
    assert decide_watched(standing(), {"quiet": 90_000, "wall": 120_000}) == (None, 120_000)
    assert decide_watched(standing(is_running=False), {"quiet": 50_000}) == (None, 150_000)
    heard_of_late = standing(is_running=False, moved_ms=90_000)
    assert decide_watched(heard_of_late, {"quiet": 50_000}) == (None, 140_000), "it may well be running"
    assert decide_watched(standing(allowed=frozenset({"quiet", "wall"})), {"quiet": 1, "wall": 1}) == (None, 0)
    verdict, _ = decide_watched(standing(), {"quiet": 10_000})
    assert verdict is not None


def test_what_is_not_given_is_as_the_settings_say() -> None:
    settings = Zombies(repeats=100, cycles=30, tokens=None, quiet=None, wall=timedelta(hours=1))
    mine = Zombies(repeats=None, quiet=timedelta(seconds=2)).over(settings)
    assert mine == Zombies(repeats=None, cycles=30, tokens=None, quiet=timedelta(seconds=2), wall=timedelta(hours=1))
    assert mine.watch() == {"quiet": 2000, "wall": 3_600_000}
    assert mine.counts
    assert not NONE.counts
    assert Zombies().over(settings) == settings
    told = json.loads(Zombies(repeats=5, wall=None).model_dump_json(exclude_unset=True))
    assert Zombies(**told) == Zombies(repeats=5, wall=None)
    assert set(told) == {"repeats", "wall"}


@pytest.mark.parametrize(
    "wrong", [{"repeats": 1}, {"cycles": 0}, {"tokens": 0}, {"quiet": timedelta(0)}, {"wall": timedelta(seconds=-1)}]
)
def test_rules_that_would_stop_everything_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Zombies(**wrong)
