"""Very many runs that wait: little memory each, no slower to wake one among them, and none lost when all are woken."""

from __future__ import annotations

import json
import logging
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentq.core.ids import new_run_id
from agentq.engine import capture
from agentq.engine.handle import Handle
from agentq.store import Store
from agentq.store.refs import Holder, Taken
from agentq.store.unsent import Hint
from tests.kit.field import Field, Fleet
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

logger = logging.getLogger(__name__)

LARGEST_BYTES = 2048

LARGEST_RATIO = 1.2
TIMEOUT = 60


def memory(store: Store) -> int:
    """Return the bytes that the server uses for its data: none for connections that said much, nor to be written."""
    store.client.connection_pool.disconnect()
    found = store.client.info("memory")
    return int(found["used_memory"] - found["mem_aof_buffer"])


def take_some(store: Store, worker: str, label: str) -> Sequence[Taken]:
    """Take what is queued, at most a hundred; in split mode what somebody has published, and the broker delivers."""
    if not store.split:
        return store.take(worker, store.new_token(), slots=100, label=label, queues=["celery"]).taken
    posts = store.publish(chunk=100, pause_ms=3_600_000)
    hints = [Hint(name=post.name, queue=post.queue, lane=post.lane) for post in posts]
    return store.claim(worker, store.new_token(), hints, label=label).taken


def park_all(store: Store) -> int:
    """Take and park everything that is queued, with what a turn calls; returns how many.

    A worker would take minutes for what this does in seconds; what stands in the store afterwards is the same.
    """
    name, label = store.new_token(), "celery@worker-7f9c6d5b8-x2x4q"
    store.enroll(name, label=label, queues=("celery",), concurrency=1, lease_ms=3_600_000)
    count = 0
    while taken := take_some(store, name, label):
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


@pytest.fixture
def other_field(
    make_worker: Callable[..., WorkerProcess], tmp_path: Path, rng: random.Random, mode_env: dict[str, str]
) -> Iterator[Field]:
    """A second field, on a server of its own."""
    server = PrivateServer()
    server.start()
    try:
        yield Field(Fleet(server, make_worker, env=mode_env), folder=tmp_path, rng=rng)
    finally:
        server.stop()


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


def wake_all(handles: list[Any]) -> None:
    """Wake runs together and see each one end with what it was told; none ends for a minute, and it fails."""
    began = time.monotonic()
    for handle in handles:
        handle.signal("go", handle.id)
    told = time.monotonic() - began
    store: Store = handles[0].store
    awaited = [handle.id for handle in handles]

    def some_ended() -> bool:
        chunk = awaited[:1000]
        metas = [json.loads(meta) if meta is not None else None for meta in store.outcomes(chunk)]
        ended = {run: meta["result"] for run, meta in zip(chunk, metas, strict=True) if meta is not None}
        assert list(ended) == list(ended.values()), "a run has ended with another's word"
        awaited[:1000] = [run for run in chunk if run not in ended]
        return bool(ended)

    while awaited:
        wait_until(some_ended, description=f"one of {len(awaited)} runs ends", timeout=TIMEOUT, interval=0.2)
    rate = len(handles) / (time.monotonic() - began)
    logger.info("%d runs woken, told within %.1f s, all ended at %.0f a second", len(handles), told, rate)


def test_two_thousand_parked_runs(empty_field: Field) -> None:
    handles, each = start_parked(empty_field, 2000)
    assert each <= LARGEST_BYTES
    empty_field.start_workers(1)
    wake_all(handles)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_parked_runs(empty_field: Field, other_field: Field) -> None:
    """Beside a server of its own on which ten wait: one is woken here and one there in turn, so noise meets both."""
    handles, each = start_parked(empty_field, 100_000)
    assert each <= LARGEST_BYTES
    ten, _ = start_parked(other_field, 10)
    many, few = [], []
    for field in (empty_field, other_field):
        field.start_workers(1)
    for _ in range(100):
        many.append(wake(handles.pop()))
        few.append(wake(ten.pop()))
        ten.append(parked(other_field.flows.waiting.start()))
    among_all, among_ten = statistics.median(many), statistics.median(few)
    logger.info("a wake among all: %.1f ms, among ten: %.1f ms", among_all * 1000, among_ten * 1000)
    wake_all(ten)
    wake_all(handles)
    assert among_all <= LARGEST_RATIO * among_ten
