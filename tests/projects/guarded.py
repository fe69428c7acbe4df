"""Steps with breakers, rates, limits and budgets, which note when each of their attempts began and ended."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentq import AgentQ, Breaker, Budget, Limit, Rate, Retry, Run, Usage, this_step
from tests.kit.notes import note

app = AgentQ("guarded")


def gone(path: str) -> bool:
    return Path(path).exists()


@app.step(limit=Limit("account:{account}", slots=2))
def pay(account: str, path: str, seconds: float = 0.05) -> str:
    """Note begin and end on the account's file."""
    note(path, f"+{account}")
    time.sleep(seconds)
    note(path, f"-{account}")
    return account


@app.step(limit=Limit("tenant:{tenant}", slots=1))
def served(path: str, tenant_of_call: str) -> str:
    """Note begin and end on its tenant's file."""
    note(path, f"+{tenant_of_call}")
    time.sleep(0.03)
    note(path, f"-{tenant_of_call}")
    return tenant_of_call


@app.step(concurrency=1)
def alone(path: str, line: str) -> str:
    note(path, f"+{line}")
    time.sleep(0.02)
    note(path, f"-{line}")
    return line


@app.step(limit=Limit("gated", slots=1))
def until(path: str, gate: str) -> str:
    """Run until the gate's file is there."""
    note(path, f"{os.getpid()}")
    while not gone(gate):
        time.sleep(0.02)
    return "through"


@app.step(
    breaker=Breaker(
        "service:{name}", volume=4, window=timedelta(seconds=30), reset_after=timedelta(seconds=1), jitter=0.5, probes=2
    )
)
def call(name: str, path: str, health: str) -> str:
    """Call a service that is well while the file is there."""
    note(path, f"{time.time():.3f} {'ok' if gone(health) else 'bad'}")
    if not gone(health):
        raise ConnectionError(f"{name} is away")
    return name


@app.step(
    breaker=Breaker("slow", volume=2, slow_after=timedelta(milliseconds=20), reset_after=timedelta(hours=1)),
    fallback=lambda seconds: "fallback",
)
def slow(seconds: float) -> str:
    time.sleep(seconds)
    return "itself"


@app.step(rate=Rate("twice", requests="1000/min", in_flight=9), limit=Limit("twice", slots=4))
def limited_twice(number: int) -> int:
    return number


@app.step(rate=Rate("model:{model}", requests="1000/min", tokens="1000/min", in_flight=20), estimate=100)
def generate(model: str, tokens: int) -> int:
    this_step.spend(tokens_out=tokens, model=model)
    return tokens


# -- budgets


@app.step
def leaf(path: str) -> None:
    note(path, "leaf")


@app.agent
async def breed(run: Run, path: str) -> None:
    """Each spawns two, without an end; what is refused is let be."""
    await run.call(leaf, path)
    for _ in range(2):
        await run.spawn(breed, path)


@app.agent(budget=Budget(steps=100))
async def runaway(run: Run, path: str) -> None:
    for _ in range(2):
        await run.spawn(breed, path)


@app.step
def bacteria(path: str) -> None:
    """Each sends two more of its own, without an end."""
    note(path, "cell")
    for _ in range(2):
        bacteria.delay(path)


@app.agent(budget=Budget(steps=100))
async def dish(run: Run, path: str) -> None:
    await run.call(bacteria, path)
    await run.wait_for("enough")


@app.step(estimate=Usage(tokens_in=100), fallback=lambda number: -1)
def think(number: int) -> int:
    this_step.spend(tokens_in=100)
    return number


@app.agent(budget=Budget(tokens=300))
async def frugal(run: Run, size: int) -> list[Any]:
    return [await _outcome(run, number) for number in range(size)]


@app.agent(budget=Budget(tokens=300, on_exceeded="degrade"))
async def thrifty(run: Run, size: int) -> list[Any]:
    return [await _outcome(run, number) for number in range(size)]


