"""Very many runs that wait: little memory each, no slower to wake one among them, and none lost when all are woken."""

from __future__ import annotations

import json
import logging
import statistics
import time
from dataclasses import replace
from typing import Any

import pytest

from agentq.core.ids import new_run_id
from agentq.engine import capture
from agentq.engine.handle import Handle
from agentq.store import Store
from agentq.store.refs import Holder
from tests.kit.field import Field
from tests.kit.waiting import wait_until

logger = logging.getLogger(__name__)

LARGEST_BYTES = 2048
LARGEST_RATIO = 1.2
TIMEOUT = 60


def memory(store: Store) -> int:
    """Return the bytes that the server uses."""
    return int(store.client.info("memory")["used_memory"])


def park_all(store: Store) -> int:
    """Take and park everything that is queued, with what a turn calls; returns how many.

    A worker would take minutes for what this does in seconds; what stands in the store afterwards is the same.
    """
    name, label = store.new_token(), "celery@worker-7f9c6d5b8-x2x4q"
    store.enroll(name, label=label, queues=("celery",), concurrency=1, lease_ms=3_600_000)
    count = 0
    while taken := store.take(name, store.new_token(), slots=100, label=label, queues=["celery"]).taken:
        for each in taken:
            root, run, _ = json.loads(each.message)["agentq"].split("|")
            assert store.park(Holder(root, run, name, each.take), seen=1, due_ms=None, waits=["go"])
        count += len(taken)
    store.leave(name)
    return count


def start_many(field: Field, runs: int) -> list[Any]:
    """Start runs by copies of one message, a chunk at a time."""
    store: Store = field.app.store
    with capture.capturing() as caught:
        field.flows.waiting.apply_async()
    (first,) = caught.offers
    ids = [new_run_id() for _ in range(runs)]
    for at in range(0, runs, 500):
        copies = [(run, first.message.replace(first.id, run)) for run in ids[at : at + 500]]
        store.offer([replace(first, root=run, id=run, message=message) for run, message in copies])
    return [Handle(store, run, root=run) for run in ids]


def start_parked(field: Field, runs: int) -> tuple[list[Any], float]:
    """Start and park so many runs; return their handles, and what one takes of the server."""
    store: Store = field.app.store
    # The scripts themselves take two MB, which are not the runs'.
    first = field.flows.waiting.start()
    assert park_all(store) == 1
    before = memory(store)
    handles = start_many(field, runs)
    assert park_all(store) == runs
    each = (memory(store) - before) / runs
    logger.info("bytes of the server for each run: %.0f", each)
    return [first, *handles], each


def parked(handle: Any) -> Any:
    """Return the handle when its run waits."""
    wait_until(lambda: handle.status() == "parked", description="the run is parked", timeout=TIMEOUT)
    return handle


def wake(handle: Any) -> float:
    """Wake a run and return how many seconds its end took."""
    began = time.perf_counter()
    handle.signal("go", handle.id)
    assert handle.get(timeout=TIMEOUT) == handle.id
    return time.perf_counter() - began


def wake_all(handles: list[Any], *, timeout: float) -> None:
    """Wake runs together and see each one end with what it was told."""
    for handle in handles:
        handle.signal("go", handle.id)
    awaited = [handle.id for handle in handles]

    def all_ended() -> bool:
        for at in range(0, len(awaited), 1000):
            chunk = awaited[at : at + 1000]
            metas = [json.loads(meta) for meta in handles[0].store.outcomes(chunk) if meta is not None]
            if [meta["result"] for meta in metas] != chunk:
                return False
        return True

    wait_until(all_ended, description="each run has ended with its own word", timeout=timeout, interval=0.5)


def test_two_thousand_parked_runs(empty_field: Field) -> None:
    handles, each = start_parked(empty_field, 2000)
    assert each <= LARGEST_BYTES
    empty_field.start_workers(1)
    wake_all(handles, timeout=TIMEOUT)


@pytest.mark.long
def test_a_hundred_thousand_parked_runs(empty_field: Field) -> None:
    handles, each = start_parked(empty_field, 100_000)
    assert each <= LARGEST_BYTES
    empty_field.start_workers(1)
    wake(handles.pop())
    among_all = statistics.median(wake(handles.pop()) for _ in range(100))
    wake_all(handles, timeout=3600)

    ten = [empty_field.flows.waiting.start() for _ in range(10)]
    among_ten = statistics.median(wake(parked(empty_field.flows.waiting.start())) for _ in range(100))
    wake_all(ten, timeout=TIMEOUT)
    logger.info("a wake among all: %.1f ms, among ten: %.1f ms", among_all * 1000, among_ten * 1000)
    assert among_all <= LARGEST_RATIO * among_ten
