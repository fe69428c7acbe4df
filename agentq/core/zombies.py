"""When a run is a zombie: it goes on and gets nowhere. Pure: each rule looks at what a journal holds, and says why.

A `Tail` is what the rules need of a journal, kept while it grows, so that a step costs it next to nothing. It must not
know who stops the run, nor how.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, get_args

import pydantic_core
from pydantic import Field

from agentq.core.journal import Answer, Ask, Entry, Joined, Result, Resume, Signal, Start, Tick
from agentq.core.models import Model
from agentq.core.units import Duration

Rule = Literal["repeats", "cycles", "tokens", "quiet", "wall"]
RULES: Final[tuple[Rule, ...]] = get_args(Rule)

LONGEST_CYCLE: Final = 8
"""Rounds in a cycle at the most: the rule costs a look back for each of these lengths."""

_COUNTED: Final = frozenset({"call", "map", "canvas", "local", "spawn"})
"""The asks that are calls. What takes back another one is none of them."""

_UNSET: Any = object()
"""Of an argument that was not given: None says something else."""

Many = Annotated[int | None, Field(ge=2)]


class Zombies(Model):
    """When a run is stopped because it gets nowhere: None is never, what is not given is as the settings say."""

    repeats: Many = None
    """The same call with the same arguments has brought the same answer so many times, and is made again."""
    cycles: Many = None
    """The same two to eight calls, one after the other, have brought the same answers so many times in a row."""
    tokens: Annotated[int | None, Field(ge=1)] = None
    """So many tokens were used in a row for answers that the run had had before."""
    quiet: Duration | None = Field(default=None, gt=timedelta(0))
    """Something of the run has been running for so long, and nothing was heard of it: no step's begin or end, no
    `this_step.heartbeat()` or `emit()`."""
    wall: Duration | None = Field(default=None, gt=timedelta(0))
    """So long after its start, or a person's last word, the run has not ended, waiting included."""

    def __init__(
        self,
        *,
        repeats: int | None = _UNSET,
        cycles: int | None = _UNSET,
        tokens: int | None = _UNSET,
        quiet: timedelta | None = _UNSET,
        wall: timedelta | None = _UNSET,
    ) -> None:
        given = {"repeats": repeats, "cycles": cycles, "tokens": tokens, "quiet": quiet, "wall": wall}
        super().__init__(**{name: value for name, value in given.items() if value is not _UNSET})

    def over(self, others: Zombies) -> Zombies:
        """These rules, and `others` for those that are not given here."""
        return others.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})

    @property
    def counts(self) -> bool:
        """Whether a rule looks at the journal while it grows."""
        return any(limit is not None for limit in (self.repeats, self.cycles, self.tokens))

    def watch(self) -> dict[str, int]:
        """What is looked after from outside, as the store knows it: in ms, by `quiet` and `wall`."""
        spans = {"quiet": self.quiet, "wall": self.wall}
        return {name: int(span.total_seconds() * 1000) for name, span in spans.items() if span is not None}


NONE: Final = Zombies(repeats=None, cycles=None, tokens=None, quiet=None, wall=None)
"""No rule at all."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A run is a zombie, by this rule.

    Attributes:
        why: in words, for people.
    """

    rule: Rule
    why: str


@dataclass(slots=True)
class _Call:
    """What is known of one call with its arguments since the run last waited for something outside.

    Attributes:
        asked_at: after how many inputs it was last made: what is made at once is one round.
        same: rounds in a row that brought the same answer, the last of them made after `told_of` inputs.
        again: it is being made once more.
    """

    name: str
    asked_at: int
    answer: int | None = None
    same: int = 0
    told_of: int = -1
    again: bool = False


@dataclass(slots=True)
class _Round:
    """What was asked for at once, and what came back before the next was asked for; both as hashes in their order."""

    asked_at: int
    asks: list[str]
    answers: list[int]

    def summed_up(self) -> tuple[int, int]:
        return hash(tuple(self.asks)), hash((tuple(self.asks), tuple(self.answers)))


