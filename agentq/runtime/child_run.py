"""What an agent holds of a run that it spawned."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from agentq.runtime.effects import Effect

if TYPE_CHECKING:
    from agentq.runtime.run import Run

R = TypeVar("R")


class ChildRun(Generic[R]):
    """A run that an agent spawned. It goes on whatever becomes of the agent.

    Attributes:
        id: the child's run id.
    """

    def __init__(self, run: Run, effect: Effect) -> None:
        self.id = effect.ask.id
        self._run = run
        self._effect = effect

    async def result(self) -> R:
        """What the child returned; raises what it raised. Giving this up leaves the child alone."""
        self._run._check("ChildRun.result")
        assert self._effect.future is not None
        return cast(R, await asyncio.shield(self._effect.future))

    def cancel(self) -> None:
        """The child is told to stop, once the agent rests; `result` raises CancelledError from now on."""
        self._run._check("ChildRun.cancel").asks.give_up(self._effect)
