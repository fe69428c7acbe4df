"""Steps with pools, needs and queues of their own; the pools stand in a file that the tests write."""

from __future__ import annotations

from agentq import AgentQ, Needs, Run

app = AgentQ("routed")

POOLS = """
[pools.cpu]
concurrency = 1
[pools.small]
concurrency = 1
tags = { gpu = "l4", vram_gb = "24" }
[pools.large]
concurrency = 1
tags = { gpu = "a100", vram_gb = "80" }
"""


@app.step
def bare(number: int) -> int:
    return number


@app.step(pool="cpu")
def pooled(number: int) -> int:
    return number + 1


@app.step(needs=Needs(gpu="a100"))
def needy(number: int) -> int:
    return number


@app.step(queue="own", pool="cpu", needs=Needs(gpu="a100"))
def queued(number: int) -> int:
    return number


@app.step(pool="small", needs=Needs(vram_gb=16))
def fitting(number: int) -> int:
    return number


@app.agent(pool="small", version="1")
async def travelling(run: Run, number: int) -> int:
    """Thinks in one pool, works in another, and sends one call to a third."""
    here = await run.call(pooled, number)
    return await run.call(pooled.using(pool="large"), here)
