"""A failed or cancelled run takes back what it did."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import pytest

from agentq.core.errors import TurnTimeout
from agentq.core.journal import Result, ok
from agentq.runtime.machine import CANCEL_PATIENCE_S
from agentq.runtime.overrun import within
from agentq.runtime.run import Run
from tests.properties.replay_world import FakeStep
from tests.unit.runtime.scripted import Script, add, replayed


def _unpublish(title: str) -> None: ...


def _publish(title: str) -> str:
    return title


unpublish: Any = FakeStep(_unpublish, name="unpublish")
publish: Any = FakeStep(_publish, name="publish", undo=unpublish)
post: Any = FakeStep(_publish, name="post", undo=_unpublish)


async def _publish_two_and_fail(run: Run) -> None:
    await run.call(publish, "one")
    await run.call(add, 1, 2)
    await run.call(publish, "two")
    raise ValueError("second thoughts")


def test_a_failure_takes_back_last_first_and_then_ends_the_run() -> None:
    script = Script(_publish_two_and_fail).finish("publish", "one").finish("add", 3).finish("publish", "two")
    undo = script.open("unpublish")
    assert (undo.ask.kind, undo.calls) == ("undo", [(["two"], {})])
    script.finish("unpublish", None)
    assert script.open("unpublish").calls == [(["one"], {})]
    assert replayed(script).names == script.names
    script.finish("unpublish", None)
    assert str(script.outcome.error) == "second thoughts"


def test_an_agent_that_calls_sys_exit_takes_back_what_it_did() -> None:
    async def agent(run: Run) -> None:
        await run.call(publish, "one")
        sys.exit(3)

    script = Script(agent).finish("publish", "one").finish("unpublish", None)
    assert str(script.outcome.error).endswith("failed: SystemExit: sys.exit(3)")


@pytest.mark.parametrize("status", [-241, -255])
def test_a_worker_that_is_told_to_end_takes_nothing_back(status: int) -> None:
    async def agent(run: Run) -> None:
        await run.call(publish, "one")
        sys.exit(status)

    script = Script(agent)
    with pytest.raises(SystemExit):
        script.finish("publish", "one")
    assert script.names == ["publish"]


def test_a_run_that_succeeds_takes_nothing_back() -> None:
    async def agent(run: Run) -> str:
        return await run.call(publish, "one")

    script = Script(agent).finish("publish", "one")
    assert script.value == "one"
    assert script.names == ["publish"]


def test_a_cancelled_run_waits_for_what_still_runs() -> None:
    async def agent(run: Run) -> None:
        await run.call(publish, "one")

    script = Script(agent).cancel()
    assert [effect.ask.name for effect in script.machine.asks.take_given_up()] == ["publish"]
    assert script.names == ["publish"], "its effect may come late"
    script.finish("publish", "one")
    assert script.names == ["publish", "unpublish"]
    assert script.finish("unpublish", None).outcome.kind == "cancelled"


def test_a_second_cancel_does_not_stop_the_undo() -> None:
    async def agent(run: Run) -> None:
        await run.call(publish, "one")
        await run.sleep(100)

    script = Script(agent).finish("publish", "one").cancel().cancel()
    assert script.finish("unpublish", None).outcome.kind == "cancelled"


def test_what_never_started_is_not_taken_back() -> None:
    async def agent(run: Run) -> None:
        await run.call(publish, "one")

    script = Script(agent).cancel().revoke("publish")
    assert script.outcome.kind == "cancelled"
    assert script.names == ["publish"]


def test_a_step_that_failed_has_started() -> None:
    async def agent(run: Run) -> None:
        await run.call(publish, "one")

    assert Script(agent).fail("publish").names == ["publish", "unpublish"]


def test_an_undo_that_fails_is_noted_and_the_next_goes_on() -> None:
    script = Script(_publish_two_and_fail).finish("publish", "one").finish("add", 3).finish("publish", "two")
    script.fail("unpublish", "gone")
    script.finish("unpublish", None)
    error = script.outcome.error
    assert str(error) == "second thoughts"
    assert error is not None
    assert "gone" in error.__notes__[0]


def test_members_of_a_map_that_started_are_taken_back() -> None:
    async def agent(run: Run) -> None:
        await run.map(publish, ["a", "b", "c"], return_exceptions=True)
        raise ValueError("no")

    members = [ok("0", "a"), Result(id="1", status="revoked"), ok("2", "c")]
    script = Script(agent).join("publish", members)
    assert script.open("unpublish").calls == [(["c"], {})]
    script.finish("unpublish", None)
    assert script.open("unpublish").calls == [(["a"], {})]
    assert script.finish("unpublish", None).outcome.kind == "error"


def test_a_plain_function_is_called_in_place() -> None:
    async def agent(run: Run) -> None:
        await run.call(post, "one")
        raise ValueError("no")

    script = Script(agent).finish("post", "one")
    effect = script.open("_unpublish")
    assert effect.ask.kind == "local"
    assert effect.calls == [(("one",), {})]
    assert script.machine.asks.open_locals
    assert script.finish("_unpublish", None).outcome.kind == "error"


def test_a_step_that_was_given_up_before_it_was_sent_is_recorded_all_the_same() -> None:
    async def agent(run: Run) -> None:
        task = asyncio.create_task(run.call(publish, "one"))
        await asyncio.sleep(0)
        task.cancel()
        await run.sleep(0)
        raise ValueError("no")

    script = Script(agent)
    assert [(effect.ask.name, effect.cancelled) for effect in script.asked] == [("publish", True)]
    other = replayed(script)
    assert other.names == ["publish"]
    assert other.revoke("publish").outcome.kind == "error"


def test_what_an_agent_has_done_is_taken_back_when_it_is_left() -> None:
    async def agent(run: Run) -> None:
        await run.call(publish, "a")
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await run.sleep(10)

    script = Script(agent).finish("publish", "a").cancel().pass_to(CANCEL_PATIENCE_S)
    assert script.names == ["publish", "unpublish"]
    assert script.finish("unpublish", None).outcome.kind == "cancelled"


def test_an_agent_that_computes_for_too_long_fails_and_its_undo_runs() -> None:
    async def agent(run: Run) -> None:
        await run.call(publish, "a")
        with contextlib.suppress(Exception):
            while True:
                pass

    script = Script(agent)
    within(0.1, lambda: script.finish("publish", "a"))
    assert script.names == ["publish", "unpublish"]
    script.finish("unpublish", None)
    assert isinstance(script.outcome.error, TurnTimeout)
    assert "for 60 s without an await" in str(script.outcome.error)
    assert "AGENTQ_TURN_LIMIT" in str(script.outcome.error)


def test_a_revoked_step_that_had_started_is_taken_back() -> None:
    script = Script(_publish_two_and_fail)
    script.tell(Result(id=script.open("publish").ask.id, status="revoked", ran=True))
    assert script.names == ["publish", "unpublish"]
