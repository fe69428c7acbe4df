"""One turn of an agent at a worker: read the log, replay it, go on while inputs come, then end or park.

It owns the order of reading, sending and waiting. What a message is, and how anything is written, is the port's.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, NoReturn, Protocol

from agentq.core.errors import JournalUnreadable, ReplayMismatch
from agentq.core.journal import Ask, Cancel, Entry, Joined, Result, Signal, decode
from agentq.core.zombies import Verdict
from agentq.engine.binding import TurnEnd
from agentq.runtime.effects import Batch, Effect
from agentq.runtime.local_calls import LocalCalls, are_short
from agentq.runtime.machine import Machine
from agentq.runtime.outcomes import Outcome
from agentq.runtime.overrun import Overran, within
from agentq.runtime.relay import ENOUGH_S, PATIENCE_S, OwnThread, Relay

_SLOT_LOOK_S: Final = 0.02
"""How long a turn keeps its slot before it asks whether other work wants it: some times the latency of a short step, so
that a pool with free slots answers first."""
_FIRST_LOOK_S: Final = 0.05
_LONGEST_LOOK_S: Final = 0.5
"""While a local call runs, the log is looked at after the first of these times, then ever less often up to the
second: most local calls end before the first look, and a long one must not cost the server much."""


_CHEAP_REPLAY_S: Final = 0.1
"""A replay that costs so little is worth no input's delay."""
_REST_FACTOR: Final = 2.0
"""A run whose inputs come one by one replays for at most a third of the time."""
_LONGEST_REST_S: Final = 30.0


def rest_after(replay_s: float) -> int:
    """How many ms a run rests after a turn whose replay took so long: what comes meanwhile shares the next replay."""
    return int(min(replay_s * _REST_FACTOR, _LONGEST_REST_S) * 1000) if replay_s > _CHEAP_REPLAY_S else 0


