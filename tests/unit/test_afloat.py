"""Coroutines that no thread waits for: what they come to, and the few threads that see to their end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from agentq.engine import afloat, realloop, recall
from agentq.engine.afloat import Ends
from agentq.engine.options import StepOptions
from agentq.store.refs import Holder
from tests.kit.waiting import wait_until

variable: ContextVar[str] = ContextVar("variable", default="unset")


@pytest.fixture(autouse=True)
def fresh_loop() -> Iterator[None]:
    yield
    realloop.close()


class Outcome:
    """A coroutine under way, and its end."""

    def __init__(self, coroutine: Any, timeout: timedelta | None = None) -> None:
        self.there = threading.Event()
        self.stop = realloop.Stop()
        self.begun = realloop.Begun(coroutine, timeout, copy_context(), lambda _begun: self.there.set())
        self.stop.watch(self.begun)

    def begin(self) -> Outcome:
        self.begun.begin()
        return self

    def result(self) -> Any:
        assert self.there.wait(30)
        return self.begun.result()


def test_results_errors_and_context_come_back() -> None:
    async def read() -> str:
        await asyncio.sleep(0)
        return variable.get()

    async def broken() -> None:
        raise LookupError("x")

    token = variable.set("mine")
    well, ill = Outcome(read()).begin(), Outcome(broken()).begin()
    variable.reset(token)
    assert well.result() == "mine"
    assert well.begun.went_well
    with pytest.raises(LookupError, match="x"):
        ill.result()
    assert not ill.begun.went_well


def test_an_exit_comes_back_and_ends_no_loop() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def one() -> int:
        return 1

    with pytest.raises(SystemExit):
        Outcome(leave()).begin().result()
    assert Outcome(one()).begin().result() == 1


def test_one_that_cancels_itself_has_failed() -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(CancelledError):
        Outcome(gives_up()).begin().result()


@pytest.mark.parametrize("ordered", [True, False], ids=["stopped", "overdue"])
def test_what_is_to_end_cleans_up_first(ordered: bool) -> None:
    said, is_under_way = list[str](), threading.Event()

    async def slow() -> None:
        try:
            is_under_way.set()
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            said.append("cleaned up")

    outcome = Outcome(slow(), None if ordered else timedelta(milliseconds=20)).begin()
    assert is_under_way.wait(30)
    if ordered:
        outcome.stop.order()
        outcome.stop.order()
    with pytest.raises(realloop.Stopped if ordered else realloop.Overdue):
        outcome.result()
    assert said == ["cleaned up"], "once"


def test_one_that_is_stopped_before_it_begins_never_does() -> None:
    said = list[str]()

    async def never() -> None:
        said.append("begun")

    outcome = Outcome(never())
    outcome.stop.order()
    with pytest.raises(realloop.Stopped):
        outcome.begin().result()
    assert said == []


def test_an_order_behind_the_end_changes_nothing() -> None:
    async def one() -> int:
        return 1

    outcome = Outcome(one()).begin()
    assert outcome.result() == 1
    outcome.stop.order()
    assert Outcome(one()).begin().result() == 1, "the loop has come to the order"
    assert outcome.result() == 1


def test_one_that_swallows_its_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realloop, "CLEANUP", timedelta(milliseconds=50))
    stop = threading.Event()

    async def stubborn() -> None:
        while not stop.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    with pytest.raises(realloop.Overdue):
        Outcome(stubborn(), timedelta(milliseconds=20)).begin().result()
    stop.set()


class Pool:
    """A pool's threads, and how many of them are in use."""

    def __init__(self, size: int) -> None:
        self.executor = ThreadPoolExecutor(size)
        self.busy = self.most = 0
        self.lock = threading.Lock()

    def submit(self, call: Callable[[], None]) -> Any:
        def counted() -> None:
            with self.lock:
                self.busy += 1
                self.most = max(self.most, self.busy)
            call()
            with self.lock:
                self.busy -= 1

        return self.executor.submit(counted)


@pytest.fixture(params=[1, 2, 64])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    made = Pool(request.param)
    yield made
    made.executor.shutdown()


def test_few_threads_see_many_to_their_end_and_go(pool: Pool) -> None:
    ends, seen = Ends(pool.submit, lambda: None), list[int]()
    for _ in range(200):
        ends.expect()
    for number in range(200):
        ends.see_to(lambda number=number: seen.append(number), apart=False)  # type: ignore[misc]
    wait_until(lambda: pool.busy == 0, description="the threads to be the pool's again")
    assert sorted(seen) == list(range(200))
    assert pool.most <= afloat.MOST


def test_what_may_take_long_holds_nobody_up(pool: Pool) -> None:
    ends, seen, gate = Ends(pool.submit, lambda: None), list[str](), threading.Event()
    ends.expect()
    ends.expect()
    ends.see_to(lambda: seen.append("apart") if gate.wait(30) else None, apart=True)
    if pool.executor._max_workers > 1:
        ends.see_to(lambda: seen.append("short"), apart=False)
        wait_until(lambda: seen == ["short"], description="the short one to end")
        gate.set()
    else:
        # A pool of one thread has one slot: nothing else runs beside it in a worker.
        gate.set()
        ends.see_to(lambda: seen.append("short"), apart=False)
    wait_until(lambda: sorted(seen) == ["apart", "short"], description="both to end")
    wait_until(lambda: pool.busy == 0, description="the threads to be the pool's again")


