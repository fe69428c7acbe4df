"""The deterministic loop: plain asyncio works, in one order only, and nothing reaches outside."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from agentq.core.errors import UsageError
from agentq.runtime.loop import DeterministicLoop, Task

START_MS = 1_700_000_000_000


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine; when nothing is ready the clock stands at the next timer."""
    loop = DeterministicLoop(now_ms=START_MS)
    task = loop.create_task(main())
    loop.run_to_rest()
    while not task.done():
        due = loop.next_due_ms
        assert due is not None, "nothing can wake it"
        loop.advance(due)
        loop.run_to_rest()
    loop.close()
    return task.result()


async def after(seconds: float, value: Any = None) -> Any:
    await asyncio.sleep(seconds)
    return value


def test_gather_and_task_group_and_wait_for() -> None:
    async def main() -> Any:
        gathered = await asyncio.gather(after(2, "a"), after(1, "b"))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(after(number, number)) for number in range(3)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(after(9), 1)
        return gathered, [task.result() for task in tasks]

    assert run(main) == (["a", "b"], [0, 1, 2])


def test_a_time_out_is_a_timer_of_the_loop() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await asyncio.Event().wait()
        return loop.time() - began

    assert run(main) == pytest.approx(1.5, abs=0.001)


def test_locks_events_queues_conditions_and_semaphores() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        lock, event, queue = asyncio.Lock(), asyncio.Event(), asyncio.Queue[str]()
        condition, gate = asyncio.Condition(), asyncio.Semaphore(1)

        async def first() -> None:
            async with lock, gate:
                await asyncio.sleep(1)
                event.set()
            await queue.put("item")
            async with condition:
                condition.notify_all()

        async def second() -> None:
            async with condition:
                await condition.wait()
                seen.append("notified")

        async with asyncio.TaskGroup() as group:
            group.create_task(second())
            group.create_task(first())
            await event.wait()
            async with lock:
                seen.append(await queue.get())
        return seen

    assert sorted(run(main)) == ["item", "notified"]


def test_tasks_hash_by_their_number() -> None:
    async def main() -> list[int]:
        tasks = [asyncio.create_task(after(0)) for _ in range(20)]
        done, _ = await asyncio.wait(set(tasks))
        return [task.number for task in done if isinstance(task, Task)]

    numbers = run(main)
    assert numbers == run(main)
    assert len(set(numbers)) == 20


def test_as_completed_takes_tasks_and_refuses_coroutines() -> None:
    async def main() -> list[Any]:
        tasks = [asyncio.create_task(after(2, "slow")), asyncio.create_task(after(1, "fast"))]
        found = [await each for each in asyncio.as_completed(tasks)]
        with pytest.raises(UsageError, match=r"asyncio\.create_task"):
            await next(iter(asyncio.as_completed([after(1)])))
        return found

    assert run(main) == ["fast", "slow"]


def test_wait_refuses_what_gather_made() -> None:
    async def main() -> str:
        gathered = asyncio.gather(after(1))
        with pytest.raises(UsageError, match="gather"):
            await asyncio.wait([gathered, asyncio.create_task(after(1))])
        shielded = asyncio.shield(asyncio.create_task(after(1)))
        await asyncio.wait([shielded])
        await gathered
        return "done"

    assert run(main) == "done"


def test_gather_over_coroutines_is_no_as_completed() -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(asyncio.ensure_future(after(1, 1), loop=loop), after(0, 2))

    assert run(main) == [1, 2]


@pytest.mark.parametrize(
    "reach",
    [
        lambda: asyncio.to_thread(print),
        lambda: asyncio.open_connection("localhost", 1),
        lambda: asyncio.create_subprocess_exec("true"),
        lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1),
    ],
    ids=["thread", "socket", "process", "name"],
)
def test_the_outside_is_refused_with_what_to_use_instead(reach: Callable[[], Any]) -> None:
    async def main() -> None:
        with pytest.raises(UsageError, match=r"use run\.local or a step"):
            await reach()

    run(main)


