"""Where a fork of a run begins: which entries of the journal it has, and what it asks for again.

Pure: it owns the rule and no id of the new run. A run is taken back to the moment before it saw the outcome of a step;
what it had asked for by then stays asked, with the outcomes that are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentq.core.error_base import Wire
from agentq.core.errors import StepFailed
from agentq.core.ids import step_id
from agentq.core.journal import Answer, Ask, Cancel, Entry, Joined, Result, Signal, Start, failed

Outcome = Result | Joined | Answer


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a fork begins with, with the ids of its origin.

    Attributes:
        start: the first entry.
        asks: what had been asked for, in order; those without an outcome are marked to be sent again.
        inputs: what the agent had seen, in order, without the start.
        carried: what comes next: outcomes of these asks that came later, and all later signals.
        again: ids of the asks that are marked.
    """

    start: Start
    asks: tuple[Ask, ...]
    inputs: tuple[Entry, ...]
    carried: tuple[Entry, ...]
    again: frozenset[str]

    @property
    def seen(self) -> int:
        """How many inputs the agent has seen, the start included."""
        return len(self.inputs) + 1

    def settled(self) -> dict[str, Outcome]:
        """The outcomes that the fork has, by ask."""
        entries = [*self.inputs, *self.carried]
        return {entry.id: entry for entry in entries if isinstance(entry, Outcome)}

    def lags(self, now_ms: int) -> tuple[tuple[int, int], ...]:
        """By how much the fork's timers are behind a clock that now shows `now_ms`; see `Start.lags`."""
        kept = tuple((after, lag) for after, lag in self.start.lags if after < self.seen)
        begin = replace(self.start, lags=kept)
        clock = 0
        for place, entry in enumerate([self.start, *self.inputs], start=1):
            clock = max(clock, (getattr(entry, "t", None) or 0) - begin.lag_at(place))
        return (*kept, (self.seen, max(0, now_ms - clock - sum(lag for _, lag in kept))))


def find_failed(entries: Sequence[Entry], run_id: str, error: Wire | None) -> str | None:
    """Return the ask whose failure ended the run; None where the agent itself is at fault.

    `error` is what the run failed with. An agent that raised an error of its own, right after it had seen one of a
    step's, failed by that.
    """
    asks = [entry for entry in entries if isinstance(entry, Ask)]
    undone = {ask.id for ask in asks if ask.undoes is not None}
    fields: dict[str, Any] = dict(error.get("fields") or {}) if error is not None else {}
    named = fields.get("step_id")
    if isinstance(named, str) and named != run_id:
        found = ask_of(asks, named)
        if found is not None:
            return found.id
    outcomes = [each for each in entries if isinstance(each, Outcome) and each.id not in undone]
    for outcome in reversed(outcomes):
        if isinstance(outcome, Result) and outcome.status != "ok" and outcome.value == error:
            return outcome.id
    last = outcomes[-1] if outcomes else None
    if isinstance(last, Result) and last.status != "ok":
        return last.id
    if isinstance(last, Joined) and error is not None and error.get("code") == "join_failed":
        return last.id
    return None


def ask_of(asks: Iterable[Ask], identity: str) -> Ask | None:
    """Return the ask of a step, which may be a member of a fan-out; None for what none of these asked for."""
    listed = list(asks)
    for ask in listed:
        if ask.id == identity:
            return ask
    for ask in listed:
        if ask.kind == "map" and any(step_id(ask.id, str(at)) == identity for at in range(ask.members or 0)):
            return ask
    return None


def undone_by(entries: Sequence[Entry]) -> frozenset[str]:
    """Return the asks that the run has taken back, or began to: their work is to be done again."""
    return frozenset(entry.undoes for entry in entries if isinstance(entry, Ask) and entry.undoes is not None)


def prefix_before(entries: Sequence[Entry], redo: frozenset[str], *, uncancel: bool = False) -> Prefix:
    """Return the journal as it was before the first outcome of the asks in `redo` was seen.

    `uncancel`: and before the run was cancelled.
    """
    start = entries[0]
    assert isinstance(start, Start)
    asks = _asks(entries)
    taken_back = {ask.id for ask in asks if ask.undoes is not None}
    inputs = [entry for entry in entries[1:] if not isinstance(entry, Ask)]

    def ends(entry: Entry) -> bool:
        if isinstance(entry, Cancel):
            return uncancel
        return isinstance(entry, Outcome) and (entry.id in redo or entry.id in taken_back)

    cut = next((at for at, entry in enumerate(inputs) if ends(entry)), len(inputs))
    kept = [ask for ask in asks if ask.after <= cut + 1 and ask.id not in taken_back]
    ids = {ask.id for ask in kept}
    known = {entry.id for entry in inputs[:cut] if isinstance(entry, Outcome)}
    carried = tuple(entry for entry in inputs[cut:] if _stays(entry, ids - redo))
    known |= {entry.id for entry in carried if isinstance(entry, Outcome)}
    again = frozenset(ask.id for ask in kept if ask.id not in known and ask.kind not in ("emit", "local"))
    marked = tuple(replace(ask, again=ask.id in again) for ask in kept)
    return Prefix(start, marked, tuple(inputs[:cut]), carried, again)


def journal_of(prefix: Prefix, *, origin: str, new: str, now_ms: int) -> list[Entry]:
    """Return the journal with which the run `new` begins as a fork of `origin`; ids are its own."""
    renamed = {ask.id: step_id(new, ask.key) for ask in prefix.asks}
    start = prefix.start
    begin = Start(t=start.t, version=start.version, origin=start.origin or origin, lags=prefix.lags(now_ms))
    asks = [replace(ask, id=renamed[ask.id], again=ask.again and ask.kind != "spawn") for ask in prefix.asks]
    inputs = [
        replace(entry, id=renamed.get(entry.id, entry.id)) if isinstance(entry, Outcome) else entry
        for entry in (*prefix.inputs, *prefix.carried)
    ]
    spawned = [ask for ask in prefix.asks if ask.again and ask.kind == "spawn"]
    left = [replace(_left_alone(ask, origin, renamed[ask.id]), t=now_ms) for ask in spawned]
    return [begin, *asks, *inputs, *left]


def _left_alone(ask: Ask, origin: str, new_id: str) -> Result:
    """What the fork hears of a run that its origin has spawned: it is not started twice."""
    message = f"run {origin}, of which this one is a fork, has spawned it; its result is not told here"
    error = StepFailed(step=ask.name, step_id=ask.id, error_type="NotInFork", message=message)
    return failed(new_id, error.to_wire())


def _asks(entries: Sequence[Entry]) -> list[Ask]:
    """The asks, each once: of a fork's, which stand there again once they were sent, the first place counts."""
    found: dict[str, Ask] = {}
    for entry in entries:
        if isinstance(entry, Ask):
            found.setdefault(entry.id, entry)
    return list(found.values())


def _stays(entry: Entry, wanted: set[str]) -> bool:
    if isinstance(entry, Signal):
        return True
    if isinstance(entry, Result):
        return entry.status == "ok" and entry.id in wanted
    return isinstance(entry, Joined | Answer) and entry.id in wanted
