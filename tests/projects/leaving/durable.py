"""The app with agentq: ``double`` and ``total`` are steps, ``plain_double`` a task, ``ask_first`` an agent."""

from __future__ import annotations

import os

from agentq import AgentQ, Run
from tests.projects.leaving import functions

URL = os.environ["AGENTQ_REDIS_URL"]
app = AgentQ("leaving", broker=os.environ.get("LEAVING_BROKER", URL), backend=URL)
app.conf.task_default_queue = "leaving"


@app.step(name="leaving.double")
def double(n: int) -> int:
    return functions.double(n)


@app.step(name="leaving.total")
def total(numbers: list[int]) -> int:
    return functions.total(numbers)


@app.task(name="leaving.plain_double", shared=False)
def plain_double(n: int) -> int:
    return functions.double(n)


@app.task(name="leaving.late_double", shared=False, acks_late=True, reject_on_worker_lost=True)
def late_double(n: int) -> int:
    return functions.double(n)


@app.task(name="leaving.plain_total", shared=False)
def plain_total(numbers: list[int]) -> int:
    return functions.total(numbers)


@app.agent(name="leaving.ask_first")
async def ask_first(run: Run, n: int) -> int:
    if await run.ask("Go on?", bool):
        return await run.call(double, n)
    return 0
