"""How long steps take in this process, by which it is decided which of them may follow one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SHORT_S: Final = 0.02
"""A step that takes so long gains little by being taken together with another one's end."""


SHORT_TURN_S: Final = 0.05
"""An agent's turn that takes so long is short: it makes many steps, and the way to it costs more than a step's."""

RESTS_S: Final = 1.0
"""What a turn counts for that waits for something: it keeps its slot for as long as it likes."""


class Paces:
    """By name, how long a step takes here, in seconds: up at once, down slowly.

    Attributes:
        short: the names of those that are short.
        turn: changes with that.
    """

    def __init__(self) -> None:
        self.short: tuple[str, ...] = ()
        self.turn = 0
        self._seconds: dict[str, float] = {}
        self._agents: set[str] = set()

    def note(self, name: str, took: float, *, is_turn: bool = False) -> None:
        """Count one that took so long; ``is_turn``: the name is an agent's."""
        if is_turn:
            self._agents.add(name)
        before = self._seconds.get(name)
        pace = took if before is None else before + (took - before) * (0.5 if took > before else 0.2)
        self._seconds[name] = pace
        short_s = self._short_s(name)
        if before is None or (before <= short_s) != (pace <= short_s):
            # Threads share it: another may be counting too.
            self.short = tuple(each for each, seconds in list(self._seconds.items()) if seconds <= self._short_s(each))
            self.turn += 1

    def _short_s(self, name: str) -> float:
        return SHORT_TURN_S if name in self._agents else SHORT_S

    def longest(self, names: Sequence[str]) -> float:
        """Return how long the longest of these takes, in seconds, as far as is known."""
        return max(self._seconds.get(name, 0.0) for name in names)


by_name: Final = Paces()


def note(name: str, took: float, *, known: bool = True) -> None:
    """Note how long a step took here; unless that is ``known``, which counts only if it was short."""
    if known or took <= SHORT_S:
        by_name.note(name, took)


def note_turn(name: str, took: float, *, rested: bool) -> None:
    """Note how long a turn took here of the agent of this name; ``rested``: it has waited for something."""
    by_name.note(name, max(took, RESTS_S) if rested else took, is_turn=True)


def is_short(name: str) -> bool:
    """Tell whether steps of this name are known to be short here."""
    return name in by_name.short