def test_an_end_that_fails_keeps_nobody_from_the_next_one(pool: Pool) -> None:
    ends, seen = Ends(pool.submit, lambda: None), list[str]()
    ends.expect()
    ends.see_to(lambda: [][0], apart=False)
    wait_until(lambda: pool.busy == 0, description="the thread to be the pool's again")
    ends.expect()
    ends.see_to(lambda: seen.append("next"), apart=False)
    wait_until(lambda: seen == ["next"], description="the next one to end")


def test_a_pool_that_is_shut_down_waits_for_what_is_under_way_and_begins_nothing(pool: Pool) -> None:
    ends, seen = Ends(pool.submit, lambda: None), list[str]()
    for _ in range(2):
        ends.expect()
    closing = threading.Thread(target=lambda: pool.executor.shutdown(cancel_futures=True))
    closing.start()
    wait_until(lambda: pool.executor._shutdown, description="the pool to be shut down")
    assert closing.is_alive()
    ends.see_to(lambda: seen.append("apart"), apart=True)
    ends.see_to(lambda: seen.append("short"), apart=False)
    closing.join(30)
    assert not closing.is_alive()
    assert sorted(seen) == ["apart", "short"]
    with pytest.raises(RuntimeError):
        ends.expect()


def test_an_end_that_a_cold_shutdown_would_drop_is_seen_to(pool: Pool) -> None:
    """Orders to stop come from the shutdown itself: an end stands in the pool's line when that is emptied."""
    ends, seen, gate = Ends(afloat.submitter(pool.executor), lambda: None), list[str](), threading.Event()
    ends.expect()
    for _ in range(pool.executor._max_workers):
        pool.executor.submit(gate.wait, 30)
    ends.see_to(lambda: seen.append("apart"), apart=True)
    pool.executor.shutdown(wait=False, cancel_futures=True)
    wait_until(lambda: seen == ["apart"], description="the end, though no thread of the pool is free")
    gate.set()


class Noted:
    """Stands for an attempt's place on the page."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def begin(self) -> None:
        self.said.append("begun")

    def finish(self) -> None:
        self.said.append("finished")

    def __exit__(self, *_error: object) -> None:
        self.said.append("gone")


class Call:
    """A message for an async step, with all that its request and its attempt need here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> None:
        self.claim, self.ended = Noted(), list[Callable[[], None]]()
        self.ends = Ends(lambda _serve: None, lambda: None)
        monkeypatch.setattr(self.ends, "see_to", lambda finish, *, apart: self.ended.append(finish))
        monkeypatch.setattr(afloat, "claim", lambda *_: self.claim)
        holder = Holder(root="r", id="s", worker="w", take=1)
        options = StepOptions()
        task = SimpleNamespace(name="t", run=run, agentq=options, on_success=None, after_return=None)
        self.attempt: Any = SimpleNamespace(
            task=task,
            holder=holder,
            arguments=((), {}),
            hard_limit=timedelta(seconds=60),
            soft_limit=None,
            stop=realloop.Stop(),
            begun=None,
        )
        self.request: Any = SimpleNamespace(on_accepted=lambda *_: None)

    def begin(self) -> bool:
        timed: Any = None
        return afloat._begin(self.attempt, self.request, self.ends, timed)

    def is_forgotten(self) -> bool:
        return self.attempt.holder not in afloat._begun and not recall.stop_here(self.attempt.holder)


@pytest.fixture
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(afloat, "_may_take_long", lambda _task: False)
    yield
    afloat._begun.clear()
    recall._running.clear()


@pytest.mark.usefixtures("nobody_listens")
def test_what_is_raised_before_the_coroutine_is_the_steps_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> Any:
        raise LookupError("before it returns a coroutine")

    call = Call(monkeypatch, run)
    assert call.begin()
    wait_until(lambda: len(call.ended) == 1, description="its end")
    with pytest.raises(LookupError, match="before it returns"):
        call.attempt.begun.result()


@pytest.mark.usefixtures("nobody_listens")
def test_one_that_cannot_begin_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None: ...

    def broken(*_args: Any) -> None:
        raise LookupError("who is told of it")

    call = Call(monkeypatch, run)
    call.request.on_accepted = broken
    assert not call.begin(), "a thread has it as ever"
    assert call.is_forgotten()
    assert call.claim.said == ["begun", "gone"]
    assert call.ends._running == 0


@pytest.mark.usefixtures("nobody_listens")
def test_one_that_has_ended_well_is_not_killed_while_it_waits_for_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None: ...

    call = Call(monkeypatch, run)
    assert call.begin()
    wait_until(lambda: len(call.ended) == 1, description="its end")
    assert call.claim.said == ["begun", "finished"]


def test_a_slot_that_is_free_is_told_of(pool: Pool) -> None:
    told = list[bool]()
    ends = Ends(pool.submit, lambda: told.append(True))
    ends.expect()
    ends.see_to(lambda: None, apart=False)
    wait_until(lambda: told == [True], description="the worker to hear of it")
