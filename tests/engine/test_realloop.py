"""One event loop per process: results, contexts, limits, forks and the end."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from agentq.engine import realloop
from tests.kit.process import ROOT, clean_environment

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def fresh_loop() -> Iterator[None]:
    yield
    realloop.close()


def test_results_and_errors_come_back() -> None:
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    async def broken() -> None:
        raise LookupError("x")

    assert realloop.run(add(1, 2)) == 3
    with pytest.raises(LookupError, match="x"):
        realloop.run(broken())


def test_all_threads_share_one_loop() -> None:
    here: list[int] = []
    all_here = asyncio.Event()

    async def loop_id() -> int:
        here.append(1)
        if len(here) == 20:
            all_here.set()
        # One after the other, none would ever see the rest.
        await all_here.wait()
        return id(asyncio.get_running_loop())

    with ThreadPoolExecutor(20) as pool:
        found = set(pool.map(lambda _: realloop.run(loop_id(), timedelta(seconds=60)), range(20)))
    assert len(found) == 1


def test_context_variables_are_the_callers() -> None:
    async def read() -> str:
        await asyncio.sleep(0)
        return variable.get()

    token = variable.set("mine")
    try:
        assert realloop.run(read()) == "mine"
    finally:
        variable.reset(token)


def test_what_is_overdue_is_cancelled_and_cleans_up() -> None:
    cleaned = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(True)

    with pytest.raises(realloop.Overdue):
        realloop.run(slow(), timedelta(milliseconds=20))
    assert cleaned == [True]


def test_an_order_that_comes_while_it_cleans_up_does_not_cut_that_short() -> None:
    """Of two that count the same limit, the loop and the worker's main process, one comes a moment later."""
    stop, said = realloop.Stop(), list[str]()

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            threading.Thread(target=stop.order).start()
            await asyncio.sleep(0.2)
            said.append("cleaned up")

    with pytest.raises((realloop.Overdue, realloop.Stopped)):
        realloop.run(slow(), timedelta(milliseconds=20), stop)
    assert said == ["cleaned up"]


def test_the_end_of_the_loop_cancels_each_step_once() -> None:
    """Many, since in which order the loop's tasks are cancelled is left to chance."""
    all_begun, begun, said = threading.Event(), list[bool](), list[str]()

    async def slow() -> None:
        try:
            begun.append(True)
            if len(begun) == 16:
                all_begun.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.1)
            said.append("cleaned up")

    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(realloop.run, slow()) for _ in range(16)]
        assert all_begun.wait(30)
        realloop.close()
        assert all(each.exception(30) is not None for each in waiting)
    assert said == ["cleaned up"] * 16


def test_a_time_out_of_its_own_is_no_overrun() -> None:
    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError) as caught:
        realloop.run(impatient(), timedelta(seconds=60))
    assert not isinstance(caught.value, realloop.Overdue)


def test_a_swallowed_cancellation_does_not_hold_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realloop, "CLEANUP", timedelta(milliseconds=50))
    stop = threading.Event()

    async def stubborn() -> None:
        while not stop.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    began = time.monotonic()
    with pytest.raises(realloop.Overdue):
        realloop.run(stubborn(), timedelta(milliseconds=20))
    assert time.monotonic() - began < 20
    stop.set()


def test_an_exit_in_a_step_leaves_the_loop_to_the_others() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def one() -> int:
        return 1

    with pytest.raises(SystemExit):
        realloop.run(leave())
    assert realloop.run(one()) == 1


def test_waiting_for_itself_is_refused() -> None:
    async def one() -> int:
        return 1

    async def nested() -> int:
        return realloop.run(one())

    with pytest.raises(RuntimeError, match="await the other coroutine"):
        realloop.run(nested())


def test_an_interrupted_caller_ends_the_coroutine_first() -> None:
    program = """
import asyncio, signal
from agentq.engine import realloop

class SoftLimit(Exception): pass

def interrupt(*_): raise SoftLimit

async def slow():
    try:
        await asyncio.sleep(60)
    finally:
        print("cleaned", flush=True)

signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    realloop.run(slow())
except SoftLimit:
    print("limit", flush=True)
"""
    assert _output(program) == ["cleaned", "limit"]


def test_a_forked_child_gets_a_loop_of_its_own() -> None:
    program = """
import os
from agentq.engine import realloop

async def pid(): return os.getpid()

parent = realloop.run(pid())
child = os.fork()
if child == 0:
    print(realloop.run(pid()) == os.getpid(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(realloop.run(pid()) == parent, flush=True)
"""
    assert _output(program) == ["True", "True"]


def test_the_end_of_the_process_cancels_what_runs() -> None:
    program = """
import asyncio, threading
from agentq.engine import realloop

begun = threading.Event()

async def endless():
    try:
        begun.set()
        await asyncio.sleep(60)
    finally:
        print("cleaned", flush=True)

def call():
    try:
        realloop.run(endless())
    except BaseException as error:
        print(type(error).__name__, flush=True)

threading.Thread(target=call, daemon=True).start()
begun.wait()
"""
    assert _output(program)[0] == "cleaned"


def _output(program: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