@app.agent(budget=Budget(tokens=300, on_exceeded="ask"))
async def asking(run: Run, size: int) -> list[Any]:
    return [await _outcome(run, number) for number in range(size)]


async def _outcome(run: Run, number: int) -> Any:
    try:
        return await run.call(think, number)
    except Exception as error:
        return getattr(error, "limit_name", type(error).__name__)


@app.agent
async def single(run: Run) -> int:
    return 1


@app.agent(budget=Budget(steps=1, on_exceeded="ask"))
async def patient(run: Run) -> list[int]:
    return [await run.call(single), await run.call(single)]


@app.agent(budget=Budget(tokens=150, per="tenant"))
async def rented(run: Run, size: int) -> list[Any]:
    return [await _outcome(run, number) for number in range(size)]


@app.agent(budget=Budget(tokens=150, per="agent"))
async def shared(run: Run, size: int) -> list[Any]:
    return [await _outcome(run, number) for number in range(size)]


@app.agent(budget=Budget(wall=timedelta(hours=1)))
async def hurried(run: Run) -> list[Any]:
    first = await _outcome(run, 1)
    await run.wait_for("go")
    return [first, await _outcome(run, 2)]


@app.agent(budget=Budget(wall=timedelta(hours=1), on_exceeded="ask"))
async def prolonged(run: Run) -> list[Any]:
    first = await _outcome(run, 1)
    await run.wait_for("go")
    return [first, await _outcome(run, 2)]


@app.agent(budget=Budget(tokens=200))
async def modest(run: Run, size: int) -> list[Any]:
    return [await _outcome(run, number) for number in range(size)]


@app.agent(budget=Budget(tokens=10_000))
async def above(run: Run, size: int) -> list[Any]:
    """Call a sub-agent that has a budget of its own."""
    return [await run.call(modest, size), await _outcome(run, size)]


@app.agent
async def deeper(run: Run) -> str:
    return str(await _outcome(run, 1))


@app.agent(budget=Budget(width=5, depth=1, storage=200))
async def bounded(run: Run, kind: str) -> Any:
    try:
        if kind == "width":
            return await run.map(think, list(range(6)))
        if kind == "depth":
            return await run.call(deeper)
        for number in range(10):
            await run.call(think, number)
    except Exception as error:
        return str(error)
    return None


@app.agent(budget=Budget(usd="0.5"))
async def buying(run: Run) -> Any:
    def buy() -> None:
        this_step.spend(tokens_in=300_000, model="priced")

    await run.local(buy)
    first = await _outcome(run, 1)
    await run.local(buy)
    return [first, await _outcome(run, 2)]


@app.step(
    limit=Limit("spare:{name}", slots=1), breaker=Breaker("spare:{name}", volume=2, reset_after=timedelta(hours=1))
)
def spare(name: str, path: str, gate: str) -> str:
    """Answer in another's place, alone, while the file is there; without it fail."""
    note(path, f"+{name}")
    time.sleep(0.1)
    note(path, f"-{name}")
    if not gone(gate):
        raise ConnectionError(f"{name} is away as well")
    return "spare"


@app.step(fallback=spare)
def spared(name: str, path: str, gate: str) -> str:
    """Always need another in its place."""
    raise TimeoutError(f"{name} is away")


@app.step(fallback=[spare, lambda name, path, gate: "last"])
def spared_twice(name: str, path: str, gate: str) -> str:
    raise TimeoutError(f"{name} is away")


@app.step(limit=Limit("reserve", slots=1))
def reserve(path: str, gate: str) -> str:
    """Answer once the gate's file is there."""
    note(path, "reserve")
    while not gone(gate):
        time.sleep(0.02)
    return "reserve"


@app.step(
    breaker=Breaker("main", volume=1, reset_after=timedelta(hours=1)),
    retry=Retry(attempts=2, wait=timedelta(milliseconds=1)),
    fallback=reserve,
)
def reserved(path: str, gate: str) -> str:
    note(path, "main")
    raise TimeoutError("it is away")
