"""Which steps and agents may follow one another in a child, or a thread: short ones, of one nature."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Final

from agentq.engine import paces
from agentq.engine.messages import HEADER

NAMES: Final = 50
"""How many short steps' names a commit sends along at most."""


def suits(task: Any) -> bool:
    """Tell whether a step or an agent may be one of those that follow: an undo has to know for certain who ran."""
    options = getattr(task, HEADER, None)
    return options is not None and options.undo is None and task.rate_limit is None


@dataclass(frozen=True, slots=True)
class Kin:
    """The steps that may follow one: short ones, of its nature, since by that a child is told to stop.

    Behind an agent's turn those of other agents, each in the version that this worker has: it judges others itself.
    """

    turn: int
    is_async: bool
    names: tuple[str, ...]

    @classmethod
    def of(cls, task: Any) -> Kin:
        turn, tasks, nature = paces.by_name.turn, task.app.tasks, _nature_of(task)
        if not suits(task):
            return cls(turn, nature[1], ())
        known = [tasks[name] for name in paces.by_name.short if name in tasks]
        alike = [_name_among(each) for each in known if suits(each) and _nature_of(each) == nature]
        return cls(turn, nature[1], tuple(alike[:NAMES]))


def _nature_of(task: Any) -> tuple[bool, bool]:
    return bool(task.is_agent), inspect.iscoroutinefunction(task.run)


def _name_among(task: Any) -> str:
    """Return by what the scripts tell a step among the short ones, as ``name_among`` in common.lua has it."""
    name = str(task.name)
    return f"{name}\t{getattr(task, HEADER).version or ''}" if task.is_agent else name
