"""What an editor knows of an agent's calls. mypy reads this file; each ignored error must be one."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from agentq import AgentQ, Run
from agentq.testing import run_here

app = AgentQ("types")


@app.step(pool="tools")
def read(path: str, size: int = 3) -> list[int]:
    return [len(path), size]


@app.step
async def write(path: str) -> str:
    return path


@app.agent(version="1")
async def other(run: Run, number: int) -> float:
    return float(number)


def _bytes(number: int) -> bytes:
    return bytes(number)


async def _numbers(number: int) -> set[int]:
    return {number}


@app.agent
async def knows_its_results(run: Run, question: str) -> None:
    assert_type(await run.call(read, "a"), list[int])
    assert_type(await run.call(write, "a"), str)
    assert_type(await run.call(other, 1), float)
    assert_type(await run.call(read.using(priority="high"), "a", size=2), list[int])
    assert_type(await run.map(write, ["a"]), list[str])
    assert_type(await run.map(write, ["a"], return_exceptions=True), list[str | BaseException])
    assert_type(await run.map(read, ["a"]), list[list[int]])
    assert_type(await run.starmap(read, [("a", 1)]), list[list[int]])
    assert_type(await run.local(_bytes, 1), bytes)
    assert_type(await run.local(_numbers, 1), set[int])
    assert_type(await run.ask(question, bool), bool)
    assert_type(await run.ask(question, bool, timeout=timedelta(days=1), default=False), bool)
    assert_type(await run.ask(question, bool, timeout=timedelta(days=1), default=None), bool | None)
    assert_type(await run.wait_for("x", int), int)
    assert_type(await (await run.spawn(other, 4)).result(), float)
    assert_type(await run_here(other, 1), float)


@app.agent
async def refuses_wrong_arguments(run: Run) -> None:
    await run.call(read, 7)  # type: ignore[arg-type]
    await run.call(read, "a", sze=1)  # type: ignore[call-arg]
    await run.call(read)  # type: ignore[call-arg]
    await run.map(write, [7])  # type: ignore[arg-type]
    await run.map(other, ["x"], return_exceptions=True)  # type: ignore[call-overload]
    await run.spawn(other, "x")  # type: ignore[arg-type]
    await run.local(_bytes, "x")  # type: ignore[call-overload]
    other.start("x")  # type: ignore[arg-type]


def test_the_types_were_read_by_mypy() -> None:
    assert knows_its_results.name == "knows_its_results"
