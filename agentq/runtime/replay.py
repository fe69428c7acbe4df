"""Whether an agent asks again for what its journal holds.

It owns the rules of a replay and the list of asks that the journal does not hold yet. It must not know what an ask is
for.
"""

from __future__ import annotations

from collections import Counter

from agentq.core.errors import ReplayMismatch
from agentq.core.journal import Ask
from agentq.runtime.effects import Effect, words_of


class Book:
    """The asks of one run: recorded ones that the agent has yet to make, and new ones that are yet to be recorded.

    Attributes:
        mismatch: set once the agent's code does not fit its journal.
        strict: False when the journal was begun by another version of the agent; then it may ask for more, and
            elsewhere, but not for the same step with other arguments.
    """

    def __init__(self, run_id: str) -> None:
        self.strict = True
        self.mismatch: ReplayMismatch | None = None
        self._run_id = run_id
        self._unmade: dict[str, Ask] = {}
        self._unmade_names: Counter[tuple[str, str]] = Counter()
        self._new: list[Effect] = []
        self._again: list[Effect] = []

    def record(self, ask: Ask) -> None:
        """The journal holds this ask; all of them are told before the first input of a replay."""
        # A fork's ask stands in its journal twice once it was sent: the later entry says so, the first gives the place.
        if ask.id not in self._unmade:
            self._unmade_names[ask.kind, ask.name] += 1
        self._unmade[ask.id] = ask

    def is_unmade(self, ask_id: str) -> bool:
        """Whether the journal holds this ask, and the agent has not made it again yet."""
        return ask_id in self._unmade

    def unmade(self, ask_id: str) -> Ask:
        """The recorded ask that the agent has not made again yet."""
        return self._unmade[ask_id]

    def enter(self, effect: Effect) -> None:
        """The agent made this ask."""
        ask = effect.ask
        recorded = self._unmade.pop(ask.id, None)
        if recorded is not None:
            effect.recorded = True
            if recorded.again:
                self._again.append(effect)
            self._unmade_names[recorded.kind, recorded.name] -= 1
            if self.strict:
                self._check_place(recorded, effect)
            return
        self._new.append(effect)
        if not self.strict and self._unmade_names[ask.kind, ask.name] > 0:
            other = next(each for each in self._unmade.values() if (each.kind, each.name) == (ask.kind, ask.name))
            self._fail(words_of(other), f"{effect.words} in its place")

    def check_rest(self, seen: int) -> None:
        """The agent has come to rest after `seen` inputs; raises ReplayMismatch."""
        if self._unmade and self.strict and self.mismatch is None:
            first = next(iter(self._unmade.values()))
            if first.after <= seen:
                self._fail(f"{words_of(first)} after {first.after} inputs", self._first_new())
        if self.mismatch is not None:
            raise self.mismatch

    def check_end(self) -> None:
        """The agent has ended; raises ReplayMismatch when its journal went on."""
        if self._unmade and self.strict and self.mismatch is None:
            self._fail(words_of(next(iter(self._unmade.values()))), "nothing more and has ended")
        if self.mismatch is not None:
            raise self.mismatch

    @property
    def has_urgent(self) -> bool:
        """Whether something new is to be recorded that should not wait for the end of a local call."""
        return bool(self._open_again()) or any(effect.ask.kind != "local" and _stays(effect) for effect in self._new)

    @property
    def has_lasting(self) -> bool:
        """Whether something new is to be recorded although the agent has ended."""
        return any(effect.ask.kind in ("emit", "spawn") for effect in [*self._open_again(), *self._new])

    def _open_again(self) -> list[Effect]:
        return [effect for effect in self._again if not effect.settled]

    def take(self) -> list[Effect]:
        """The new asks for the journal, in order; they count as recorded from now on. A fork's come first.

        One that was given up is left out, unless the last one that stays was made before that: a replay that comes
        to the last one cannot know yet that the other will be given up. What has an undo always stays, since the undo
        must find out whether it was ever sent.
        """
        again, self._again = self._open_again(), []
        new, self._new = self._new, []
        while new and not _stays(new[-1]):
            new.pop()
        if not new:
            return again
        last = new[-1].made
        taken = [each for each in new if _stays(each) or (each.cancelled_at or 0) >= last]
        for each in taken:
            each.recorded = True
        return [*again, *taken]

    def _check_place(self, recorded: Ask, effect: Effect) -> None:
        if recorded.after != effect.ask.after:
            self._fail(f"{words_of(recorded)} after {recorded.after} inputs", f"it after {effect.ask.after} inputs")
        elif not self._unmade:
            # The last recorded one. What was new before it would have been recorded with it, had it been made.
            left = next((each for each in self._new if not each.cancelled), None)
            if left is not None:
                self._fail(words_of(recorded), f"{left.words} before it")

    def _first_new(self) -> str:
        left = next((each for each in self._new if not each.cancelled), None)
        return "nothing at that place" if left is None else left.words

    def _fail(self, recorded: str, asked: str) -> None:
        if self.mismatch is None:
            self.mismatch = ReplayMismatch(run_id=self._run_id, recorded=recorded, asked=asked)


def _stays(effect: Effect) -> bool:
    return not effect.cancelled or effect.undo is not None
