"""What a controller goes by, of all its pools in one call: the script `sense`, and its reply as values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentq.store.connection import StoreConnection


class Question(NamedTuple):
    """What is asked of one queue.

    Attributes:
        horizon_ms: timers that fall due within it count.
        known: what the last `Glance` said as `count`; its sums are told again only if they have changed.
        listed: whether its workers are told one by one.
        named: whether it is told of which tasks what is held is.
    """

    queue: str
    horizon_ms: int
    known: int = -1
    listed: bool = False
    named: bool = False


class StepSums(NamedTuple):
    """Sums over all attempts of a step in a queue, since the store began.

    Of the short ones every eighth stands for eight. `ended`: attempts after which none followed. Of an agent an attempt
    is a turn.
    """

    attempts: int
    ms: int
    squares: int
    failed: int
    tokens: int
    ended: int


class SeenWorker(NamedTuple):
    """A living worker of the queue.

    Attributes:
        since_ms: when it was enrolled, by the server's clock; 0 where that is not known.
        held: messages in its custody, of all its queues.
        rests: it takes nothing, by its own report: it is drained and has heard of it, stops, or is not well.
        mark: what stands in its own mark of draining; None for none.
    """

    id: str
    instance: str
    since_ms: int
    held: int
    rests: bool
    mark: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Glance:
    """One queue as it was found.

    Attributes:
        workers, resting: living ones that take from it, and those that do not now.
        slots, busy: of those that take; one that serves several queues counts in each.
        held: messages of the queue in custody of any worker.
        names: of these how many there are of each task, if that was asked.
        waiting: in all lanes, held back, suspects, and what workers hold that are not heard of any more.
        oldest_s: for how long the one that is next waits; 0 where nothing waits.
        due_soon: timers that fall due within the horizon, and lines of gates that move by then.
        is_closed: a person has drained the pool.
        count: attempts and asks so far.
        sums, asks: by step, and by agent how many steps it asked for here; None where `count` is what was known.
        listed: its workers, if that was asked.
    """

    workers: int
    resting: int
    slots: int
    busy: int
    held: int
    waiting: int
    oldest_s: float
    due_soon: int
    is_closed: bool
    count: int
    sums: dict[str, StepSums] | None
    asks: dict[str, int] | None
    listed: tuple[SeenWorker, ...] | None
    names: dict[str, int] | None = None


class SenseReads(StoreConnection):
    """The script that looks at all pools for a controller."""

    def sense(self, questions: Sequence[Question]) -> tuple[int, dict[str, Glance]]:
        """Return the server's time in ms, and how each queue stands."""
        asked = [(each.queue, each.horizon_ms, each.known, int(each.listed), int(each.named)) for each in questions]
        now, said = self.run_script("sense", json.dumps(asked))
        found = json.loads(said)
        return int(now), {each.queue: _glance(stand) for each, stand in zip(questions, found, strict=True)}


def _glance(found: dict[str, Any]) -> Glance:
    sums, asks = _pace(found["p"]) if "p" in found else (None, None)
    return Glance(
        workers=found["w"],
        resting=found["x"],
        slots=found["s"],
        busy=found["b"],
        held=found["h"],
        waiting=sum(found["n"]) + sum(found["hb"]) + found["u"] + found.get("l", 0),
        oldest_s=max(0.0, found["o"] / 1000),
        due_soon=round(found.get("t", 0)),
        is_closed="c" in found,
        count=int(found["k"]),
        sums=sums,
        asks=asks,
        names=found.get("r"),
        listed=tuple(_seen(each) for each in found.get("d") or ()),
    )


def _pace(flat: Sequence[str]) -> tuple[dict[str, StepSums], dict[str, int]]:
    sums: dict[str, StepSums] = {}
    asks: dict[str, int] = {}
    # Lua writes an empty list as an empty object.
    pairs = iter(flat or ())
    for name, said in zip(pairs, pairs, strict=True):
        if name.startswith(">"):
            asks[name[1:]] = int(said)
        else:
            sums[name] = StepSums(*map(int, said.split("|")))
    return sums, asks


def _seen(entry: Sequence[Any]) -> SeenWorker:
    worker, instance, since, held, rests, mark = entry
    return SeenWorker(worker, instance, int(since or 0), held, rests == 1, json.loads(mark) if mark else None)
