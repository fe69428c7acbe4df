"""How a run ends, is cancelled, is dropped and goes on as new."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from agentq.core.errors import NotInRun, RunCancelled, UsageError
from agentq.core.journal import Ask, Signal, Start, ok
from agentq.runtime.machine import CANCEL_PATIENCE_S
from agentq.runtime.run import Run
from tests.properties.replay_world import RUN_ID, START_MS, machine_of
from tests.unit.runtime.scripted import Script, add, replayed, shout


def test_what_the_agent_raises_ends_the_run() -> None:
    async def agent(run: Run) -> NoReturn:
        raise ValueError("no")

    outcome = Script(agent).outcome
    assert outcome.kind == "error"
    assert isinstance(outcome.error, ValueError)


def test_a_cancel_is_a_cancelled_error_in_the_agents_main_task() -> None:
    seen: list[str] = []

    async def agent(run: Run) -> None:
        try:
            await run.call(add, 1, 2)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    script = Script(agent).cancel("not wanted")
    assert script.outcome.kind == "cancelled"
    assert isinstance(script.outcome.error, RunCancelled)
    assert script.outcome.error.why == "not wanted"
    assert seen == ["cancelled"]
    assert [effect.ask.name for effect in script.machine.asks.still_open()] == ["add"]


def test_an_agent_may_clean_up_after_a_cancel_or_go_on() -> None:
    async def agent(run: Run) -> str:
        try:
            await run.sleep(100)
        except asyncio.CancelledError:
            return str(await run.call(shout, "bye"))
        return "slept"

    script = Script(agent).cancel()
    assert script.names == ["shout"]
    assert script.finish("shout", "BYE").value == "BYE"


def test_an_agent_that_goes_on_after_a_cancel_is_left() -> None:
    seen: list[str] = []

    async def agent(run: Run) -> None:
        try:
            while True:
                try:
                    await run.sleep(10)
                except asyncio.CancelledError:
                    seen.append("swallowed")
        finally:
            with pytest.raises(NotInRun):
                run.now()
            seen.append("left")

    script = Script(agent).cancel("not wanted").pass_to(CANCEL_PATIENCE_S - 1)
    assert script.machine.outcome is None
    script.pass_to(1)
    assert script.outcome.kind == "cancelled"
    assert seen == ["swallowed", "left"]
    assert replayed(script).outcome.kind == "cancelled"


def test_an_agent_that_cancels_itself_has_failed() -> None:
    async def agent(run: Run) -> None:
        raise asyncio.CancelledError

    outcome = Script(agent).outcome
    assert outcome.kind == "error"
    assert "cancelled itself" in str(outcome.error)


def test_a_wait_that_nothing_can_end_is_an_error() -> None:
    async def agent(run: Run) -> None:
        await asyncio.Event().wait()

    outcome = Script(agent).outcome
    assert isinstance(outcome.error, UsageError)
    assert "nothing can bring" in str(outcome.error)


def test_dropped_it_runs_its_finally_blocks_and_its_run_refuses() -> None:
    seen: list[str] = []

    async def branch(run: Run, name: str) -> None:
        try:
            await run.call(shout, name)
        finally:
            seen.append(name)
            try:
                run.emit("left")
            except NotInRun:
                seen.append("refused")
            await run.call(shout, "again")

    async def agent(run: Run) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(branch(run, "a"))
                group.create_task(branch(run, "b"))
        finally:
            seen.append("agent")
            await asyncio.sleep(1)
            seen.append("never")

    script = Script(agent)
    script.machine.drop()
    assert sorted(seen) == ["a", "agent", "b", "refused", "refused"]
    assert not script.machine.asks.take()
    script.machine.drop()


def test_a_coroutine_that_will_not_end_is_left(caplog: pytest.LogCaptureFixture) -> None:
    patience = [2000]

    async def agent(run: Run) -> None:
        while patience[0]:
            patience[0] -= 1
            with contextlib.suppress(GeneratorExit):
                await asyncio.sleep(1)

    script = Script(agent)
    script.machine.drop()
    assert "does not end" in caplog.text
    patience[0] = 0


def test_an_agent_that_is_dropped_sees_no_error_of_its_own() -> None:
    seen: list[BaseException] = []

    async def agent(run: Run) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(run.sleep(9))
                await run.sleep(9)
        except Exception as error:
            seen.append(error)
            raise

    script = Script(agent)
    script.machine.drop()
    assert not seen


def test_dropping_says_nothing_of_pending_tasks(caplog: pytest.LogCaptureFixture) -> None:
    async def agent(run: Run) -> None:
        asyncio.create_task(run.sleep(5))  # noqa: RUF006
        await run.sleep(9)

    script = Script(agent)
    script.machine.drop()
    del script
    assert not caplog.records


def test_what_is_left_open_ends_with_the_run() -> None:
    async def agent(run: Run) -> str:
        asyncio.create_task(run.call(add, 1, 2))  # noqa: RUF006
        await run.call(shout, "a")
        run.emit("last words")
        return "done"

    script = Script(agent)
    assert script.finish("shout", "A", take=False).value == "done"
    assert script.machine.asks.has_news
    assert [effect.ask.name for effect in script.machine.asks.still_open()] == ["add"]


def test_it_continues_as_new_with_the_signals_that_nobody_took() -> None:
    async def agent(run: Run) -> None:
        await run.wait_for("number", int)
        await run.call(add, 1, 2)
        run.continue_as_new(7, more=True)

    script = Script(agent).signal("number", 1).signal("other", "x").signal("number", 2).finish("add", 3)
    outcome = script.outcome
    assert outcome.kind == "restart"
    assert outcome.value == ((7,), {"more": True})
    mark, *signals = outcome.carry
    assert isinstance(mark, Ask)
    assert [(each.name, each.payload) for each in signals if isinstance(each, Signal)] == [
        ("other", "x"),
        ("number", 2),
    ]


def test_the_next_log_begins_with_them_and_means_other_steps() -> None:
    async def agent(run: Run) -> Any:
        if not await run.call(add, 1, 2):
            run.continue_as_new()
        return await run.wait_for("number", int), run.random()

    first = Script(agent).signal("number", 5).finish("add", 0)
    second = Script(agent, start=False)
    for entry in first.outcome.carry:
        if isinstance(entry, Ask):
            second.machine.record(entry)
    second.tell(Start(version="1"))
    for entry in first.outcome.carry:
        if not isinstance(entry, Ask):
            second.tell(entry)
    assert second.machine.asks.segment == 1
    assert second.asked[0].ask.id != first.asked[0].ask.id
    # The old step's result may still come: it is nobody's.
    second.tell(ok(first.asked[0].ask.id, 9))
    number, _ = second.finish("add", 3).value
    assert number == 5


def test_continuing_as_new_is_for_the_agents_own_function() -> None:
    async def branch(run: Run) -> None:
        run.continue_as_new()

    async def agent(run: Run) -> None:
        await asyncio.gather(branch(run))

    assert "own function" in str(Script(agent).outcome.error)


def test_a_large_result_is_wanted_only_while_somebody_waits() -> None:
    async def agent(run: Run) -> None:
        await run.call(add, 1, 2)
        await run.sleep(1)

    script = Script(agent)
    ask_id = script.open("add").ask.id
    assert script.machine.wants(ok(ask_id, None))
    script.finish("add", 3)
    assert not script.machine.wants(ok(ask_id, None))
    assert not script.machine.wants(ok("stranger", None))


def test_a_second_result_changes_nothing() -> None:
    async def agent(run: Run) -> Any:
        first = await run.call(add, 1, 2)
        await run.sleep(1)
        return first

    script = Script(agent)
    ask_id = script.open("add").ask.id
    script.finish("add", 3).tell(ok(ask_id, 4))
    assert script.pass_to(1).value == 3


def test_a_thousand_local_calls_make_a_journal_that_grows_evenly() -> None:
    async def agent(run: Run) -> int:
        total = 0
        for _ in range(1000):
            total = await run.local(_next, total)
        return total

    script = Script(agent)
    for number in range(1000):
        script.finish("_next", number + 1)
    assert script.value == 1000
    assert len(script.log) == 2001
    assert replayed(script).value == 1000


def _next(number: int) -> int:
    return number + 1


def test_its_steps_have_the_runs_id_in_theirs() -> None:
    async def agent(run: Run) -> None:
        await run.call(add, 1, 2)

    first, other = Script(agent), Script(agent)
    assert first.asked[0].ask.id == other.asked[0].ask.id
    assert first.asked[0].ask.id != RUN_ID


def test_a_forks_timers_pass_over_the_time_between_it_and_its_origin() -> None:
    seen: list[float] = []

    async def agent(run: Run) -> str:
        async with asyncio.timeout(60):
            await run.call(add, 1, 2)
            seen.append(run.now().timestamp() * 1000)
            return str(await run.call(shout, "bye"))

    day = 24 * 3600 * 1000
    machine = machine_of(agent)
    machine.feed(Start(t=START_MS, version="1", origin="another", lags=((2, day),)))
    (call,) = machine.asks.take()
    assert machine.next_due_ms == START_MS + 60_000
    machine.feed(replace(ok(call.ask.id, 3), t=START_MS + 1000))
    (call,) = machine.asks.take()
    assert machine.next_due_ms == START_MS + 60_000 + day
    machine.feed(replace(ok(call.ask.id, "BYE"), t=START_MS + 2000 + day))
    assert machine.outcome is not None
    assert machine.outcome.value == "BYE"
    assert seen == [START_MS + 1000]
