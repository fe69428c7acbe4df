"""Local calls in the turn's own thread: short ones stay there, and what lasts keeps its agent from nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from agentq.core.journal import Result, Signal, decode
from agentq.engine.exits import Unwanted
from agentq.runtime import local_calls, relay
from agentq.runtime.relay import OwnThread
from agentq.runtime.run import Run
from tests.unit.runtime.test_turn import Desk

pytestmark = pytest.mark.timeout(60)


class Ordered(BaseException):
    """What ends a process."""


class Thread:
    """The test's own thread.

    Attributes:
        order: raised behind the call.
        on_enter: what happens where a call begins.
        on_leave: what happens where it ends.
        on_interrupt: what an interruption does.
        interrupts: how many there were.
    """

    def __init__(self) -> None:
        self.order: BaseException | None = None
        self.on_interrupt: Callable[[], None] = lambda: None
        self.interrupts = 0
        self.inside = False
        self.on_enter: Callable[[], None] = lambda: None
        self.on_leave: Callable[[], None] = lambda: None

    def enter(self) -> None:
        self.inside = True
        self.on_enter()

    def leave(self) -> None:
        self.on_leave()
        self.inside = False
        if self.order is not None:
            raise self.order

    def interrupt(self) -> None:
        self.interrupts += 1
        if self.inside:
            self.on_interrupt()


class Room(Desk):
    """A desk in whose own thread local calls may run."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = Thread()
        self.forsaken: list[bool] = []

    def own_thread(self) -> OwnThread:
        return self.thread

    def forsake(self, give_back: bool) -> None:
        self.forsaken.append(give_back)

    @property
    def values(self) -> list[Any]:
        return [entry.value for entry in map(decode, self.log) if isinstance(entry, Result)]


