"""What may be called from an agent, and how many of a fan-out may be needed: said before anything is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agentq.core.errors import UsageError


def name_of(value: Any) -> str:
    """How a message names what was given."""
    return str(getattr(value, "name", None) or getattr(value, "__qualname__", None) or repr(value))


def check_step(step: Any, what: str) -> None:
    """Raise UsageError unless it is a step or an agent; `what` is called with it."""
    if not hasattr(step, "schema") or not hasattr(step, "agentq"):
        raise UsageError(
            f"{what} takes a step or an agent, and {name_of(step)!r} is neither: decorate it with @app.step, or call "
            "it by run.local."
        )


def check_need(need: int | None, what: str, step: Any, items: Sequence[Any], return_exceptions: bool) -> None:
    """Raise UsageError where `need` does not go with the rest of the call."""
    if need is None:
        return
    if not 1 <= need <= len(items):
        raise UsageError(f"{what}: need is {need}, but must be from 1 to the number of items, which is {len(items)}.")
    if return_exceptions:
        raise UsageError(f"{what} takes return_exceptions or need: who is not needed has no result to stand for it.")
    if step.agentq.undo is not None:
        raise UsageError(
            f"{what} with need calls some of {step.name!r} off, started or not, and cannot know what its undo is to "
            "take back: leave undo out, or call run.map without need."
        )
