"""An app whose agents and canvases meet in joins: wide ones, first-wins, failures, bodies of every kind."""

from __future__ import annotations

import time
from collections.abc import Sequence

from agentq import AgentQ, Budget, Run
from agentq.core.errors import JoinFailed

app = AgentQ("joins")


@app.step
def double(number: int) -> int:
    return 2 * number


@app.step
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.step
def numbers_below(limit: int) -> list[int]:
    return list(range(limit))


@app.step
def peek(numbers: Sequence[int]) -> list[str | int]:
    """What a body gets, its length, its last item and the sum of the rest."""
    return [type(numbers).__name__, len(numbers), numbers[-1], sum(numbers[:-1])]


@app.step
def untyped(numbers):  # type: ignore[no-untyped-def]
    """What a body without a hint gets."""
    return [type(numbers).__name__, sum(numbers)]


@app.step
def late(words: Sequence[int]) -> str:
    """A body whose items do not fit."""
    try:
        return f"no error: {list(words)}"
    except ValueError as error:
        return str(error)


@app.step
def word() -> str:
    return "word"


@app.step
def bad(number: int) -> int:
    raise ValueError(f"bad {number}")


@app.celery.task
def plain(numbers):  # type: ignore[no-untyped-def]
    """A body of stock Celery."""
    return [type(numbers).__name__, sum(numbers)]


@app.agent
async def summing(run: Run, numbers: list[int]) -> int:
    """An agent as a body."""
    return await run.call(total, numbers) + len(numbers)


@app.agent
async def fan(run: Run, size: int) -> int:
    """The sum of the doubled numbers below ``size``."""
    return sum(await run.map(double, range(size)))


@app.step
def answer(number: int) -> int:
    """Succeeds at once for an odd number, fails for one that 4 divides, and takes its time for the others."""
    if number % 4 == 0:
        raise ValueError(f"bad {number}")
    time.sleep(30 * (number % 2 == 0))
    return number


@app.agent
async def first_of(run: Run, numbers: list[int], need: int) -> list[int] | str:
    """The first answers, or why there are too few."""
    try:
        return await run.map(answer, numbers, need=need)
    except JoinFailed as failed:
        return str(failed)


@app.step(compression="gzip")
def squeezed(number: int) -> int:
    """A step whose messages are Celery's own, as they are compressed."""
    return 2 * number


@app.agent
async def fan_squeezed(run: Run, size: int) -> int:
    """The sum of the doubled numbers below ``size``."""
    return sum(await run.map(squeezed, range(size)))


@app.agent(budget=Budget(steps=505))
async def poor(run: Run, size: int) -> int:
    """How many members of a fan-out are refused for the budget."""
    found = await run.map(double, range(size), return_exceptions=True)
    return sum(isinstance(each, BaseException) for each in found)


celery = app.celery
