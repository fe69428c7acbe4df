"""Steps that need a GPU, a region or nothing, and pools for them that code declares."""

from __future__ import annotations

from datetime import timedelta

from agentq import AgentQ, Needs, Run
from agentq.core.errors import NoPoolFor, UnknownPool

app = AgentQ("placed")

app.declare_pool("plain", kind="threads", concurrency=4, max_waiting=8)
app.declare_pool("eu", kind="threads", concurrency=4, tags={"gpu": "a100", "region": "eu"}, cost_per_hour=4)
app.declare_pool(
    "us", kind="threads", concurrency=4, tags={"gpu": "a100", "region": "us"}, cost_per_hour=2, time_limit="90s"
)
app.declare_pool("small", kind="threads", concurrency=4, tags={"disk": "nvme"}, time_limit="20s", hard_time_limit="25s")

A100 = Needs(gpu="a100")


def here() -> str:
    """Return the name of the worker that runs the attempt."""
    return str(app.current_task.request.hostname).partition("@")[0]


@app.step(needs=A100)
def large(number: int = 0) -> str:
    """Say where it ran."""
    return here()


@app.step(pool="small")
def small(number: int = 0) -> str:
    """Say where it ran."""
    return here()


@app.step(pool="plain")
def plain(number: int = 0) -> str:
    """Say where it ran."""
    return here()


@app.step(pool="plain", timeout=timedelta(seconds=5))
def limited(number: int = 0) -> str:
    """Say where it ran."""
    return here()


@app.agent(pool="plain", version="1")
async def ranging(run: Run, members: int) -> list[str]:
    """Ask for what it needs from within: the places of a call of each kind, then of a fan-out."""
    first = [
        await run.call(plain),
        await run.call(plain.using(needs=A100)),
        await run.call(small.using(needs=Needs(region="eu"))),
    ]
    return first + await run.map(large, range(members))


@app.agent(pool="eu", version="1")
async def wide(run: Run, members: int) -> int:
    """Fan out over a pool in which few may wait."""
    return len(await run.map(plain, range(members)))


@app.agent(pool="plain", version="1")
async def asking(run: Run) -> list[str]:
    """Ask for what nobody has, and go on."""
    found = []
    for needs in (Needs(gpu="h100"), Needs(region="mars")):
        try:
            await run.call(plain.using(needs=needs))
        except NoPoolFor as refused:
            found.append(",".join(refused.needs.values()))
    try:
        await run.map(plain.using(pool="plein"), [1, 2])
    except UnknownPool as unknown:
        found.append(unknown.name)
    return found
