"""What a replay accepts, and what it stops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentq.core.errors import ReplayMismatch
from agentq.core.journal import Ask
from agentq.runtime.run import Run
from tests.unit.runtime.scripted import Script, add, replayed, shout


async def _one_then_two(run: Run) -> Any:
    first = await run.call(add, 1, 1)
    second = await run.call(shout, "x")
    return first, second


def test_the_same_agent_goes_on_where_its_log_ends() -> None:
    script = Script(_one_then_two).finish("add", 2)
    other = replayed(script)
    assert other.log == script.log, "nothing is asked for again"
    assert other.finish("shout", "X").value == (2, "X")


def test_other_arguments_stop_it_and_both_are_named() -> None:
    async def changed(run: Run) -> Any:
        return await run.call(add, 1, 99)

    with pytest.raises(ReplayMismatch) as caught:
        replayed(Script(_one_then_two).finish("add", 2), changed)
    assert "add/" in caught.value.recorded
    assert "add/" in caught.value.asked
    assert caught.value.recorded != caught.value.asked


def test_a_step_that_is_not_made_any_more_stops_it() -> None:
    async def changed(run: Run) -> Any:
        return await run.call(add, 1, 1)

    with pytest.raises(ReplayMismatch, match="shout"):
        replayed(Script(_one_then_two).finish("add", 2), changed)


def test_a_step_that_is_asked_for_earlier_stops_it() -> None:
    async def changed(run: Run) -> Any:
        return await asyncio.gather(run.call(add, 1, 1), run.call(shout, "x"))

    with pytest.raises(ReplayMismatch, match="shout"):
        replayed(Script(_one_then_two).finish("add", 2), changed)


def test_a_new_step_before_the_last_recorded_one_stops_it() -> None:
    async def changed(run: Run) -> Any:
        return await asyncio.gather(run.call(shout, "new"), _one_then_two(run))

    with pytest.raises(ReplayMismatch, match="before it"):
        replayed(Script(_one_then_two).finish("add", 2), changed)


def test_a_new_step_after_the_last_recorded_one_is_new() -> None:
    async def changed(run: Run) -> Any:
        return [*await _one_then_two(run), await run.call(add, 5, 5)]

    other = replayed(Script(_one_then_two).finish("add", 2), changed)
    assert other.finish("shout", "X").names == ["add", "shout", "add"]


def test_the_agent_cannot_catch_it() -> None:
    async def changed(run: Run) -> Any:
        try:
            return await run.call(add, 1, 99)
        except BaseException:
            return "caught"

    with pytest.raises(ReplayMismatch):
        replayed(Script(_one_then_two).finish("add", 2), changed)


def test_an_ask_that_was_given_up_before_it_was_sent_leaves_no_trace() -> None:
    async def agent(run: Run) -> Any:
        lost = asyncio.create_task(run.call(shout, "lost"))
        await asyncio.sleep(0)
        lost.cancel()
        return await run.call(add, 1, 1)

    script = Script(agent)
    assert script.names == ["add"]
    assert replayed(script).finish("add", 2).value == 2


def test_an_ask_that_was_given_up_after_the_last_one_is_recorded_and_not_sent() -> None:
    async def agent(run: Run) -> Any:
        lost = asyncio.create_task(run.call(shout, "lost"))
        kept = asyncio.create_task(run.call(add, 1, 1))
        await run.sleep(1)
        lost.cancel()
        return await kept

    # The turn was killed before it could send anything; the next one sees both inputs before it sends.
    script = Script(agent, start=False)
    script.tell(_start(), take=False).tell(_tick(), after_ms=1000)
    assert [(effect.ask.name, effect.cancelled) for effect in script.asked] == [("shout", True), ("add", False)]
    assert replayed(script).finish("add", 2).value == 2


def test_an_ask_that_was_given_up_before_the_last_one_is_not_recorded() -> None:
    async def agent(run: Run) -> Any:
        lost = asyncio.create_task(run.call(shout, "lost"))
        await run.sleep(1)
        lost.cancel()
        return await run.call(add, 1, 1)

    script = Script(agent, start=False)
    script.tell(_start(), take=False).tell(_tick(), after_ms=1000)
    assert script.names == ["add"]
    assert replayed(script).finish("add", 2).value == 2


def test_asks_count_by_the_inputs_that_were_seen_not_by_their_place_in_the_log() -> None:
    async def agent(run: Run) -> Any:
        first = asyncio.create_task(run.call(add, 1, 1))
        waited = await run.wait_for("go")
        return waited, await first

    script = Script(agent, start=False)
    script.tell(_start(), take=False).signal("go", 1)
    places = [entry.after for entry in script.log if isinstance(entry, Ask)]
    assert places == [1]
    assert replayed(script).finish("add", 2).value == (1, 2)


def test_a_newer_version_may_ask_for_more_in_between() -> None:
    async def newer(run: Run) -> Any:
        extra = await run.call(shout, "new")
        return extra, await run.call(add, 1, 1), await run.call(shout, "x")

    script = Script(_one_then_two).finish("add", 2)
    # A step of the same name with other arguments stops it while a recorded one is unmade.
    with pytest.raises(ReplayMismatch, match="in its place"):
        replayed(script, newer, version="2")

    async def inserted(run: Run) -> Any:
        extra = await run.call(_other(), 3)
        return extra, await run.call(add, 1, 1), await run.call(shout, "x")

    moved = replayed(script, inserted, version="2")
    assert moved.names == ["twice"]
    moved.finish("twice", 6)
    assert moved.machine.outcome is None
    moved.asked = list(moved.machine.asks._effects.values())
    assert moved.finish("shout", "X").value == (6, 2, "X")


def test_a_newer_version_may_leave_steps_out() -> None:
    async def shorter(run: Run) -> Any:
        return await run.call(add, 1, 1)

    assert replayed(Script(_one_then_two).finish("add", 2), shorter, version="2").value == 2


def test_what_a_newer_version_added_replays_again() -> None:
    async def inserted(run: Run) -> Any:
        extra = await run.call(_other(), 3)
        return extra, *await _one_then_two(run)

    moved = replayed(Script(_one_then_two).finish("add", 2), inserted, version="2")
    moved.finish("twice", 6)
    again = replayed(moved, version="2")
    again.asked = list(again.machine.asks._effects.values())
    assert again.finish("shout", "X").value == (6, 2, "X")


def _other() -> Any:
    from tests.properties.replay_world import FakeStep

    def twice(number: int) -> int:
        return 2 * number

    return FakeStep(twice)


def _start() -> Any:
    from agentq.core.journal import Start

    return Start(version="1")


def _tick() -> Any:
    from agentq.core.journal import Tick

    return Tick()