@pytest.fixture(autouse=True)
def paces(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    found: dict[str, float] = {}
    monkeypatch.setattr(local_calls, "_paces", found)
    return found


def here() -> int:
    return threading.get_ident()


def known_as_short(paces: dict[str, float], *functions: Callable[..., Any]) -> None:
    paces.update((function.__name__, 0.0) for function in functions)


def test_a_call_that_is_known_to_be_short_needs_no_thread() -> None:
    async def agent(run: Run) -> list[int]:
        return [await run.local(here) for _ in range(10)]

    room = Room()
    first, *others = room.run(agent).value
    assert first != threading.get_ident(), "nothing is known of it yet"
    assert set(others) == {threading.get_ident()}
    assert [(len(batch.asks), len(batch.results)) for batch in room.batches] == [(1, 1)] * 10


def test_several_at_once_are_one_batch(paces: dict[str, float]) -> None:
    async def agent(run: Run) -> list[int]:
        return await asyncio.gather(*(run.local(here) for _ in range(5)))

    known_as_short(paces, here)
    room = Room()
    assert set(room.run(agent).value) == {threading.get_ident()}
    assert [(len(batch.asks), len(batch.results)) for batch in room.batches] == [(5, 5)]


def test_calls_that_take_too_long_together_have_threads(paces: dict[str, float]) -> None:
    async def agent(run: Run) -> list[int]:
        return await asyncio.gather(*(run.local(here) for _ in range(5)))

    known_as_short(paces, here)
    paces.update(dict.fromkeys(paces, local_calls.SHORT_S / 4))
    assert threading.get_ident() not in Room().run(agent).value


def test_a_batch_that_proves_slow_is_told_of_and_goes_on_elsewhere(paces: dict[str, float]) -> None:
    def slow() -> int:
        threading.Event().wait(relay.PATIENCE_S * 0.6)
        return here()

    async def agent(run: Run) -> list[int]:
        return await asyncio.gather(*(run.local(slow) for _ in range(6)))

    known_as_short(paces, slow)
    room = Room()
    first, *others = room.run(agent).value
    assert first == threading.get_ident()
    assert threading.get_ident() not in others, "no call is too long, but all together are"


def test_a_timer_that_is_due_soon_is_in_time(paces: dict[str, float]) -> None:
    async def agent(run: Run) -> int:
        async with asyncio.timeout(relay.PATIENCE_S / 2):
            return await run.local(here)

    known_as_short(paces, here)
    assert Room().run(agent).value != threading.get_ident()


def test_an_agent_hears_of_what_comes_while_a_call_lasts(paces: dict[str, float]) -> None:
    gate, places = threading.Event(), []

    def lasts() -> str:
        assert gate.wait(30)
        return "in the end"

    async def agent(run: Run) -> Any:
        async def hear() -> Any:
            heard = await run.wait_for("go")
            places.append(threading.get_ident())
            gate.set()
            return heard

        return await asyncio.gather(run.local(lasts), hear())

    known_as_short(paces, lasts)
    room = Room()
    read = room.read

    def reading(seen: int) -> Any:
        if seen and not gate.is_set():
            room.tell(Signal(name="go", id="1", payload="a word"))
        return read(seen)

    room.read = reading  # type: ignore[method-assign]
    assert room.run(agent).value == ["in the end", "a word"]
    assert places[0] != threading.get_ident(), "another thread has the turn"
    assert room.values == ["in the end"]
    assert (room.thread.interrupts, room.forsaken) == (0, [])


def test_those_that_are_wanted_beside_it_start_elsewhere(paces: dict[str, float]) -> None:
    gate = threading.Event()

    def lasts() -> str:
        assert gate.wait(30)
        return "in the end"

    def beside() -> int:
        gate.set()
        return here()

    async def agent(run: Run) -> Any:
        return await asyncio.gather(run.local(lasts), run.local(beside))

    known_as_short(paces, lasts, beside)
    words, place = Room().run(agent).value
    assert words == "in the end"
    assert place != threading.get_ident()


def test_a_call_that_was_given_up_is_interrupted_and_not_heard_of(paces: dict[str, float]) -> None:
    gate = threading.Event()

    def lasts() -> str:
        assert gate.wait(30)
        return "late"

    async def agent(run: Run) -> Any:
        try:
            async with asyncio.timeout(3):
                return await run.local(lasts)
        except TimeoutError:
            return "gave up"

    known_as_short(paces, lasts)
    room = Room()
    room.thread.on_interrupt = gate.set
    room.read = lambda seen: _pass_a_second(room, seen)  # type: ignore[method-assign]
    assert room.run(agent).value == "gave up"
    assert room.thread.interrupts == 1
    assert room.values == []


@pytest.mark.parametrize("edge", ["on_enter", "on_leave"])
def test_an_interruption_at_the_edge_of_a_call_leaves_the_turn_its_end(paces: dict[str, float], edge: str) -> None:
    gate = threading.Event()

    def cut_short() -> None:
        assert gate.wait(30)
        setattr(room.thread, edge, lambda: None)
        raise Unwanted

    async def agent(run: Run) -> Any:
        try:
            async with asyncio.timeout(3):
                return await run.local(here)
        except TimeoutError:
            return "gave up"

    known_as_short(paces, here)
    room = Room()
    setattr(room.thread, edge, cut_short)
    room.thread.on_interrupt = gate.set
    room.read = lambda seen: _pass_a_second(room, seen)  # type: ignore[method-assign]
    assert room.run(agent).value == "gave up"
    assert room.values == []
    assert not room.thread.inside


def test_no_interruption_is_on_its_way_when_a_turn_has_ended(paces: dict[str, float]) -> None:
    gate, ended, late = threading.Event(), threading.Event(), []

    def lasts() -> None:
        assert gate.wait(30)

    async def agent(run: Run) -> Any:
        try:
            async with asyncio.timeout(3):
                await run.local(lasts)
        except TimeoutError:
            return "gave up"

    def slowly() -> None:
        gate.set()
        late.append(ended.wait(0.5))

    known_as_short(paces, lasts)
    room = Room()
    room.thread.on_interrupt = slowly
    room.read = lambda seen: _pass_a_second(room, seen)  # type: ignore[method-assign]
    assert room.run(agent).value == "gave up"
    ended.set()
    assert late == [False], "the turn waited for it"


def test_what_the_second_thread_raises_is_the_turn_s(paces: dict[str, float]) -> None:
    gate = threading.Event()

    async def agent(run: Run) -> Any:
        return await run.local(gate.wait)

    paces["wait"] = 0.0
    room = Room()
    room.thread.on_interrupt = gate.set

    def reading(seen: int) -> Any:
        if seen:
            raise ZeroDivisionError("in the second thread")
        return room.log[seen:]

    room.tell(Signal(name="x", id="1"))
    room.read = reading  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        room.run(agent)
    assert room.values == []


@pytest.mark.parametrize("lasts", [False, True], ids=["at once", "when another thread has the turn"])
def test_an_order_that_comes_during_a_call_is_no_answer(paces: dict[str, float], lasts: bool) -> None:
    room, second = Room(), threading.Event()

    def swallows() -> str:
        if lasts:
            assert second.wait(30)
        room.thread.order = Ordered()
        return "swallowed"

    async def agent(run: Run) -> Any:
        return await run.local(swallows)

    def reading(seen: int) -> Any:
        if seen:
            second.set()
        return room.log[seen:]

    room.tell(Signal(name="x", id="1"))
    room.read = reading  # type: ignore[method-assign]
    known_as_short(paces, swallows)
    with pytest.raises(Ordered):
        room.run(agent)
    assert room.values == []
    assert room.thread.interrupts == 0


def test_a_process_whose_thread_does_not_come_out_is_given_up(
    paces: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_FORSAKE_S", 0.2)
    monkeypatch.setattr(relay, "_INTERRUPT_S", 0.05)
    gate = threading.Event()

    def deaf() -> str:
        assert gate.wait(30)
        return "late"

    async def agent(run: Run) -> Any:
        async with asyncio.timeout(3):
            return await run.local(deaf)

    known_as_short(paces, deaf)
    room = Room()
    forsake = room.forsake

    def forsaking(give_back: bool) -> None:
        forsake(give_back)
        gate.set()

    room.forsake = forsaking  # type: ignore[method-assign]
    room.read = lambda seen: _pass_a_second(room, seen)  # type: ignore[method-assign]
    assert room.run(agent).kind == "error"
    assert room.forsaken == [True], "its end is not committed: another goes on"
    assert room.thread.interrupts > 1


def _pass_a_second(room: Room, seen: int) -> Any:
    room.clock_ms += 1000
    return room.log[seen:]
