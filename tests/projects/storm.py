"""Runs of every shape for the crash campaign: each has one right result, however often its attempts are killed."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from celery import chain, chord, group

from agentq import AgentQ, Breaker, Budget, Limit, Rate, Retry, Run, Zombies, this_step
from agentq.engine.messages import HEDGED
from agentq.engine.this_step import current_attempt

app = AgentQ("storm")

LULL = timedelta(seconds=3.5)
"""After that most runs of a round have ended, and workers are free for hedges."""

PAUSE = 0.02
"""Seconds that a step takes: long enough to be killed in."""


@app.step
def work(number: int) -> int:
    time.sleep(PAUSE)
    return number + 1


@app.step
async def work_async(number: int) -> int:
    await asyncio.sleep(PAUSE)
    return number + 1


@app.step
def double(number: int) -> int:
    return 2 * number


@app.step
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.step(retry=Retry(attempts=5, wait=timedelta(milliseconds=50)))
def stubborn(number: int) -> int:
    """Fails twice on purpose; what was killed is not tried one time less for it."""
    if this_step.attempt < 3:
        raise ConnectionError(f"attempt {this_step.attempt}")
    return number


@app.step(
    limit=Limit("storm", slots=2),
    rate=Rate("storm", requests="40/s", tokens="400/s", in_flight=3),
    breaker=Breaker(
        "storm",
        volume=4,
        window=timedelta(seconds=2),
        reset_after=timedelta(milliseconds=300),
        probes=2,
        on=(ConnectionError,),
    ),
    estimate=10,
    retry=Retry(attempts=5, wait=timedelta(milliseconds=600), factor=1),
)
def guarded(number: int) -> int:
    """Every second one fails once, which opens the breaker now and then; its second try is a timer's."""
    time.sleep(PAUSE)
    if number % 2 == 0 and this_step.attempt == 1:
        raise ConnectionError("the first time")
    this_step.spend(tokens_in=3)
    return number + 1


@app.agent(version="1", budget=Budget(steps=1000, attempts=100_000, tokens=1_000_000))
async def bounded(run: Run, size: int) -> int:
    """Steps within limits of every kind, some of which are full all the time."""
    return sum(await run.map(guarded, list(range(size))))


@app.step
def unfold(numbers: list[int]) -> Any:
    """Replaced by a chord: its successor keeps its id and its place."""
    return unfold.replace(chord([work.s(number) for number in numbers], total.s()))


@app.step
def stop(number: int) -> int:
    raise ValueError(f"stopped at {number}")


@app.step
def retract(number: int) -> None:
    time.sleep(PAUSE)


@app.step(undo=retract)
def promise(number: int) -> int:
    time.sleep(PAUSE)
    return number


@app.agent(version="1")
async def chained(run: Run, length: int) -> int:
    """One step after another, some in place."""
    value = 0
    for _ in range(length):
        value = await run.call(work, value)
        value = await run.local(lambda number: number + 1, value)
        value = await run.call(work_async, value)
    return value


@app.agent(version="1")
async def wide(run: Run, size: int) -> list[int]:
    """A fan-out."""
    return list(await run.map(double, list(range(size))))


@app.agent(version="1")
async def nested(run: Run, depth: int, width: int) -> int:
    """A fan-out of agents that fan out."""
    if depth == 0:
        return await run.call(total, list(await run.map(work, list(range(width)))))
    inner = await run.starmap(nested, [(depth - 1, width)] * width)
    return await run.call(total, list(inner))


@app.agent(version="1")
async def tree(run: Run, depth: int, width: int) -> int:
    """Counts its spawned descendants and itself."""
    if depth == 0:
        return await run.call(work, 0)
    children = [await run.spawn(tree, depth - 1, width) for _ in range(width)]
    return 1 + sum([await child.result() for child in children])


@app.agent(version="1")
async def heard(run: Run, count: int, chunk: int, so_far: list[int]) -> list[int]:
    """Signals in their order, over several journals."""
    for _ in range(min(chunk, count - len(so_far))):
        so_far = [*so_far, await run.wait_for("number", int)]
    if len(so_far) < count:
        run.continue_as_new(count, chunk, so_far)
    return so_far


@app.agent(version="1")
async def parked(run: Run, seconds: float) -> list[str]:
    """Waits for time, for a word and for a person."""
    await run.sleep(timedelta(seconds=seconds))
    word = await run.wait_for("word", str)
    answer = await run.ask("On?", bool)
    await run.sleep(timedelta(seconds=seconds))
    return [word, str(answer)]


