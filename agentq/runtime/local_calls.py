"""Local calls on their way: outside the agent's loop, in daemon threads of the turn, or its own where they are short.

Threads, since a local call may block, and daemons, since one that never ends must not hold up its worker's end.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Any, Final

from agentq.core.errors import AgentqError, StepFailed
from agentq.core.journal import Result
from agentq.runtime.effects import Effect

Perform = Callable[[Effect], Any]
"""Calls an effect's function with its arguments and returns what it returned; a coroutine is run to its end."""

_MOST_THREADS: Final = 64
"""Local calls under way at once in one turn; more of them wait."""

SHORT_S: Final = 0.01
"""Calls that take so long, all together, need no thread of their own."""

_KEPT: Final = 1024
"""Functions of one process whose time is known; code that makes functions as it goes must not fill the memory."""


class LocalCalls:
    """The local calls of one turn."""

    def __init__(self, perform: Perform) -> None:
        self._perform = perform
        self._todo: SimpleQueue[tuple[Effect, contextvars.Context] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Effect, Result]] = SimpleQueue()
        self._under_way: dict[str, Effect] = {}
        self._threads = 0

    def __len__(self) -> int:
        return len(self._under_way)

    def start(self, effect: Effect) -> None:
        """The call is under way; one that is already stays as it is."""
        if effect.ask.id in self._under_way:
            return
        self._under_way[effect.ask.id] = effect
        if self._threads < min(len(self._under_way), _MOST_THREADS):
            self._threads += 1
            threading.Thread(target=self._serve, name="agentq-local", daemon=True).start()
        self._todo.put((effect, contextvars.copy_context()))

    def begin(self, effect: Effect) -> None:
        """The call is under way in a thread that the caller has: `make` and `tell` follow."""
        self._under_way[effect.ask.id] = effect

    def make(self, effect: Effect) -> tuple[Effect, Result]:
        """The outcome of a call that was made in this thread."""
        return effect, contextvars.copy_context().run(outcome_of, effect, self._perform)

    def tell(self, made: tuple[Effect, Result]) -> None:
        """The outcome is there for `wait`."""
        self._done.put(made)

    def wait(self, seconds: float) -> list[Result]:
        """The outcomes of wanted calls that have ended, waiting at most `seconds` for a first one."""
        found: list[Result] = []
        deadline = time.monotonic() + seconds
        while not found:
            try:
                found.extend(self._taken(max(0.0, deadline - time.monotonic())))
            except Empty:
                return found
        while not self._done.empty():
            found.extend(self._taken(0.0))
        return found

    def forget(self, wanted: dict[str, Effect]) -> None:
        """Only the calls in `wanted` count any more: nobody hears of the others."""
        if len(wanted) < len(self._under_way):
            self._under_way = {key: effect for key, effect in self._under_way.items() if key in wanted}

    def close(self) -> None:
        """No call is heard of any more; the threads end when theirs do."""
        self._under_way.clear()
        for _ in range(self._threads):
            self._todo.put(None)

    def _taken(self, seconds: float) -> list[Result]:
        effect, result = self._done.get(timeout=seconds) if seconds > 0 else self._done.get_nowait()
        return [result] if self._under_way.pop(effect.ask.id, None) is effect else []

    def _serve(self) -> None:
        while (item := self._todo.get()) is not None:
            effect, context = item
            if effect.ask.id in self._under_way:
                self._done.put((effect, context.run(outcome_of, effect, self._perform)))


_paces: Final[dict[str, float]] = {}


def are_short(effects: Iterable[Effect]) -> bool:
    """Whether these calls, one after the other, are known to be through in a moment here."""
    seconds = 0.0
    for effect in effects:
        pace = _paces.get(effect.ask.name)
        if pace is None:
            return False
        seconds += pace
    return seconds <= SHORT_S


def _note_pace(name: str, took: float) -> None:
    """Up at once, down slowly."""
    before = _paces.get(name)
    if before is None and len(_paces) >= _KEPT:
        _paces.clear()
    _paces[name] = took if before is None else before + (took - before) * (0.5 if took > before else 0.2)


def outcome_of(effect: Effect, perform: Perform) -> Result:
    """What the journal shall say of a local call; it has been made."""
    ask, began = effect.ask, time.monotonic()
    try:
        value = perform(effect)
        _note_pace(ask.name, time.monotonic() - began)
        return Result(id=ask.id, status="ok", value=value if effect.write is None else effect.write(value))
    except AgentqError as error:
        return Result(id=ask.id, status="error", value=error.to_wire())
    except BaseException as error:
        # SystemExit too: a thread that dies in silence would leave the run waiting for ever.
        failed = StepFailed(step=ask.name, step_id=ask.id, error_type=type(error).__name__, message=str(error))
        return Result(id=ask.id, status="error", value=failed.to_wire())
