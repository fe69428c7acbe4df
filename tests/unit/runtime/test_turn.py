"""One turn at a worker: what it sends, when it waits, when it parks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from agentq.core.errors import ReplayMismatch, StaleHolder
from agentq.core.journal import Ask, Cancel, Result, Signal, decode, ok
from agentq.runtime.effects import Batch, Effect
from agentq.runtime.run import Run
from agentq.runtime.turn import Turn
from tests.properties.replay_world import Body, World, machine_of
from tests.unit.runtime.scripted import add, shout


class Desk(World):
    """A world that does nothing of its own accord; steps answer when `deliver_all` is called.

    Attributes:
        batches: what was sent.
        parked: how the run has parked.
    """

    def __init__(self, *signals: Signal | Cancel) -> None:
        super().__init__(Random(0), signals=signals)
        self.batches: list[Batch] = []
        self.parked: dict[str, Any] | None = None
        self.waited: list[float] = []
        self.answers_at_once = True
        self.others = 0

    def maybe_kill(self) -> None: ...

    def deliver(self) -> bool:
        arrived, self._answers = list(self._answers), []
        for answer in arrived:
            self.tell(answer)
        return bool(arrived)

    def send(self, batch: Batch) -> Sequence[bytes]:
        self.batches.append(batch)
        for effect in batch.asks:
            self.log.append(_line(effect))
        for effect in batch.dispatch:
            self.dispatch(effect)
        if self.answers_at_once:
            self.deliver()
        for result in batch.results:
            self.tell(result)
        if batch.tick:
            self.tell(_tick())
        return self.log[batch.seen :]

    def park(self, *, seen: int, due_ms: int | None, waits: Sequence[str], rest_ms: int) -> bool:
        if len(self.log) > seen:
            return False
        self.parked = {"due_ms": due_ms, "waits": list(waits), "rest_ms": rest_ms}
        return True

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.clock_ms += int(seconds * 1000) + 1

    def is_slot_wanted(self, beyond: int = 0) -> bool:
        return self.others > beyond

    def run(self, body: Body, *, linger: float = 0.0) -> Any:
        return Turn(self, machine_of(body), linger=linger, clock=lambda: self.clock_ms / 1000).run()


def _line(effect: Effect) -> bytes:
    from agentq.core.journal import encode

    return encode(effect.ask).encode()


def _tick() -> Any:
    from agentq.core.journal import Tick

    return Tick()


def _next(number: int) -> int:
    return number + 1


def test_a_turn_gives_its_slot_away_at_once_where_others_wait_for_it() -> None:
    """What it has just sent waits behind them."""

    async def agent(run: Run) -> Any:
        return await asyncio.gather(run.call(add, 1, 1), run.call(add, 2, 1))

    desk = Desk()
    desk.answers_at_once = False
    desk.others = 3
    assert desk.run(agent, linger=0.5).kind == "parked"
    assert desk.waited == []
    own = Desk()
    own.answers_at_once = False
    own.others = 2
    assert own.run(agent, linger=0.5).kind == "parked"
    assert own.waited == [pytest.approx(0.02)], "only its own steps wait: a free slot may take them"


def test_what_is_asked_for_at_one_rest_goes_out_in_one_batch() -> None:
    async def agent(run: Run) -> Any:
        return await asyncio.gather(*(run.call(add, number, 1) for number in range(5)), run.call(shout, "a"))

    desk = Desk()
    end = desk.run(agent)
    assert end.value == [1, 2, 3, 4, 5, "A"]
    assert [len(batch.asks) for batch in desk.batches] == [6]


def test_a_local_call_costs_one_batch_with_its_result() -> None:
    async def agent(run: Run) -> int:
        total = 0
        for _ in range(20):
            total = await run.local(_next, total)
        return total

    desk = Desk()
    assert desk.run(agent).value == 20
    assert [(len(batch.asks), len(batch.results)) for batch in desk.batches] == [(1, 1)] * 20


def test_asks_go_out_while_a_local_call_runs() -> None:
    gate = threading.Event()
    desk = Desk()

    def local() -> str:
        assert gate.wait(10)
        return "local"

    async def agent(run: Run) -> Any:
        async def two() -> Any:
            first = await run.call(add, 1, 1)
            gate.set()
            return await run.call(add, first, 1)

        return await asyncio.gather(run.local(local), two())

    assert desk.run(agent).value == ["local", 3]
    assert [effect.ask.kind for effect in desk.batches[0].asks] == ["local", "call"]


def test_async_local_calls_and_failures_are_journaled() -> None:
    desk = Desk()
    desk.perform = lambda effect: asyncio.run(_awaited(effect))  # type: ignore[method-assign]

    async def double(number: int) -> int:
        return 2 * number

    async def broken() -> None:
        raise OSError("no disk")

    async def agent(run: Run) -> Any:
        doubled = await run.local(double, 4)
        try:
            await run.local(broken)
        except Exception as error:
            return doubled, str(error)

    doubled, words = desk.run(agent).value
    assert doubled == 8
    assert "OSError: no disk" in words


def test_a_local_call_that_was_given_up_is_not_heard_of() -> None:
    gate = threading.Event()

    def slow() -> str:
        gate.wait(10)
        return "late"

    async def agent(run: Run) -> Any:
        try:
            async with asyncio.timeout(3):
                return await run.local(slow)
        except TimeoutError:
            return "gave up"

    desk = Desk()
    desk.read = lambda seen: _pass_a_second(desk, seen)  # type: ignore[method-assign]
    try:
        assert desk.run(agent).value == "gave up"
    finally:
        gate.set()
    assert not any(isinstance(decode(line), Result) for line in desk.log)


def test_a_cancel_reaches_the_agent_while_a_local_call_runs() -> None:
    gate = threading.Event()
    desk = Desk()

    async def agent(run: Run) -> Any:
        await run.local(gate.wait, 10)

    read = desk.read

    def reading(seen: int) -> Sequence[bytes]:
        if seen:
            desk.tell(Cancel(why="now"))
        return read(seen)

    desk.read = reading  # type: ignore[method-assign]
    try:
        assert desk.run(agent).kind == "cancelled"
    finally:
        gate.set()


def test_it_parks_with_what_it_waits_for() -> None:
    async def agent(run: Run) -> Any:
        return await run.wait_for("go", timeout=100)

    desk = Desk()
    began = desk.clock_ms
    assert desk.run(agent).kind == "parked"
    assert desk.parked is not None
    assert desk.parked["waits"] == ["go"]
    assert desk.parked["due_ms"] == pytest.approx(began + 100_000, abs=10)


def test_it_lingers_for_inputs_before_it_parks() -> None:
    async def agent(run: Run) -> Any:
        return await run.call(add, 1, 2)

    desk = Desk()
    desk.answers_at_once = False
    wait = desk.wait

    def waiting(seconds: float) -> None:
        wait(seconds)
        desk.deliver()

    desk.wait = waiting  # type: ignore[method-assign]
    assert desk.run(agent, linger=0.5).value == 3
    assert desk.parked is None


def test_a_short_sleep_does_not_park() -> None:
    async def agent(run: Run) -> str:
        await run.sleep(0.3)
        return "slept"

    desk = Desk()
    assert desk.run(agent, linger=0.5).value == "slept"
    assert desk.parked is None
    assert sum(desk.waited) <= 0.31


def test_a_log_that_has_grown_is_read_instead_of_parking() -> None:
    async def agent(run: Run) -> Any:
        return await run.wait_for("go")

    desk = Desk()
    park = desk.park

    def parking(*, seen: int, due_ms: int | None, waits: Sequence[str], rest_ms: int) -> bool:
        if len(desk.log) == 1:
            desk.tell(Signal(name="go", id="1", payload="just in time"))
        return park(seen=seen, due_ms=due_ms, waits=waits, rest_ms=rest_ms)

    desk.park = parking  # type: ignore[method-assign]
    assert desk.run(agent).value == "just in time"


@pytest.mark.parametrize(("cost_ms", "rest_ms"), [(0, 0), (90, 0), (400, 800), (60_000, 30_000)])
def test_a_run_rests_in_proportion_to_its_replay(cost_ms: int, rest_ms: int) -> None:
    desk = Desk()

    async def agent(run: Run) -> Any:
        desk.clock_ms += cost_ms
        return await run.wait_for("go")

    assert desk.run(agent).kind == "parked"
    assert desk.parked is not None
    assert desk.parked["rest_ms"] == rest_ms


def test_a_changed_agent_sends_nothing() -> None:
    async def agent(run: Run) -> Any:
        return await run.wait_for("go", timeout=await run.call(add, 1, 2))

    async def changed(run: Run) -> Any:
        return await run.call(add, 1, 3)

    desk = Desk()
    assert desk.run(agent).kind == "parked"
    before = list(desk.log)
    end = desk.run(changed)
    assert isinstance(end.error, ReplayMismatch)
    assert end.torn, "what it had asked for ends with it"
    assert desk.log == before


def test_what_was_given_up_before_it_was_sent_gets_its_end_here() -> None:
    async def agent(run: Run) -> Any:
        lost = asyncio.create_task(run.call(shout, "lost"))
        kept = asyncio.create_task(run.call(add, 1, 1))
        await run.wait_for("go")
        lost.cancel()
        return await kept

    desk = Desk()
    desk.tell(Signal(name="go", id="1", payload=None))
    assert desk.run(agent).value == 2
    (batch,) = desk.batches
    assert [effect.ask.name for effect in batch.asks] == ["shout", "add"]
    assert [effect.ask.name for effect in batch.dispatch] == ["add"]
    assert [(result.id, result.status) for result in batch.results] == [(batch.asks[0].ask.id, "revoked")]


def test_events_of_the_last_moment_go_out_before_the_end() -> None:
    async def agent(run: Run) -> str:
        asyncio.create_task(run.call(add, 1, 2))  # noqa: RUF006
        await asyncio.sleep(0)
        run.emit("bye")
        return "done"

    desk = Desk()
    end = desk.run(agent)
    assert end.value == "done"
    (batch,) = desk.batches
    assert [effect.ask.name for effect in batch.dispatch] == ["bye"]
    assert end.cancels == (), "the call was never sent"


def test_the_end_names_what_is_left_open() -> None:
    async def agent(run: Run) -> str:
        asyncio.create_task(run.call(add, 1, 2))  # noqa: RUF006
        await run.sleep(0.001)
        return "done"

    desk = Desk()
    desk.answers_at_once = False
    end = desk.run(agent, linger=1)
    assert end.value == "done"
    assert end.cancels == tuple(effect.ask.id for effect in desk.batches[0].asks)


def test_continuing_as_new_carries_the_signals_that_came_meanwhile() -> None:
    async def agent(run: Run) -> Any:
        if await run.wait_for("more", bool):
            run.continue_as_new()
        return [await run.wait_for("n", int), await run.wait_for("n", int)]

    desk = Desk()
    for number, (name, payload) in enumerate([("n", 1), ("more", True), ("n", 2), ("more", False)]):
        desk.tell(Signal(name=name, id=str(number), payload=payload))
    assert desk.run(agent).kind == "restarted"
    assert [type(decode(line)).__name__ for line in desk.log] == ["Start", "Ask", "Signal", "Signal", "Signal"]
    assert desk.run(agent).value == [1, 2]


def test_a_large_result_is_read_where_it_lies() -> None:
    async def agent(run: Run) -> Any:
        return await run.call(add, 1, 2)

    desk = Desk()
    desk.answers_at_once = False
    assert desk.run(agent).kind == "parked"
    ask = next(entry for entry in map(decode, desk.log) if isinstance(entry, Ask))
    desk.tell(Result(id=ask.id, status="ok", large=True))
    desk.load_result = lambda ask_id: {ask.id: 3}[ask_id]  # type: ignore[method-assign]
    assert desk.run(agent).value == 3


def test_who_lost_the_run_stops_at_once() -> None:
    seen: list[str] = []

    async def agent(run: Run) -> None:
        try:
            await run.call(add, 1, 2)
        finally:
            seen.append("left")

    desk = Desk()

    def refused(batch: Batch) -> Sequence[bytes]:
        raise StaleHolder(step="x", run_id="r", holder="other", take=2, mine="me", my_take=1)

    desk.send = refused  # type: ignore[method-assign]
    with pytest.raises(StaleHolder):
        desk.run(agent)
    assert seen == ["left"]


def test_a_result_that_came_twice_is_seen_once() -> None:
    async def agent(run: Run) -> Any:
        return await run.call(add, 1, 2), await run.call(add, 1, 2)

    desk = Desk()
    desk.answers_at_once = False
    desk.run(agent)
    ask = next(entry for entry in map(decode, desk.log) if isinstance(entry, Ask))
    desk.tell(ok(ask.id, 3))
    desk.tell(ok(ask.id, 3))
    desk.run(agent)
    assert len([entry for entry in map(decode, desk.log) if isinstance(entry, Ask)]) == 2


async def _awaited(effect: Effect) -> Any:
    args, kwargs = effect.calls[0]
    return await effect.target(*args, **kwargs)


def _pass_a_second(desk: Desk, seen: int) -> Sequence[bytes]:
    desk.clock_ms += 1000
    return desk.log[seen:]