class Tail:
    """What the rules need of a run's journal, kept entry by entry, in their order.

    Evidence counts from the last time that the run waited for the world outside (a timer, a signal, an answer of a
    person), from a person's word, and in a fork from where it begins.

    Attributes:
        allowed: rules that a person has told not to stop this run again.
        spent: tokens used in a row for answers that had come before.
    """

    def __init__(self) -> None:
        self.allowed: frozenset[str] = frozenset()
        self.spent = 0
        self._seen = 0
        self._fork_at = 0
        self._open: dict[str, tuple[str, Ask]] = {}
        self._calls: dict[str, _Call] = {}
        self._last: _Call | None = None
        self._round: _Round | None = None
        self._past: deque[tuple[int, int]] = deque(maxlen=LONGEST_CYCLE)
        self._matched = [0] * (LONGEST_CYCLE + 1)
        self._answers: set[tuple[str, int]] = set()

    # -- what came

    def asked(self, ask: Ask) -> None:
        """The agent asked for this, after all inputs that were seen so far."""
        if ask.kind not in _COUNTED or ask.undoes is not None:
            return
        stem = ask.key.rpartition("/")[0]
        self._open[ask.id] = stem, ask
        self._count(stem, ask)
        if self._round is None or self._round.asked_at != ask.after:
            self._close_round()
            self._round = _Round(ask.after, [stem], [])
        else:
            self._round.asks.append(stem)

    def saw(self, entry: Entry, members: Sequence[Result] = ()) -> None:
        """An input came: what it answers counts from here on."""
        self._seen += 1
        match entry:
            case Result() | Joined():
                self._told(entry, members)
            case Tick():
                self.waited()
            case Signal() | Answer():
                self.waited()
                self.spent = 0
            case Resume(allow=allow):
                self._begin_anew()
                self.allowed |= frozenset(allow)
            case Start(lags=lags):
                self._fork_at = lags[-1][0] if lags else 0
            case _:
                pass
        if self._seen == self._fork_at:
            self._begin_anew()

    def waited(self) -> None:
        """The run has waited for time to pass: a poll is no loop."""
        self._calls.clear()
        self._last = None
        self._round = None
        self._past.clear()
        self._matched = [0] * (LONGEST_CYCLE + 1)

    def _begin_anew(self) -> None:
        self.waited()
        self.spent = 0

    def _count(self, stem: str, ask: Ask) -> None:
        call = self._calls.get(stem)
        if call is None:
            call = self._calls[stem] = _Call(ask.name, ask.after)
        elif call.asked_at != ask.after:
            call.asked_at, call.again = ask.after, True
        self._last = call

    def _told(self, entry: Result | Joined, members: Sequence[Result]) -> None:
        asked = self._open.pop(entry.id, None)
        if asked is None:
            return
        stem, ask = asked
        answer = _hash_of(entry, members)
        if self._round is not None:
            self._round.answers.append(answer)
        call = self._calls.get(stem)
        if call is None:
            # It was under way while the run waited for something else.
            self._calls[stem] = _Call(ask.name, ask.after, answer, 1, ask.after)
        else:
            if call.answer != answer:
                call.same = 1
            elif call.told_of != ask.after:
                call.same += 1
            call.answer, call.told_of, call.again = answer, ask.after, False
        known = (stem, answer)
        if known in self._answers:
            self.spent += entry.tokens
        else:
            self._answers.add(known)
            self.spent = 0

    def _close_round(self) -> None:
        if self._round is None:
            return
        ended = self._round.summed_up()
        for length in range(2, LONGEST_CYCLE + 1):
            same = len(self._past) >= length and self._past[-length][1] == ended[1]
            self._matched[length] = self._matched[length] + 1 if same else 0
        self._past.append(ended)

    # -- what the rules look at

    @property
    def last_call(self) -> tuple[str, int]:
        """The name of the call that was made last, and how many times in a row it has brought the same answer."""
        if self._last is None or not self._last.again:
            return "", 0
        return self._last.name, self._last.same

    def times_round(self) -> tuple[int, int]:
        """How long a cycle is that has just begun once more, and how many times it was gone through; zeros for none."""
        if self._round is None:
            return 0, 0
        begun = hash(tuple(self._round.asks))
        found = (0, 0)
        for length in range(2, len(self._past) + 1):
            gone = self._matched[length] // length + 1
            if gone > max(found[1], 1) and self._past[-length][0] == begun and self._differ(length):
                found = (length, gone)
        return found

    def _differ(self, length: int) -> bool:
        return len(set(list(self._past)[-length:])) > 1


