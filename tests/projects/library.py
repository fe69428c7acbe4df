"""Steps and agents in the manner of ``shared_task``: whichever app loads this module has them.

The names are fixed, so that the same tests run over an AgentQ app and over one that agentq was installed in.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from agentq import Retry, Run, agent, step
from tests.kit.notes import note


@step(name="library.add")
def add(a: int, b: int) -> int:
    return a + b


@step(name="library.double")
def double(number: int) -> int:
    return 2 * number


@step(name="library.total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@step(name="library.numbers_below")
def numbers_below(limit: int) -> list[int]:
    return list(range(limit))


@step(name="library.double_async")
async def double_async(number: int) -> int:
    return 2 * number


@step(name="library.broken")
def broken(message: str) -> int:
    raise ValueError(message)


@step(name="library.noted")
def noted(path: str, line: str) -> str:
    note(path, line)
    return line


@step(name="library.note_result")
def note_result(result: Any, path: str) -> None:
    note(path, f"result {result}")


@step(name="library.note_error")
def note_error(request: Any, error: Any, traceback: Any, path: str) -> None:
    """An errback of Celery's newer signature."""
    note(path, f"error {type(error).__name__}")


@step(name="library.note_failed_id")
def note_failed_id(task_id: str, *, path: str) -> None:
    """An errback of Celery's older signature: one positional argument."""
    note(path, f"failed {task_id}")


@step(name="library.sum_or_add", bind=True)
def sum_or_add(self: Any, numbers: list[int]) -> int:
    """Replaces itself until two numbers are left."""
    if len(numbers) > 1:
        raise self.replace(sum_or_add.s([numbers[0] + numbers[1], *numbers[2:]]))
    return numbers[0]


@step(name="library.replaced_by_chord", bind=True)
def replaced_by_chord(self: Any, limit: int) -> int:
    """Stands in for a fan-out and its sum."""
    from celery import chord

    raise self.replace(chord([double.s(number) for number in range(limit)], total.s()))


@step(name="library.retried", bind=True, max_retries=5)
def retried(self: Any, path: str, failures: int) -> int:
    """Asks for its own retry, Celery's way; returns how many there were."""
    note(path, "attempt")
    if self.request.retries < failures:
        raise self.retry(countdown=0.05)
    return int(self.request.retries)


@step(name="library.flaky", retry=Retry(attempts=4, wait=timedelta(milliseconds=20)))
def flaky(path: str, failures: int) -> int:
    """Fails as often as told; returns the number of the attempt that succeeded."""
    note(path, "attempt")
    attempts = len(Path(path).read_text().splitlines())
    if attempts <= failures:
        raise ConnectionError(f"attempt {attempts}")
    return attempts


@step(name="library.retried_out", bind=True, max_retries=1)
def retried_out(self: Any, path: str) -> int:
    note(path, "attempt")
    try:
        raise ConnectionError("no route")
    except ConnectionError as error:
        raise self.retry(exc=error, countdown=0.05) from error


@step(name="library.autoretried", autoretry_for=(ConnectionError,), max_retries=3, default_retry_delay=0.05)
def autoretried(path: str, failures: int) -> int:
    """Celery's own automatic retry."""
    note(path, "attempt")
    attempts = len(Path(path).read_text().splitlines())
    if attempts <= failures:
        raise ConnectionError(f"attempt {attempts}")
    return attempts


@step(name="library.sleeps")
def sleeps(path: str, seconds: float) -> str:
    """Notes what became of it."""
    note(path, "started")
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        note(path, "told to stop")
        raise
    note(path, "ended")
    return "ended"


@step(name="library.impatient", timeout=timedelta(seconds=0.5))
def impatient(path: str) -> None:
    note(path, "started")
    time.sleep(30)


@step(name="library.impatient_async", timeout=timedelta(seconds=0.5))
async def impatient_async(path: str) -> None:
    note(path, "started")
    await asyncio.sleep(30)


@step(name="library.whoami", bind=True)
def whoami(self: Any) -> dict[str, Any]:
    """What a task may ask of its request."""
    request = self.request
    return {
        "id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "queue": request.delivery_info["routing_key"],
        "retries": request.retries,
        "said": (request.headers or {}).get("said"),
    }


@agent(name="library.fan", version="1")
async def fan(run: Run, limit: int) -> int:
    numbers = await run.call(numbers_below, limit)
    doubled = await run.map(double, numbers)
    return await run.call(total, list(doubled))


@agent(name="library.double_agent", version="1")
async def double_agent(run: Run, number: int) -> int:
    return await run.call(double, number)


@step(name="library.leave")
def leave(status: int) -> int:
    sys.exit(status)


@step(name="library.fork")
def fork(path: str) -> list[int]:
    """Return what the parent sees; the child comes out of the function as well."""
    child = os.fork()
    if child == 0:
        return []
    note(path, str(child))
    _, status = os.waitpid(child, 0)
    return [os.waitstatus_to_exitcode(status)]


@step(name="library.interrupt")
def interrupt() -> int:
    raise KeyboardInterrupt


@agent(name="library.leaving", version="1")
async def leaving(run: Run, status: int) -> int:
    await run.call(add, 1, 2)
    sys.exit(status)


@agent(name="library.asking_anew", version="1")
async def asking_anew(run: Run, rounds: int) -> int:
    if rounds > 0:
        asked = asyncio.ensure_future(run.ask("Still there?", bool))
        await run.call(add, 1, 2)
        assert not asked.done()
        run.continue_as_new(rounds - 1)
    return rounds
