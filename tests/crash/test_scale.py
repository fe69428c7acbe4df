"""Sizes at which a careless design would stop: parked runs, long journals, wide maps, many signals."""

from __future__ import annotations

import logging
import statistics
import time
from functools import partial
from typing import Any

import psutil
import pytest

from tests.kit.field import Field
from tests.kit.waiting import wait_until

logger = logging.getLogger(__name__)

TIMEOUT = 240.0


def journal_bytes(field: Field, run_id: str) -> int:
    """Return the size of a run's log."""
    return sum(len(entry) for entry in field.app.store.read_log(run_id, run_id))


def held_messages(field: Field) -> int:
    """Return how many messages stand in workers' custody."""
    client = field.server.client
    return sum(int(client.hlen(key)) for key in client.scan_iter(match="*:held:*"))


def process_ids(field: Field) -> list[int]:
    """Return the ids of all processes of the fleet."""
    return [pid for worker in field.fleet.workers for pid in (worker.pid, *worker.children())]


def threads(pids: list[int]) -> int:
    """Return how many threads the processes have together."""
    return sum(psutil.Process(pid).num_threads() for pid in pids)


def all_parked(handles: list[Any]) -> bool:
    """Return whether all these runs wait."""
    return all(handle.status() == "parked" for handle in handles)


def test_a_hundred_parked_runs_hold_nothing(field: Field) -> None:
    assert field.flows.fan.start(3).get(timeout=TIMEOUT) == 6
    processes = process_ids(field)
    before = threads(processes)

    handles = [field.flows.waiting.start() for _ in range(100)]
    wait_until(
        partial(all_parked, handles),
        description="all hundred runs are parked",
        timeout=TIMEOUT,
    )
    assert held_messages(field) == 0
    assert process_ids(field) == processes
    # A child starts the watch over its turns with its first one, which may be among these.
    assert threads(processes) <= before + len(processes)
    assert field.flows.double.delay(4).get(timeout=TIMEOUT) == 8

    for number, handle in enumerate(handles):
        handle.signal("go", f"run {number}")
    assert [handle.get(timeout=TIMEOUT) for handle in handles] == [f"run {n}" for n in range(100)]


def test_a_thousand_local_calls_grow_the_journal_linearly(field: Field) -> None:
    sizes: list[int] = []
    for length in (500, 1000):
        handle = field.flows.local_loop.start(str(field.path("started")), length, 0.0)
        assert handle.get(timeout=TIMEOUT) == length
        sizes.append(journal_bytes(field, handle.id))
    assert 0 < sizes[1] <= 2.2 * sizes[0]


def test_a_map_over_five_thousand(field: Field) -> None:
    handle = field.flows.fan.start(5000)
    assert handle.get(timeout=TIMEOUT) == sum(2 * n for n in range(5000))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_map_over_a_hundred_thousand(field: Field) -> None:
    """Time grows with the number of members, and no script holds the server for long."""
    client = field.server.client
    took = []
    for size in (10_000, 100_000):
        client.slowlog_reset()
        began = time.monotonic()
        assert field.flows.fan.start(size).get(timeout=3600) == sum(2 * n for n in range(size))
        took.append(time.monotonic() - began)
        slowest = max((entry["duration"] for entry in client.slowlog_get(128)), default=0) / 1e6
        logger.info("%d members: %.0f s, the slowest script %.2f s", size, took[-1], slowest)
        assert slowest < 1
    assert took[1] <= 15 * took[0]


def test_ten_thousand_signals_through_continue_as_new(field: Field) -> None:
    count, chunk = 10_000, 500
    handle = field.flows.tally.start(0, 0, count, chunk)
    largest = 0
    for number in range(count):
        handle.signal("number", number)
        if number % 500 == 0:
            # The sender is faster than the run: it waits until most of what it sent is consumed.
            largest = max(largest, _drained(field, handle, at_most=2 * chunk))
    assert handle.get(timeout=TIMEOUT) == sum(range(count))
    assert 0 < largest < 400 * 4 * chunk, "the journal's bytes do not grow with the number of signals"


def _drained(field: Field, handle: Any, *, at_most: int) -> int:
    """Wait until the run's log is short; returns its bytes."""
    wait_until(
        lambda: len(field.app.store.read_log(handle.id, handle.id)) <= at_most,
        description=f"the log of the run holds at most {at_most} entries",
        timeout=TIMEOUT,
    )
    return journal_bytes(field, handle.id)


@pytest.mark.long
def test_parked_runs_do_not_slow_a_step(field: Field) -> None:
    """Median latency of an empty step: with 100 parked runs at most 1.2 times that of an idle system."""

    def median() -> float:
        took = []
        for _ in range(60):
            begin = time.perf_counter()
            field.flows.nothing.delay().get(timeout=TIMEOUT, interval=0.001)
            took.append(time.perf_counter() - begin)
        return statistics.median(took)

    median()
    ratios = []
    for _ in range(5):
        idle = median()
        handles = [field.flows.waiting.start() for _ in range(100)]
        wait_until(partial(all_parked, handles), description="all are parked")
        ratios.append(median() / idle)
        for handle in handles:
            handle.signal("go", "on")
        for handle in handles:
            handle.get(timeout=TIMEOUT)
    logger.info("ratios of the medians: %s", [round(ratio, 2) for ratio in ratios])
    assert statistics.median(ratios) <= 1.2, ratios