class TurnPort(Protocol):
    """What a turn needs of the engine and the store. Every method may raise StaleHolder, which ends the turn."""

    def read(self, seen: int) -> Sequence[bytes]:
        """The entries of the log from position `seen` on."""
        ...

    def send(self, batch: Batch) -> Sequence[bytes | Entry] | None:
        """The batch is recorded and dispatched at once; the entries from `batch.seen` on, its own among them.

        One that the port knows need not be read again.

        None when the run stands still: the batch is recorded, to be dispatched by the next turn, and this one is over.
        """
        ...

    def park(self, *, seen: int, due_ms: int | None, waits: Sequence[str], rest_ms: int) -> bool:
        """The worker is given back; False if the log has grown past `seen`, then nothing has changed.

        For `rest_ms` nothing but a cancel wakes the run; what comes meanwhile wakes it then.
        """
        ...

    def wait(self, seconds: float) -> None:
        """Something was appended to the log, or so many seconds have passed. It may return early."""
        ...

    def is_slot_wanted(self, beyond: int = 0) -> bool:
        """Whether other work, more than `beyond` of it, waits in the queue that this turn's worker serves."""
        ...

    def load_result(self, ask_id: str) -> Any:
        """The JSON-able value of a step that succeeded, which is too large for the log."""
        ...

    def load_members(self, ask: Ask, places: Sequence[int] | None) -> Sequence[Result]:
        """The outcomes of a map's members at these places, in their order; None for all."""
        ...

    def restart(self, *, seen: int, arguments: Any, carry: Sequence[Entry], calls_off: Sequence[Effect]) -> None:
        """The run's next log begins with `carry` and what came after `seen`, and its next turn is queued."""
        ...

    def perform(self, effect: Effect) -> Any:
        """What the function of a local call returned. Called in other threads than the rest, or in ``own_thread``."""
        ...

    def own_thread(self) -> OwnThread | None:
        """The thread that this is called in, if local calls may run in it; None where that could not be ended."""
        ...

    def forsake(self, give_back: bool) -> None:
        """This process has ended, and whoever is in it; with ``give_back`` another goes on with the run at once."""
        ...

    def now_ms(self) -> int:
        """The server's time."""
        ...

    def allow(self, what: Literal["computing", "local calls", "waiting"]) -> None:
        """From now on the turn's process may live as long as this takes at most."""
        ...

    def ids_of(self, effects: Sequence[Effect]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The ids of the questions, and those of the steps and runs, that stand behind these asks."""
        ...


class _Stopped(Exception):
    """The run stands still, and is nobody's any more."""


class Turn:
    """One turn. `run` is called once."""

    def __init__(
        self,
        port: TurnPort,
        machine: Machine,
        *,
        linger: float = 0.5,
        compute_s: float = 60.0,
        local_calls: LocalCalls | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`linger` is how many seconds of `clock` the turn waits for inputs before it parks.

        `compute_s` is how many seconds the agent may compute between two of its awaits.
        """
        self._port = port
        self._machine = machine
        self._linger = linger
        self._compute_s = compute_s
        self._clock = clock
        self._locals = local_calls if local_calls is not None else LocalCalls(port.perform)
        self._inputs: deque[Entry] = deque()
        self._seen = 0
        self._clock_offset_ms: int | None = None
        self._looked = False
        self._asked = False
        self._sent = 0
        self._replay_s: float | None = None
        self._begun = 0.0
        thread = port.own_thread()
        self._relay = Relay(thread, go_on=self._go_on, forsake=port.forsake) if thread is not None else None

    def run(self) -> TurnEnd:
        """The run has ended, has parked or goes on as new; nothing of it is left in this process."""
        try:
            return self._run()
        except _Stopped:
            return TurnEnd("parked")
        except (ReplayMismatch, JournalUnreadable) as error:
            return TurnEnd("error", error=error, torn=True)
        except Overran:
            # It was in the loop itself, between two of the agent's own frames.
            return TurnEnd("error", error=self._machine.overran(self._compute_s), torn=True)
        finally:
            # Whoever has taken the turn over, and is not through yet, has the coroutine too.
            is_alone = self._relay is None or self._relay.close()
            self._locals.close()
            if is_alone:
                self._machine.drop()

    def _run(self) -> TurnEnd:
        self._machine.loop.live = False
        self._begun = self._clock()
        self._absorb(self._port.read(0), replayed=True)
        return self._go_on()

    def _go_on(self) -> TurnEnd:
        """From where the turn stands to its end: in its first thread, or in one that has taken it over."""
        machine = self._machine
        deadline = self._clock() + self._linger
        while True:
            if self._relay is not None and self._relay.is_left:
                raise _Stopped
            if self._feed():
                deadline = self._clock() + self._linger
            machine.loop.live = True
            if self._replay_s is None:
                self._replay_s = self._clock() - self._begun
            if machine.outcome is not None:
                return self._end(machine.outcome)
            if (verdict := machine.verdict) is not None:
                self._stop(verdict)
            is_urgent = machine.asks.has_urgent or self._is_due()
            if not is_urgent and (relay := self._relay_for_locals()) is not None:
                if (end := self._call_here(relay)) is not None:
                    return end
                deadline = self._clock() + self._linger
                continue
            self._start_locals()
            if is_urgent:
                self._send()
            elif len(self._locals):
                self._wait_for_locals()
                deadline = self._clock() + self._linger
            elif not self._wait_for_inputs(deadline) and self._park():
                return TurnEnd("parked")

    # -- the log

    def _absorb(self, lines: Sequence[bytes | Entry], *, replayed: bool = False) -> None:
        self._seen += len(lines)
        for line in lines:
            entry = decode(line) if isinstance(line, bytes) else line
            if not isinstance(entry, Ask):
                self._inputs.append(entry)
            elif replayed:
                self._machine.record(entry)

    def _feed(self) -> bool:
        fed = bool(self._inputs)
        machine = self._machine
        while self._inputs and machine.outcome is None:
            entry = self._inputs.popleft()
            members: Sequence[Result] = ()
            if isinstance(entry, Joined):
                if machine.wants(entry):
                    members = self._port.load_members(machine.asks.of(entry.id), entry.at)
            elif isinstance(entry, Result) and entry.large and machine.wants(entry):
                entry = replace(entry, value=self._port.load_result(entry.id), large=False)
            self._port.allow("computing")
            within(self._compute_s, functools.partial(machine.feed, entry, members))
        if fed:
            self._port.allow("local calls" if machine.asks.open_locals else "waiting")
        return fed

    def _stop(self, verdict: Verdict) -> NoReturn:
        """The run stands still; what it has under way here comes to its end first."""
        self._locals.forget(self._machine.asks.open_locals)
        results: list[Result] = []
        while len(self._locals):
            results.extend(self._locals.wait(_LONGEST_LOOK_S))
        self._send(results, stop=verdict)
        raise _Stopped

    def _send(self, results: Sequence[Result] = (), *, final: bool = False, stop: Verdict | None = None) -> None:
        machine = self._machine
        asks = machine.asks.take()
        if final:
            # Who still waits for a call when the agent ends will not hear of it: it is not sent.
            dispatch = [effect for effect in asks if effect.ask.kind in ("spawn", "emit")]
        else:
            dispatch = [effect for effect in asks if not effect.cancelled and not effect.settled]
            results = [*results, *(Result(id=each.ask.id, status="revoked") for each in asks if _is_void(each))]
        batch = Batch(
            seen=self._seen,
            asks=asks,
            dispatch=dispatch,
            results=results,
            tick=not final and self._is_due(),
            calls_off=() if final else machine.asks.take_given_up(),
            stop=stop,
            alone=not final and self._waits_alone(dispatch),
        )
        self._sent = sum(effect.ask.members or 1 for effect in dispatch)
        lines = self._port.send(batch)
        if lines is None:
            raise _Stopped
        self._absorb(lines)

    def _waits_alone(self, dispatch: Sequence[Effect]) -> bool:
        if self._relay is not None and self._relay.is_passed_on:
            # Its slot's own thread is still in a call.
            return False
        if len(dispatch) != 1 or self._machine.asks.pending != 1 or len(self._locals):
            return False
        (effect,) = dispatch
        return effect.ask.kind == "call" and effect.undo is None

    # -- waiting

    def _start_locals(self) -> None:
        wanted = self._machine.asks.open_locals
        self._locals.forget(wanted)
        if len(self._locals) < len(wanted):
            for effect in wanted.values():
                self._locals.start(effect)

    def _relay_for_locals(self) -> Relay | None:
        """By what the calls that are wanted may run in this thread, one after the other; None: they may not."""
        relay, wanted = self._relay, self._machine.asks.open_locals
        if relay is None or not wanted or relay.is_passed_on or not are_short(wanted.values()):
            return None
        self._locals.forget(wanted)
        # By then a timer would be late; and what runs already is waited for where it is.
        due = self._seconds_to_due()
        return relay if len(self._locals) == 0 and (due is None or due > PATIENCE_S) else None

    def _call_here(self, relay: Relay) -> TurnEnd | None:
        """Calls that are wanted were made and are sent; or the turn's end, if another thread came to it."""
        since = time.monotonic()
        for effect in list(self._machine.asks.open_locals.values()):
            begin, make = functools.partial(self._locals.begin, effect), functools.partial(self._locals.make, effect)
            if not relay.call(begin, make, self._locals.tell, since=since):
                return relay.end()
            if time.monotonic() - since >= ENOUGH_S:
                # They are slower than was known. A kill would repeat what is not told, and none of it hears a cancel.
                break
        self._send(self._locals.wait(0.0))
        return None

    def _wait_for_locals(self) -> None:
        look = _FIRST_LOOK_S
        while not self._inputs and not (self._relay is not None and self._relay.is_left):
            seconds = look if (due := self._seconds_to_due()) is None else min(look, max(0.0, due))
            results = self._locals.wait(seconds)
            if results:
                self._send(results)
            elif self._is_due():
                return
            else:
                self._absorb(self._port.read(self._seen))
                look = min(look * 2, _LONGEST_LOOK_S)

    def _wait_for_inputs(self, deadline: float) -> bool:
        """Whether to go on: inputs have come, or a timer is due before the deadline."""
        left = deadline - self._clock()
        due = self._seconds_to_due()
        if left <= 0:
            return False
        if not self._asked:
            # Others waited before this turn sent anything: what it waits for comes after them.
            self._asked = True
            if self._port.is_slot_wanted(beyond=self._sent):
                return False
        # What the agent waits for may itself wait for this very slot: a short look first, then only if none else does.
        patience = left if self._looked else min(left, _SLOT_LOOK_S)
        self._port.wait(min(patience, due) if due is not None else patience)
        self._absorb(self._port.read(self._seen))
        if self._inputs or self._is_due():
            self._looked = self._asked = False
            return True
        if not self._looked:
            self._looked = True
            if self._port.is_slot_wanted():
                return False
        return self._clock() < deadline

    def _park(self) -> bool:
        machine = self._machine
        rest_ms = rest_after(self._replay_s or 0.0)
        if self._port.park(seen=self._seen, due_ms=machine.next_due_ms, waits=machine.waits, rest_ms=rest_ms):
            return True
        self._absorb(self._port.read(self._seen))
        return False

    def _seconds_to_due(self) -> float | None:
        due = self._machine.next_due_ms
        if due is None:
            return None
        if self._clock_offset_ms is None:
            # Asked once a turn: from then on the two clocks run alike, well enough to guess when to look again.
            self._clock_offset_ms = self._port.now_ms() - int(self._clock() * 1000) - 1
        return (due - self._clock_offset_ms) / 1000 - self._clock()

    def _is_due(self) -> bool:
        due = self._seconds_to_due()
        return due is not None and due <= 0

    # -- the end

    def _end(self, outcome: Outcome) -> TurnEnd:
        machine = self._machine
        machine.drop()
        open_effects = machine.asks.still_open()
        if machine.asks.has_news:
            self._send(final=True)
        if outcome.kind == "restart":
            unseen = [entry for entry in self._inputs if isinstance(entry, Signal | Cancel)]
            carry = [*outcome.carry, *unseen]
            self._port.restart(seen=self._seen, arguments=outcome.value, carry=carry, calls_off=open_effects)
            return TurnEnd("restarted")
        closes, cancels = self._port.ids_of(open_effects)
        return TurnEnd(outcome.kind, value=outcome.value, error=outcome.error, closes=closes, cancels=cancels)


def _is_void(effect: Effect) -> bool:
    """Whether it was given up before it was sent, so that its outcome is to be told here."""
    return effect.cancelled and not effect.settled and effect.ask.kind != "local"
