"""The kit for users' own tests: runs in this process, and journals replayed."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, ParamSpec

import pytest
from celery import group
from pydantic import BaseModel

from agentq import AgentQ, Run
from agentq.core.errors import JournalUnreadable, ReplayMismatch, StepFailed, UsageError
from agentq.core.retry import Retry
from agentq.testing import check_replay, run_here

P = ParamSpec("P")

app = AgentQ("here")


def runs(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make an `async def` test one that pytest runs."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Page(BaseModel):
    """A step's result."""

    title: str


@app.step(name="here.fetch")
async def fetch(title: str) -> Page:
    await asyncio.sleep(0)
    return Page(title=title)


@app.step(name="here.add")
def add(a: int, b: int) -> int:
    return a + b


@app.step(name="here.fail")
def fail(words: str) -> None:
    raise ValueError(words)


@app.agent(name="here.child", version="1")
async def child(run: Run, title: str) -> Page:
    return await run.call(fetch, title)


@app.agent(name="here.everything", version="1")
async def everything(run: Run, titles: list[str]) -> list[str]:
    pages = await run.map(fetch, titles)
    own = await run.call(child, "child")
    spawned = await run.spawn(child, "spawned")
    local = await run.local(lambda: "local")
    run.emit("half way", done=len(pages))
    await run.sleep(timedelta(days=365))
    return [*(page.title for page in pages), own.title, (await spawned.result()).title, local]


@runs
async def test_everything_runs_in_this_process(tmp_path: Path) -> None:
    found = await run_here(everything, ["a", "b"], journal=tmp_path / "journal")
    assert found == ["a", "b", "child", "spawned", "local"]
    again = check_replay(everything, tmp_path / "journal")
    assert again.ended
    assert again.new == ()
    assert again.asked == 5


@runs
async def test_steps_run_on_the_tests_own_loop() -> None:
    loops: list[Any] = []

    async def stand_in(title: str) -> Page:
        loops.append(asyncio.get_running_loop())
        return Page(title=f"fake {title}")

    found = await run_here(child, "x", stand_ins={fetch: stand_in})
    assert found == Page(title="fake x")
    assert loops == [asyncio.get_running_loop()]


@runs
async def test_a_stand_in_may_be_named_and_stand_for_an_agent() -> None:
    found = await run_here(everything, [], stand_ins={"here.child": lambda title: Page(title="no run")})
    assert found == ["no run", "no run", "local"]


@runs
async def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="titles"):
        await run_here(everything, 7)


@runs
async def test_what_the_agent_raises_is_raised() -> None:
    @app.agent(name="here.failing")
    async def failing(run: Run) -> None:
        await run.call(fail, "no")

    with pytest.raises(StepFailed, match="no"):
        await run_here(failing)


@runs
async def test_retries_and_fallbacks_are_made_without_waiting() -> None:
    tries: list[int] = []

    @app.step(name="here.shaky", retry=Retry(attempts=3, wait=timedelta(hours=1)))
    def shaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")
        return len(tries)

    @app.step(name="here.saved", retry=Retry(attempts=2), fallback=lambda: "saved")
    def saved() -> str:
        raise ConnectionError("never")

    @app.agent(name="here.stubborn")
    async def stubborn(run: Run) -> Any:
        return await run.call(shaky), await run.call(saved)

    assert await run_here(stubborn) == [3, "saved"]


@runs
async def test_signals_answers_and_time_outs() -> None:
    @app.agent(name="here.talk")
    async def talk(run: Run) -> list[Any]:
        name = await run.wait_for("name", str)
        sure = await run.ask(f"Sure, {name}?", bool)
        size = await run.ask("How large?", int, timeout=timedelta(days=9), default=3)
        return [name, sure, size, await run.wait_for("name", str)]

    found = await run_here(
        talk, answers={"Sure, Ada?": lambda question: question.endswith("?")}, signals={"name": ["Ada", "Bob"]}
    )
    assert found == ["Ada", True, 3, "Bob"]


