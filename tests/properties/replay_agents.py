"""Random agents: programs of everything that asyncio and a `Run` offer, built from random choices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, cast

from agentq.core.errors import RunError
from agentq.runtime.run import Run
from tests.properties.replay_world import FakeStep

Part = Callable[[Run], Coroutine[Any, Any, Any]]


def _answer(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number * 10


def _withdraw(number: int) -> None: ...


WITHDRAW: Any = FakeStep(_withdraw, name="withdraw")
STEPS: Any = [
    FakeStep(_answer, name="search"),
    FakeStep(_answer, name="read"),
    FakeStep(_answer, name="publish", undo=WITHDRAW),
    FakeStep(_answer, name="post", undo=_withdraw),
]
SIGNALS = ("go", "stop")


def part_of(rng: Random, *, depth: int = 3, cancels: bool = True) -> Part:
    """A random part of an agent; without `cancels` nothing in it gives up a call that is under way."""
    leaves = [_call, _call, _call, _map, _question, _local, _sleep, _chance, _signal if cancels else _call]
    trees = [_sequence, _gather, _group, _ordered]
    if cancels:
        trees += [_timeout, _first, _first]
    if depth == 0 or rng.random() < 0.2:
        return cast("Callable[[Random], Part]", rng.choice(leaves))(rng)
    parts = [part_of(rng, depth=depth - 1, cancels=cancels) for _ in range(rng.randint(1, 3))]
    return cast("Callable[[Random, list[Part]], Part]", rng.choice(trees))(rng, parts)


def _call(rng: Random) -> Part:
    step, number = rng.choice(STEPS), rng.randint(0, 3)

    async def part(run: Run) -> Any:
        try:
            return await run.call(step, number)
        except RunError as error:
            return str(error)

    return part


def _map(rng: Random) -> Part:
    step, numbers = rng.choice(STEPS), [rng.randint(0, 3) for _ in range(rng.randint(0, 3))]

    async def part(run: Run) -> Any:
        run.emit("mapping", count=len(numbers))
        return [str(each) for each in await run.map(step, numbers, return_exceptions=True)]

    return part


def _question(rng: Random) -> Part:
    seconds = rng.choice((1, 30))

    async def part(run: Run) -> Any:
        return await run.ask("How long?", int, timeout=seconds, default=None)

    return part


def _local(rng: Random) -> Part:
    number = rng.randint(0, 2)

    def look(at: int) -> int:
        return at + 100

    async def part(run: Run) -> Any:
        return await run.local(look, number)

    return part


def _sleep(rng: Random) -> Part:
    seconds = rng.choice((0, 0.01, 0.3, 5))

    async def part(run: Run) -> Any:
        await run.sleep(seconds)
        return run.now().isoformat()

    return part


def _chance(rng: Random) -> Part:
    then = _call(rng)

    async def part(run: Run) -> Any:
        drawn = run.random()
        return [drawn, await then(run)] if drawn < 0.5 else drawn

    return part


def _signal(rng: Random) -> Part:
    name, seconds = rng.choice(SIGNALS), rng.choice((0.2, 3))

    async def part(run: Run) -> Any:
        try:
            return await run.wait_for(name, int, timeout=seconds)
        except TimeoutError:
            return "no signal"

    return part


def _sequence(rng: Random, parts: list[Part]) -> Part:
    async def part(run: Run) -> Any:
        return [await each(run) for each in parts]

    return part


def _gather(rng: Random, parts: list[Part]) -> Part:
    async def part(run: Run) -> Any:
        return await asyncio.gather(*(each(run) for each in parts))

    return part


def _group(rng: Random, parts: list[Part]) -> Part:
    async def part(run: Run) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each(run)) for each in parts]
        return [task.result() for task in tasks]

    return part


def _timeout(rng: Random, parts: list[Part]) -> Part:
    seconds = rng.choice((0, 0.05, 0.5, 4))

    async def part(run: Run) -> Any:
        seen: list[Any] = []
        try:
            async with asyncio.timeout(seconds):
                for each in parts:
                    seen.append(await each(run))
        except TimeoutError:
            seen.append("late")
            seen.append(await _call(Random(len(seen)))(run))
        return seen

    return part


def _first(rng: Random, parts: list[Part]) -> Part:
    keeps = rng.random() < 0.5

    async def part(run: Run) -> Any:
        done, rest = await asyncio.wait(
            {asyncio.create_task(each(run)) for each in parts}, return_when=asyncio.FIRST_COMPLETED
        )
        # The order of these sets is the agent's to rely on: the steps that follow take their numbers from it.
        found = [task.result() for task in done]
        for number, task in enumerate(rest):
            if keeps:
                found.append(await task)
            else:
                task.cancel()
                found.append(await run.call(STEPS[0], number % 3))
        return found

    return part


def _ordered(rng: Random, parts: list[Part]) -> Part:
    async def part(run: Run) -> Any:
        waiting: list[Awaitable[Any]] = [asyncio.create_task(each(run)) for each in parts]
        found = []
        for number, next_one in enumerate(asyncio.as_completed(waiting)):
            found.append(await next_one)
            found.append(await run.call(STEPS[1], number % 3))
        return found

    return part
