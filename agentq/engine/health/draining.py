"""What the marks of draining mean for one worker: which of its queues it leaves, and what it is to hand over when."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Drain:
    """How far a worker is drained.

    Attributes:
        words: why it takes nothing at all; None where it takes from some queue.
        queues: those from which it takes nothing.
        graces: by mark that has one, after how many seconds what runs is handed over.
    """

    words: str | None = None
    queues: frozenset[str] = frozenset()
    graces: Mapping[str, float] = field(default_factory=dict)

    def hands_over(self, mark: str, queue: str) -> bool:
        """Tell whether a mark concerns an attempt of a queue."""
        return mark.partition("|")[0] != "pool" or mark.partition("|")[2] == queue


def decide_drain(marks: Mapping[str, str], *, worker: str, node: str, queues: frozenset[str]) -> Drain:
    """Return what the marks mean for a worker of this id, on this node, that serves these queues."""
    mine = {mark: words for mark, words in marks.items() if _concerns(mark, worker, node, queues)}
    closed = frozenset(mark.partition("|")[2] for mark in mine if mark.startswith("pool|"))
    whole = [mark for mark in mine if not mark.startswith("pool|")]
    words = None
    if whole:
        words = "drained" if whole[0].startswith("worker|") else f"its node {node} is drained"
    elif queues and closed >= queues:
        words = f"drained: pool {', '.join(sorted(closed))}"
    graces = {mark: _grace(said) for mark, said in mine.items()}
    return Drain(words, closed, {mark: grace for mark, grace in graces.items() if grace is not None})


def _concerns(mark: str, worker: str, node: str, queues: frozenset[str]) -> bool:
    kind, _, name = mark.partition("|")
    return (
        (kind == "worker" and name == worker)
        or (kind == "node" and name == node)
        or (kind == "pool" and name in queues)
    )


def _grace(said: str) -> float | None:
    try:
        words: Any = json.loads(said)
    except ValueError:
        return None
    grace = words.get("grace_ms") if isinstance(words, dict) else None
    return grace / 1000 if isinstance(grace, int | float) else None