def tail_of(entries: Iterable[Entry]) -> Tail:
    """The tail of a whole journal, as it stands in the store: an ask stands behind the inputs that came before it."""
    tail = Tail()
    for entry in entries:
        if isinstance(entry, Ask):
            tail.asked(entry)
        else:
            tail.saw(entry)
    return tail


def decide_zombie(tail: Tail, rules: Zombies) -> Verdict | None:
    """The first rule by which the run is a zombie, of those that look at its journal; None when it is none."""
    return decide_repeats(tail, rules) or decide_cycles(tail, rules) or decide_tokens(tail, rules)


def decide_repeats(tail: Tail, rules: Zombies) -> Verdict | None:
    """Whether the last call brings nothing new: it has brought the same answer so many times in a row."""
    name, same = tail.last_call
    if rules.repeats is None or same < rules.repeats or "repeats" in tail.allowed:
        return None
    why = f'it called "{name}" with the same arguments again and got the same answer {same} times in a row'
    return Verdict("repeats", why)


def decide_cycles(tail: Tail, rules: Zombies) -> Verdict | None:
    """Whether the run goes round in circles: the same calls with the same answers, so many times."""
    length, gone = tail.times_round()
    if rules.cycles is None or gone < rules.cycles or "cycles" in tail.allowed:
        return None
    return Verdict("cycles", f"it went through the same {length} calls with the same answers {gone} times in a row")


def decide_tokens(tail: Tail, rules: Zombies) -> Verdict | None:
    """Whether tokens are used for nothing: all that came back for them was known already."""
    if rules.tokens is None or tail.spent < rules.tokens or "tokens" in tail.allowed:
        return None
    return Verdict("tokens", f"it used {tail.spent} tokens for answers that it had had before")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands from outside; times are server time in ms.

    Attributes:
        now_ms: when this was.
        since_ms: when the run was started, or a person last let it go on.
        moved_ms: when something was last heard of it or of what stands below it.
        is_running: whether a worker holds it or something below it; not asked while it was heard of within ``quiet``.
        allowed: rules that a person has told not to stop it again.
    """

    now_ms: int
    since_ms: int
    moved_ms: int
    is_running: bool
    allowed: frozenset[str] = frozenset()


def decide_quiet(standing: Standing, quiet_ms: int | None) -> Verdict | None:
    """Whether nothing is heard of what runs."""
    silent = standing.now_ms - standing.moved_ms
    if quiet_ms is None or not standing.is_running or silent < quiet_ms or "quiet" in standing.allowed:
        return None
    return Verdict("quiet", f"a step of it runs, and nothing was heard of it for {silent / 1000:.0f} s")


def decide_wall(standing: Standing, wall_ms: int | None) -> Verdict | None:
    """Whether the run has gone on for too long."""
    gone = standing.now_ms - standing.since_ms
    if wall_ms is None or gone < wall_ms or "wall" in standing.allowed:
        return None
    return Verdict("wall", f"it has not ended after {gone / 1000:.0f} s")


def decide_watched(standing: Standing, watch: dict[str, int]) -> tuple[Verdict | None, int]:
    """The verdict on a run that is looked after from outside, and the time at which to look again without one."""
    quiet_ms, wall_ms = watch.get("quiet"), watch.get("wall")
    verdict = decide_quiet(standing, quiet_ms) or decide_wall(standing, wall_ms)
    ahead = [standing.since_ms + wall_ms] if wall_ms is not None and "wall" not in standing.allowed else []
    if quiet_ms is not None and "quiet" not in standing.allowed:
        # What does not run now may begin at any time, and is quiet so long after that. Until then nobody asks who runs.
        due = standing.moved_ms + quiet_ms
        ahead.append(due if standing.is_running or due > standing.now_ms else standing.now_ms + quiet_ms)
    return verdict, min(ahead, default=0)


def _hash_of(entry: Result | Joined, members: Sequence[Result]) -> int:
    if isinstance(entry, Joined):
        return hash(tuple((each.status, _value_hash(each)) for each in members))
    return hash((entry.status, _value_hash(entry)))


def _value_hash(result: Result) -> int:
    value: Any = result.value
    if result.large:
        # It was not read, and is not read for this: an answer of its own.
        return hash(result.id)
    if result.status != "ok" and isinstance(value, dict):
        fields = value.get("fields") or {}
        # Its words may hold ids and times of this attempt; of what kind it is says enough.
        return hash((value.get("code"), fields.get("error_type")))
    return hash(pydantic_core.to_json(value))