@runs
async def test_what_is_missing_is_named() -> None:
    @app.agent(name="here.missing")
    async def missing(run: Run) -> None:
        await run.ask("Really?", bool)

    @app.agent(name="here.waiting")
    async def waiting(run: Run) -> None:
        await run.wait_for("go")

    with pytest.raises(UsageError, match=r"Really\?"):
        await run_here(missing)
    with pytest.raises(UsageError, match="'go'"):
        await run_here(waiting, signals={"stop": [1]})


@runs
async def test_it_continues_as_new() -> None:
    @app.agent(name="here.countdown")
    async def countdown(run: Run, number: int) -> list[int]:
        if number:
            await run.call(add, 1, 1)
            run.continue_as_new(number - 1)
        return [await run.wait_for("n", int), await run.call(add, 1, 1)]

    assert await run_here(countdown, 3, signals={"n": [7]}) == [7, 2]


@runs
async def test_what_was_done_is_taken_back() -> None:
    done: list[str] = []

    def remove(name: str) -> None:
        done.append(f"-{name}")

    @app.step(name="here.put", undo=remove)
    def put(name: str) -> None:
        done.append(f"+{name}")

    @app.agent(name="here.regret")
    async def regret(run: Run) -> None:
        await asyncio.gather(run.call(put, "a"), run.call(put, "b"))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await run_here(regret)
    assert done == ["+a", "+b", "-b", "-a"]


@runs
async def test_canvas_runs_in_place() -> None:
    @app.agent(name="here.canvas")
    async def canvas(run: Run) -> list[Any]:
        return await run.gather(add.s(1, 2), group(add.s(1, 1), add.s(2, 2)), run.call(add, 5, 5))

    assert await run_here(canvas) == [3, [2, 4], 10]


@runs
async def test_the_tests_loop_stays_free() -> None:
    here = threading.get_ident()
    seen: list[int] = []

    @app.agent(name="here.free")
    async def free(run: Run) -> None:
        seen.append(threading.get_ident())
        await run.call(fetch, "x")

    await run_here(free)
    assert seen != [here]


@runs
async def test_a_changed_agent_does_not_replay(tmp_path: Path) -> None:
    file = tmp_path / "journal"

    @app.agent(name="here.changing", version="1")
    async def before(run: Run) -> int:
        return await run.call(add, 1, 2)

    @AgentQ("later").agent(name="here.changing", version="1")
    async def after(run: Run) -> int:
        return await run.call(add, 2, 2)

    await run_here(before, journal=file)
    with pytest.raises(ReplayMismatch, match=r"here\.add"):
        check_replay(after, file)


@runs
async def test_a_newer_version_may_add_a_step(tmp_path: Path) -> None:
    file = tmp_path / "journal"

    @app.agent(name="here.growing", version="1")
    async def before(run: Run) -> int:
        return await run.call(add, 1, 2)

    @AgentQ("later").agent(name="here.growing", version="2")
    async def after(run: Run) -> int:
        page = await run.call(fetch, "new")
        return len(page.title) + await run.call(add, 1, 2)

    await run_here(before, journal=file)
    found = check_replay(after, file)
    assert not found.ended
    assert "here.fetch" in found.new[0]


@runs
async def test_a_strange_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    await run_here(child, "x", journal=file)
    with pytest.raises(UsageError, match=r"here\.child"):
        check_replay(everything, file)
    file.write_text('{"agentq_journal": 99}\n')
    with pytest.raises(JournalUnreadable, match="99"):
        check_replay(child, file)
    file.write_text("")
    with pytest.raises(JournalUnreadable):
        check_replay(child, file)


@app.agent(name="here.fastest")
async def fastest(run: Run, titles: list[str]) -> list[Page]:
    return await run.map(fetch, titles, need=1)


@runs
async def test_a_map_that_needs_some_takes_the_first_that_succeed() -> None:
    def stand_in(title: str) -> Page:
        if title == "a":
            raise ValueError(title)
        return Page(title=title)

    found = await run_here(fastest, ["a", "b", "c"], stand_ins={fetch: stand_in})
    assert [page.title for page in found] == ["b"]
