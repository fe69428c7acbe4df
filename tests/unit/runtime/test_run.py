"""What an agent may ask of its run."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agentq.core.errors import InvalidArguments, JoinFailed, NotInRun, StepFailed, UsageError
from agentq.core.ids import step_id
from agentq.core.journal import Result, ok
from agentq.runtime.child_run import ChildRun
from agentq.runtime.run import Run
from tests.properties.replay_world import RUN_ID, START_MS, FakeStep
from tests.unit.runtime.scripted import Script, add, replayed, shout


class Card(BaseModel):
    """A value with a type."""

    name: str


def _make_card(name: str) -> Card:
    return Card(name=name)


make_card: Any = FakeStep(_make_card, name="make_card")


def test_a_call_is_asked_for_and_its_result_comes_typed() -> None:
    async def agent(run: Run) -> Any:
        return await run.call(make_card, "Ada")

    script = Script(agent)
    ask = script.asked[0].ask
    assert (ask.kind, ask.name, ask.after) == ("call", "make_card", 1)
    assert ask.id == step_id(RUN_ID, ask.key)
    assert script.asked[0].calls == [(["Ada"], {})]
    assert script.finish("make_card", {"name": "Ada"}).value == Card(name="Ada")


def test_same_calls_are_told_apart_by_their_number() -> None:
    async def agent(run: Run) -> Any:
        return await asyncio.gather(*(run.call(add, 1, 2) for _ in range(3)))

    script = Script(agent)
    assert [effect.ask.key.rsplit("/")[-1] for effect in script.asked] == ["0", "1", "2"]
    assert len({effect.ask.id for effect in script.asked}) == 3


def test_a_wrong_argument_is_refused_before_anything_is_asked() -> None:
    async def agent(run: Run) -> Any:
        with pytest.raises(InvalidArguments, match='"b"'):
            await run.call(add, 1, "two")
        return "refused"

    script = Script(agent)
    assert script.value == "refused"
    assert not script.asked


def test_what_is_no_step_is_refused() -> None:
    async def agent(run: Run) -> Any:
        with pytest.raises(UsageError, match=r"@app\.step"):
            await run.call(print, "x")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"@app\.step"):
            await run.map(str, [1])
        with pytest.raises(UsageError, match="starts agents"):
            await run.spawn(add, 1, 2)

    assert Script(agent).value is None


def test_a_failed_step_raises_what_it_says() -> None:
    async def agent(run: Run) -> Any:
        try:
            return await run.call(add, 1, 2)
        except StepFailed as error:
            return error.error_type, error.message

    assert Script(agent).fail("add", "no").value == ("ValueError", "no")


def test_a_result_that_does_not_fit_its_hint_is_an_error() -> None:
    async def agent(run: Run) -> Any:
        return await run.call(add, 1, 2)

    script = Script(agent).finish("add", "three")
    assert script.outcome.kind == "error"
    assert "add" in str(script.outcome.error)


def test_a_map_is_one_ask_and_gives_its_results_in_order() -> None:
    async def agent(run: Run) -> Any:
        return await run.map(shout, ["a", "b"]), await run.map(shout, [])

    script = Script(agent)
    assert script.asked[0].ask.members == 2
    assert script.asked[0].calls == [(["a"], {}), (["b"], {})]
    assert script.join("shout", [ok("0", "A"), ok("1", "B")]).value == (["A", "B"], [])


def test_a_failed_member_fails_the_map_with_the_first_failure() -> None:
    async def agent(run: Run) -> Any:
        try:
            return await run.starmap(add, [(1, 2), (3, 4), (5, 6)])
        except JoinFailed as error:
            return error.succeeded, error.size, str(error)

    wire = StepFailed(step="add", step_id="x", error_type="ValueError", message="first").to_wire()
    members = [ok("0", 3), Result(id="1", status="error", value=wire), Result(id="2", status="revoked")]
    succeeded, size, words = Script(agent).join("add", members).value
    assert (succeeded, size) == (1, 3)
    assert "first" in words


def test_a_map_may_give_its_failures_among_the_results() -> None:
    async def agent(run: Run) -> Any:
        return await run.map(shout, ["a", "b"], return_exceptions=True)

    found = Script(agent).join("shout", [ok("0", "A"), Result(id="1", status="revoked")]).value
    assert found[0] == "A"
    assert isinstance(found[1], StepFailed)


def test_a_map_that_needs_some_gives_the_winners() -> None:
    async def agent(run: Run) -> Any:
        return await run.map(shout, ["a", "b", "c"], need=2)

    assert Script(agent).join("shout", [ok("1", "B"), ok("2", "C")], at=(2, 1)).value == ["B", "C"]


def test_a_map_of_which_too_few_succeed_has_failed() -> None:
    async def agent(run: Run) -> Any:
        try:
            return await run.map(shout, ["a", "b"], need=2)
        except JoinFailed as error:
            return error.succeeded, error.need, error.size

    assert Script(agent).join("shout", [ok("0", "A"), Result(id="1", status="revoked")]).value == (1, 2, 2)


@pytest.mark.parametrize("options", [{"need": 0}, {"need": 3}, {"need": 1, "return_exceptions": True}])
def test_a_need_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    async def agent(run: Run) -> Any:
        await run.map(shout, ["a", "b"], **options)

    assert isinstance(Script(agent).outcome.error, UsageError)


def test_gather_takes_awaitables_and_signatures() -> None:
    class Signature(dict[str, Any]):
        def apply_async(self) -> None: ...
        def freeze(self) -> None: ...

    async def agent(run: Run) -> Any:
        return await run.gather(run.call(add, 1, 2), Signature(task="flow", args=[1]))

    script = Script(agent)
    assert [effect.ask.kind for effect in script.asked] == ["canvas", "call"]
    assert script.finish("flow", "done").finish("add", 3).value == [3, "done"]


def test_a_local_call_is_an_ask_with_its_own_function() -> None:
    async def agent(run: Run) -> Any:
        def read(path: Path) -> bytes:
            return path.read_bytes()

        return await run.local(len, "four"), await run.local(lambda: {"a": (1, 2)})

    script = Script(agent)
    assert script.asked[0].ask.kind == "local"
    assert script.machine.asks.open_locals
    script.finish("len", 4).finish("<lambda>", {"a": [1, 2]})
    assert script.value == (4, {"a": [1, 2]})


def test_a_local_calls_arguments_must_be_the_same_in_a_replay() -> None:
    async def agent(run: Run) -> Any:
        with pytest.raises(InvalidArguments, match="JSON"):
            await run.local(id, object())
        return "refused"

    assert Script(agent).value == "refused"


def test_now_is_the_time_of_the_last_input_and_sleep_is_a_timer() -> None:
    async def agent(run: Run) -> Any:
        before = run.now()
        await run.sleep(timedelta(days=3))
        return before, run.now()

    script = Script(agent)
    assert script.machine.next_due_ms == START_MS + 1 + 3 * 86_400_000
    before, after = script.pass_to(4 * 86_400).value
    assert before == datetime.fromtimestamp((START_MS + 1) / 1000, UTC)
    assert after - before == timedelta(days=4)


def test_random_numbers_are_the_runs_own() -> None:
    async def agent(run: Run) -> Any:
        return run.random(), run.random.choice(range(1000)), run.random.randrange(10)

    assert Script(agent).value == Script(agent).value


def test_signals_wait_in_their_order_and_by_name() -> None:
    async def agent(run: Run) -> Any:
        await run.call(add, 1, 2)
        return [await run.wait_for("a", int), await run.wait_for("b"), await run.wait_for("a", int)]

    script = Script(agent).signal("a", 1).signal("a", 2).finish("add", 3)
    assert script.machine.waits == ["b"]
    assert script.signal("b", {"free": "form"}).value == [1, {"free": "form"}, 2]


def test_a_signal_that_comes_with_the_time_out_is_late_by_log_order() -> None:
    async def agent(run: Run) -> Any:
        try:
            return await run.wait_for("go", timeout=10)
        except TimeoutError:
            return "late", await run.wait_for("go")

    assert Script(agent).tell(_signal(), after_ms=9_999).value == "x"
    assert Script(agent).tell(_signal(), after_ms=10_000).value == ("late", "x")


def test_a_signal_is_not_lost_between_two_waits() -> None:
    async def agent(run: Run) -> Any:
        first = asyncio.create_task(run.wait_for("go"))
        second = asyncio.create_task(run.wait_for("go"))
        await run.call(add, 1, 2)
        first.cancel()
        return await second

    script = Script(agent)
    script.signal("go", "kept")
    assert script.finish("add", 3).machine.outcome is None
    assert script.signal("go", "later").value == "later"


def test_a_signal_of_the_wrong_type_is_told_where_it_is_read() -> None:
    async def agent(run: Run) -> Any:
        with pytest.raises(InvalidArguments, match="go"):
            await run.wait_for("go", int)
        return await run.wait_for("go", int)

    assert Script(agent).signal("go", "seven").signal("go", 7).value == 7


def test_a_question_carries_its_type_and_takes_an_answer() -> None:
    async def agent(run: Run) -> Any:
        return await run.ask("Publish?", bool)

    script = Script(agent)
    ask = script.asked[0].ask
    assert (ask.kind, ask.question, ask.answer_schema) == ("ask", "Publish?", {"type": "boolean"})
    assert script.answer(True).value is True


def test_an_unanswered_question_closes_with_its_default() -> None:
    async def agent(run: Run) -> Any:
        answer = await run.ask("Publish?", bool, timeout=timedelta(days=3), default=None)
        await run.sleep(1)
        return answer

    script = Script(agent).pass_to(3 * 86_400)
    assert [effect.ask.question for effect in script.machine.asks.take_given_up()] == ["Publish?"]
    assert script.pass_to(1).value is None


def test_without_a_default_the_time_out_is_raised() -> None:
    async def agent(run: Run) -> Any:
        with pytest.raises(TimeoutError):
            await run.ask("Publish?", bool, timeout=1)
        return "nobody"

    assert Script(agent).pass_to(1).value == "nobody"


def test_an_event_is_recorded_once() -> None:
    async def agent(run: Run) -> Any:
        run.emit("chapter", number=1)
        await run.sleep(1)

    script = Script(agent)
    assert [(each.ask.kind, each.ask.name, each.fields) for each in script.asked] == [
        ("emit", "chapter", {"number": 1})
    ]
    assert not replayed(script).machine.asks.take()


def test_a_spawned_run_has_an_id_at_once_and_a_result_later() -> None:
    child_agent: Any = FakeStep(_make_card, name="child")
    child_agent.kind = "agent"

    async def agent(run: Run) -> Any:
        child: ChildRun[Card] = await run.spawn(child_agent, "Ada")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await child.result()
        return child.id, await child.result()

    script = Script(agent)
    assert script.asked[0].ask.kind == "spawn"
    script.pass_to(1)
    assert not script.machine.asks.take_given_up(), "giving up the wait leaves the child alone"
    assert script.finish("child", {"name": "Ada"}).value == (script.asked[0].ask.id, Card(name="Ada"))


def test_a_spawned_run_that_fails_unheard_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    child_agent: Any = FakeStep(_make_card, name="child")
    child_agent.kind = "agent"

    async def agent(run: Run) -> Any:
        await run.spawn(child_agent, "Ada")
        await run.sleep(1)

    assert Script(agent).fail("child").pass_to(1).value is None
    assert not caplog.records


def test_a_given_up_call_is_called_off() -> None:
    async def agent(run: Run) -> Any:
        try:
            async with asyncio.timeout(5):
                await run.call(add, 1, 2)
        except TimeoutError:
            await run.sleep(1)

    script = Script(agent).pass_to(5)
    assert [effect.ask.name for effect in script.machine.asks.take_given_up()] == ["add"]
    assert not script.machine.asks.take_given_up()


def test_who_the_run_is() -> None:
    async def agent(run: Run) -> Any:
        return run.id, run.agent, run.version, run.key, run.tenant, repr(run)

    assert Script(agent).value == (RUN_ID, "subject", "1", None, None, f"<Run {RUN_ID} of 'subject'>")


def test_outside_its_loop_a_run_refuses_everything() -> None:
    held: list[Run] = []

    async def agent(run: Run) -> None:
        held.append(run)
        await run.sleep(1)

    script = Script(agent)
    run = held[0]
    for use in (run.now, lambda: run.random, lambda: run.emit("x"), lambda: run.continue_as_new()):
        with pytest.raises(NotInRun):
            use()
    for make in (
        lambda: run.call(add, 1, 2),
        lambda: run.map(shout, ["a"]),
        lambda: run.gather(),
        lambda: run.local(print),
        lambda: run.sleep(1),
        lambda: run.wait_for("x"),
        lambda: run.ask("x"),
        lambda: run.spawn(add, 1, 2),
    ):
        with pytest.raises(NotInRun, match="inside a run"):
            asyncio.run(make())
    assert script.pass_to(1).value is None


def _signal() -> Any:
    from agentq.core.journal import Signal

    return Signal(name="go", id="1", payload="x")
