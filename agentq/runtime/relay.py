"""Local calls in the turn's own thread, from which another thread takes the turn over should one of them last.

A short call costs two changes of thread where a thread of its own makes it: more than its record does. But a thread
that is in a call hears of no signal, timer or cancel. So a guard looks after it: when the call is not through after a
moment, a second thread goes on with the turn, to its end, and the first one brings it the call's outcome as any thread
of a local call would. The turn is one thread's at any time: whose, is decided under the guard's lock.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol, TypeVar

from agentq.engine import later
from agentq.engine.binding import TurnEnd
from agentq.engine.exits import Unwanted

T = TypeVar("T")

PATIENCE_S: Final = 0.05
"""After so long in a call the turn goes on without its thread: what a turn needs before it looks at its log."""

ENOUGH_S: Final = PATIENCE_S / 2
"""After so long no further call of a batch begins here: what was made is told of, and threads may make the others."""

_AWAKE_S: Final = 1.0
"""The guard sleeps once there was no call for so long: to wake it for each would cost as much as a thread for each."""

_INTERRUPT_S: Final = 0.5
"""A call that nobody waits for any more is interrupted again after so long, should it hold that up."""

_FORSAKE_S: Final = 10.0
"""After so long the process is given up, with the thread that does not come out of the call."""

_HAND_BACK_S: Final = 1.0
"""So long a thread that is ordered to leave waits for the one that has the turn; it looks every half second."""


class OwnThread(Protocol):
    """The thread of a turn, as local calls may run in it."""

    def enter(self) -> None:
        """A call begins."""
        ...

    def leave(self) -> None:
        """It has ended; raises what has ordered this thread to stop meanwhile, whatever the call has made of that."""
        ...

    def interrupt(self) -> None:
        """From another thread: Unwanted is raised in the call, or at its edges, if it has not ended."""
        ...


class _Second:
    """The thread that has taken a turn over.

    Attributes:
        out: set once the first thread has come out of the call.
        ended: set once the turn has.
        left: the first thread was ordered to leave, and the turn with it.
    """

    def __init__(self, go_on: Callable[[], TurnEnd]) -> None:
        self.out = threading.Event()
        self.ended = threading.Event()
        self.left = False
        self.end: TurnEnd | None = None
        self.error: BaseException | None = None
        self._go_on = go_on
        self._door = threading.Lock()

    def run(self) -> None:
        try:
            self.end = self._go_on()
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()

    def come_out(self) -> None:
        """The first thread is out of the call, and no interruption is on its way to it.

        Else this: the second thread sees it in the call; it comes out, ends, and begins the next turn's call; the
        interruption hits that one.
        """
        with self._door:
            self.out.set()

    def interrupt(self, first: OwnThread) -> None:
        """The first thread is interrupted, if it is still in the call."""
        with self._door:
            if not self.out.is_set():
                first.interrupt()


class Relay:
    """What the two threads of one turn agree by."""

    def __init__(self, thread: OwnThread, *, go_on: Callable[[], TurnEnd], forsake: Callable[[bool], None]) -> None:
        """``go_on`` has the turn go on to its end, ``forsake`` ends the process: with True it gives the turn back."""
        self._thread = thread
        self._context = contextvars.copy_context()
        self._go_on = go_on
        self._forsake = forsake
        self._since: float | None = None
        self._second: _Second | None = None

    @property
    def is_passed_on(self) -> bool:
        """Whether a second thread has the turn."""
        return self._second is not None

    @property
    def is_left(self) -> bool:
        """Whether the turn is to end here: asked by the second thread."""
        return self._second is not None and self._second.left

    def call(
        self, begin: Callable[[], None], make: Callable[[], T], tell: Callable[[T], None], *, since: float
    ) -> bool:
        """The call was made in this thread, and told of; False when the turn is another thread's by now.

        ``begin`` is called first, where the turn is still this thread's; else none of them is. ``since`` is the
        `monotonic` moment from which on the turn hears of nothing: of the first call, where it makes several.
        """
        with _guard.lock:
            if self._second is not None:
                return False
            begin()
            self._since = since
            _guard.mind(self)
        try:
            try:
                self._thread.enter()
                made = make()
            finally:
                self._thread.leave()
        except Unwanted:
            # It came before the function began or when it had ended: the turn's end is what the second thread came to.
            # It may have cut the leaving short; the next one comes only after _INTERRUPT_S.
            self._thread.leave()
            return False
        # Not before: what was ordered to stop, and has answered all the same, is no answer.
        tell(made)
        with _guard.lock:
            self._since = None
            return self._second is None

    def end(self) -> TurnEnd:
        """The turn's end, which the second thread has come to; raises what it raised."""
        second = self._second
        assert second is not None
        second.come_out()
        second.ended.wait()
        if second.error is not None:
            raise second.error
        assert second.end is not None
        return second.end

    def close(self) -> bool:
        """Nobody takes the turn over any more; whether no other thread is in it."""
        with _guard.lock:
            self._since = None
            _guard.forget(self)
            second = self._second
        if second is None:
            return True
        second.left = True
        second.come_out()
        return second.ended.wait(_HAND_BACK_S)

    def look(self) -> float | None:
        """Under the guard's lock: the turn is passed on if a call has lasted; else after how long it may have."""
        if self._since is None or self._second is not None:
            return None
        left = self._since + PATIENCE_S - monotonic()
        if left > 0:
            return left
        second = _Second(self._go_on)
        thread = threading.Thread(target=self._run, args=(second,), name="agentq-turn", daemon=True)
        # Whoever sees it waits for its end: it is there before it runs, and not if it cannot.
        self._second = second
        try:
            thread.start()
        except RuntimeError:
            self._second = None
            return PATIENCE_S
        return None

    def _run(self, second: _Second) -> None:
        self._context.copy().run(second.run)
        waited = 0.0
        while not second.out.is_set():
            second.interrupt(self._thread)
            if not second.out.wait(_INTERRUPT_S):
                waited += _INTERRUPT_S
            if waited >= _FORSAKE_S:
                # What has parked is nobody's here; what has ended is still to be committed, by the next holder then.
                self._forsake(second.end is None or second.end.kind not in ("parked", "restarted"))
                return


class _Guard:
    """Looks after the one turn whose thread may be in a call: a child runs one at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._relay: Relay | None = None
        self._awake = False
        self._used = 0.0

    def mind(self, relay: Relay) -> None:
        """Under the lock: look after this one from now on."""
        self._relay = relay
        self._used = monotonic()
        if not self._awake:
            self._awake = True
            later.after(PATIENCE_S, self._look)

    def forget(self, relay: Relay) -> None:
        """Under the lock: it needs nobody any more."""
        if self._relay is relay:
            self._relay = None

    def _look(self) -> float | None:
        with self.lock:
            again = self._relay.look() if self._relay is not None else None
            if again is not None:
                return again
            self._awake = monotonic() - self._used < _AWAKE_S
            return PATIENCE_S if self._awake else None


_guard = _Guard()


def _forget() -> None:
    global _guard
    # Its thread stayed in the parent, and its lock may have been somebody's there.
    _guard = _Guard()


os.register_at_fork(after_in_child=_forget)
