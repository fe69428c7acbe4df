"""Many short steps of several lanes and tenants, and an agent of every shape for what is inherited."""

from __future__ import annotations

import time

from celery import chain, group

from agentq import AgentQ, Run

app = AgentQ("crowded")


@app.step
def work(seconds: float) -> int:
    time.sleep(seconds)
    return 1


@app.step
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.agent(version="1")
async def crowd(run: Run, count: int, seconds: float) -> int:
    """Queues many steps at once."""
    return sum(await run.map(work, [seconds] * count))


@app.agent(version="1")
async def below(run: Run, count: int) -> int:
    return await run.call(work, 0.0) + sum(await run.map(work, [0.0] * count))


@app.agent(version="1")
async def shapes(run: Run) -> int:
    """Every way in which an agent asks for steps and runs; the chain's later parts are sent by its steps."""
    child = await run.spawn(below, 2)
    found = await run.gather(
        run.call(work, 0.0),
        chain(work.s(0.0), group(work.si(0.0), work.si(0.0)), total.s()),
        run.starmap(below, [(1,), (2,)]),
    )
    return len(found) + await child.result()
