"""agentq: the same tasks as durable steps, and agents for what is a chain or a chord in stock Celery."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from agentq import AgentQ, Run
from benchmarks.apps import ADDRESS, address

STEPS_OF_A_RUN = 20
"""Steps of the runs that are measured."""


def make(url: str) -> AgentQ:
    """Return an app at ``url`` with the steps and agents of the measurements."""
    app = AgentQ("durable", broker=url, set_as_current=False)

    @app.step(name="nothing")
    def nothing() -> None:
        """Do nothing."""

    @app.step(name="increment")
    def increment(number: int) -> int:
        return number + 1

    @app.step(name="identity")
    def identity(number: int) -> int:
        return number

    @app.step(name="payload")
    def payload(number: int) -> str:
        return str(number % 10) * 1024

    @app.step(name="total")
    def total(numbers: Sequence[int]) -> int:
        return sum(numbers)

    @app.step(name="length")
    def length(texts: Sequence[str]) -> int:
        return len(texts)

    @app.step(name="pause")
    async def pause(seconds: float) -> None:
        await asyncio.sleep(seconds)

    def plus_one(number: int) -> int:
        return number + 1

    @app.agent(name="dispatched")
    async def dispatched(run: Run) -> int:
        number = 0
        for _ in range(STEPS_OF_A_RUN):
            number = await run.call(increment, number)
        return number

    @app.agent(name="local")
    async def local(run: Run) -> int:
        number = 0
        for _ in range(STEPS_OF_A_RUN):
            number = await run.local(plus_one, number)
        return number

    @app.agent(name="fan")
    async def fan(run: Run, size: int) -> int:
        return sum(await run.map(identity, range(size)))

    @app.agent(name="waiting")
    async def waiting(run: Run) -> str:
        return await run.wait_for("go", str)

    return app


if ADDRESS in os.environ:
    app = make(address())
