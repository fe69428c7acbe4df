"""Takes back what a failed or cancelled run has done, last first.

What continued as new before has happened for good, and so has what a child run did: it answers for itself.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentq.core.errors import StepCondemned
from agentq.runtime.effects import Effect

if TYPE_CHECKING:
    from agentq.runtime.asks import Asks

logger = logging.getLogger(__name__)


async def take_back(asks: Asks, done: Sequence[Effect], failure: BaseException) -> None:
    """Every step of `done` that started has been undone, in reverse order, one after the other.

    A step that still runs is called off and waited for first, since its effect may come late. An undo that fails is
    told in the history and noted on `failure`, and the next one goes on. One that is a step of its own stands among the
    dead letters from then on.
    """
    for effect in reversed(list(done)):
        await asks.ended(effect)
        for at in reversed(range(len(effect.calls))):
            if at in effect.untouched:
                continue
            try:
                await _take_back(asks, effect, effect.calls[at])
            except Exception as error:
                logger.warning("%s could not be undone", effect.words, exc_info=True)
                failure.add_note(f"{effect.words} could not be undone: {error}")
                if not isinstance(error, StepCondemned):
                    # Of a dead letter the store tells; this is a function of the agent's, or was never sent.
                    fields = {"step": effect.ask.name, "error": f"{type(error).__name__}: {error}"}
                    told = [fields, effect.ask.id, at]
                    asks.make("emit", "undo-failed", told_by=told, awaited=False, undoes=effect.ask.id, fields=fields)


async def _take_back(asks: Asks, effect: Effect, call: tuple[list[Any], dict[str, Any]]) -> None:
    args, kwargs = effect.target.schema.decode(*call)
    undo, of = effect.undo, effect.ask.id
    if hasattr(undo, "schema"):
        encoded = undo.schema.encode(args, kwargs)
        asked = asks.make("undo", undo.name, told_by=encoded, undoes=of, target=undo, calls=[encoded])
    else:
        # A plain function is no step that a worker knows: it runs where the agent runs.
        name = getattr(undo, "__name__", type(undo).__name__)
        told = ["undo", *call]
        calls = [(args, kwargs)]
        asked = asks.make("local", name, told_by=told, undoes=of, target=undo, calls=calls, write=_nothing)
    assert asked.future is not None
    await asked.future


def _nothing(_result: Any) -> None:
    """What an undo returns is nobody's."""
