"""An app whose agents and canvases meet in joins: wide ones, first-wins, failures, bodies of every kind."""

from __future__ import annotations

from agentq import AgentQ, Budget, Run

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


@app.agent
async def fan(run: Run, size: int) -> int:
    """The sum of the doubled numbers below ``size``."""
    return sum(await run.map(double, range(size)))


@app.agent(budget=Budget(steps=505))
async def poor(run: Run, size: int) -> int:
    """How many members of a fan-out are refused for the budget."""
    found = await run.map(double, range(size), return_exceptions=True)
    return sum(isinstance(each, BaseException) for each in found)


celery = app.celery