@app.agent(version="1")
async def canvas(run: Run, width: int) -> list[int]:
    """Chords in chords, a chain around a group, a replaced step, a step that is retried."""
    inner = chord([chain(work.s(n), double.s()) for n in range(width)], total.s())
    outer = chord([inner, chain(work.s(1), group(work.s(), double.s()), total.s())], total.s())
    return list(await run.gather(outer, unfold.s(list(range(width))), run.call(stubborn, 7)))


@app.agent(version="1")
async def mixed(run: Run, size: int) -> list[int]:
    """Branches that sleep, call in place and call steps, beside a fan-out and a child run."""

    async def branch(number: int) -> int:
        await run.sleep(timedelta(milliseconds=run.random.randrange(1, 50)))
        return await run.call(double, await run.local(lambda value: value + 1, number))

    async with asyncio.TaskGroup() as tasks:
        branches = [tasks.create_task(branch(number)) for number in range(size)]
        child = tasks.create_task(run.call(chained, 1))
        mapped = tasks.create_task(run.map(work, list(range(size))))
    return [sum(task.result() for task in branches), child.result(), sum(mapped.result())]


@app.step
def echo(text: str) -> str:
    time.sleep(PAUSE)
    return text


@app.agent(version="1")
async def heavy(run: Run, size: int) -> int:
    """Arguments and results that are too large for a message and for the journal."""
    text = await run.local(lambda: "x" * size)
    for _ in range(2):
        text = await run.call(echo, text)
    return sum(len(each) for each in await run.map(echo, [text] * 3))


@app.agent(version="1")
async def doomed(run: Run, depth: int) -> None:
    """Never ends by itself, and is cancelled with its children, its steps and what it promised."""
    below = [asyncio.create_task(run.call(doomed, depth - 1))] if depth else []
    await run.call(promise, depth)
    await run.map(work, list(range(8)))
    await asyncio.gather(run.wait_for("never", bool), *below)


@app.agent(version="1")
async def undone(run: Run, count: int) -> None:
    """Fails, and what it did is undone in reverse."""
    for number in range(count):
        await run.call(promise, number)
    await run.call(stop, count)


# -- what stands still, what is done twice, and what is not


@app.agent(version="1", zombies=Zombies(repeats=3))
async def circling(run: Run, calls: int) -> list[int]:
    """Gets nowhere, and is stopped for it again and again; each time somebody lets it go on."""
    return [await run.call(double, 1) for _ in range(calls)]


def _pause_of(quick: float) -> float:
    """Seconds that an attempt takes: a first one is slower than its hedge is awaited."""
    attempt = current_attempt.get()
    return quick if attempt is not None and HEDGED in attempt.ours else 1.5


@app.step(hedge_after=timedelta(milliseconds=150))
def hedged(number: int) -> int:
    time.sleep(_pause_of(0.0))
    return number + 1


@app.step(hedge_after=timedelta(milliseconds=150), retry=Retry(attempts=3, wait=timedelta(milliseconds=20)))
async def hedged_async(number: int) -> int:
    """Fails first, in the hedge too: one of them is tried again while the other runs."""
    await asyncio.sleep(_pause_of(0.3))
    if this_step.attempt == 1 and number % 2:
        raise ConnectionError("the first time")
    return number + 1


@app.agent(version="1", budget=Budget(steps=1000))
async def twice(run: Run, size: int) -> int:
    """Steps that are done twice, and count once; where others wait for a worker there are none."""
    await run.sleep(LULL)
    slow = run.map(hedged, list(range(size)))
    return sum(await slow) + sum(await run.map(hedged_async, list(range(size))))


@app.step(cache=timedelta(seconds=2), limit=Limit("kept", slots=2))
def kept(number: int) -> int:
    time.sleep(10 * PAUSE)
    return number + 1


@app.step(cache=timedelta(seconds=2), hedge_after=timedelta(milliseconds=150))
def kept_and_hedged(number: int) -> int:
    time.sleep(_pause_of(0.0))
    return number + 1


@app.agent(version="1")
async def remembered(run: Run, size: int) -> int:
    """The same calls many times: who makes an answer may die over it, and the next one makes it."""
    numbers = [number % 3 for number in range(size)]
    again = run.map(kept_and_hedged, numbers)
    return sum(await run.map(kept, numbers)) + sum(await again)