def test_methods_that_return_nothing_to_await_are_refused_too() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for reach in (
            lambda: loop.run_in_executor(None, print),
            lambda: loop.add_signal_handler(2, print),
            lambda: loop.add_reader(0, print),
            lambda: loop.set_task_factory(lambda *_, **__: None),  # type: ignore[arg-type]
        ):  # fmt: skip
            with pytest.raises(UsageError, match=r"use run\.local or a step"):
                reach()

    run(main)


def test_call_soon_threadsafe_is_for_the_agents_own_thread() -> None:
    async def main() -> tuple[bool, Any]:
        loop = asyncio.get_running_loop()
        caught: list[BaseException] = []

        def foreign() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except UsageError as error:
                caught.append(error)

        thread = threading.Thread(target=foreign)
        thread.start()
        thread.join()
        event = asyncio.Event()
        loop.call_soon_threadsafe(event.set)
        await event.wait()
        return event.is_set(), caught

    set_here, caught = run(main)
    assert set_here
    assert "another thread" in str(caught[0])


def test_timers_that_are_due_together_fire_in_the_order_of_their_times() -> None:
    loop = DeterministicLoop(now_ms=START_MS)
    fired: list[str] = []
    loop.call_later(2, fired.append, "second")
    loop.call_later(1, fired.append, "first")
    loop.call_later(2, fired.append, "third")
    loop.call_later(1.5, fired.append, "cancelled").cancel()
    loop.advance(START_MS + 1999)
    loop.run_to_rest()
    assert fired == ["first"]
    loop.advance(START_MS + 5000)
    loop.run_to_rest()
    assert fired == ["first", "second", "third"]
    assert loop.next_due_ms is None


def test_a_timer_is_due_in_the_millisecond_that_is_told() -> None:
    loop = DeterministicLoop(now_ms=START_MS)
    for thousandths in range(1, 2000, 7):
        loop.call_later(thousandths / 1000, lambda: None)
    while (due := loop.next_due_ms) is not None:
        loop.advance(due)
        assert loop.next_due_ms != due
    assert loop.now_ms == START_MS + 1996


def test_cancelled_timers_do_not_pile_up() -> None:
    loop = DeterministicLoop(now_ms=START_MS)
    for _ in range(10_000):
        loop.call_later(1000, print).cancel()
    assert len(loop._timers) < 200


def test_the_clock_never_goes_back() -> None:
    loop = DeterministicLoop(now_ms=START_MS)
    loop.advance(START_MS - 1000)
    assert loop.now_ms == START_MS


def test_context_variables_belong_to_their_tasks() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="none")

    async def named(value: str) -> str:
        name.set(value)
        await asyncio.sleep(1)
        return name.get()

    async def main() -> list[str]:
        return [*await asyncio.gather(named("a"), named("b")), name.get()]

    assert run(main) == ["a", "b", "none"]


def test_an_exception_that_nobody_awaits_reaches_the_handler_or_the_log(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[dict[str, Any]] = []

    def fail() -> None:
        raise ValueError("lost")

    loop = DeterministicLoop(now_ms=START_MS)
    loop.set_exception_handler(lambda _, context: heard.append(context))
    loop.call_soon(fail)
    loop.run_to_rest()
    assert str(heard[0]["exception"]) == "lost"
    loop.set_exception_handler(None)
    loop.live = False
    loop.call_soon(fail)
    loop.run_to_rest()
    assert not caplog.records
    loop.live = True
    loop.call_soon(fail)
    loop.run_to_rest()
    assert len(caplog.records) == 1


def test_an_abandoned_async_generator_runs_its_finally_block() -> None:
    seen: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            seen.append("closed")

    async def main() -> None:
        async for _ in numbers():
            break
        gc.collect()

    run(main)
    assert seen == ["closed"]


def test_it_leaves_the_threads_own_loop_in_place() -> None:
    async def outer() -> bool:
        running = asyncio.get_running_loop()

        async def inner() -> bool:
            return asyncio.get_running_loop() is running

        return run(inner) is False and asyncio.get_running_loop() is running

    assert asyncio.run(outer())


def test_running_it_twice_at_once_is_refused() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, DeterministicLoop)
        with pytest.raises(RuntimeError, match="runs already"):
            loop.run_to_rest()
        with pytest.raises(UsageError):
            loop.run_forever()
        assert loop.is_running()
        assert not loop.is_closed()

    run(main)
