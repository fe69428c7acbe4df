"""Many threads and a server that answers when it likes: nothing is lost or done twice, and no thread stands."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import group

from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.short"
THREADS = 18
"""More than a process has connections at hand for scripts."""
STEPS = 250
TIMEOUT = 60.0
PAUSE_MS = 30


@contextmanager
def slow(server: PrivateServer) -> Iterator[list[int]]:
    """Have the server answer nobody for most of the time; yields the pauses that were made, in ms."""
    ends, pauses, client = threading.Event(), list[int](), server.client

    def pause() -> None:
        while not ends.wait(PAUSE_MS / 2000):
            client.execute_command("CLIENT", "PAUSE", PAUSE_MS, "ALL")
            # Answered when that is over.
            client.ping()
            pauses.append(PAUSE_MS)

    thread = threading.Thread(target=pause)
    thread.start()
    try:
        yield pauses
    finally:
        ends.set()
        thread.join()


@pytest.fixture
def server() -> Iterator[PrivateServer]:
    """A server of its own, which others need not wait for."""
    found = PrivateServer()
    found.start()
    yield found
    found.stop()


def test_nothing_is_lost_and_no_thread_stands(
    server: PrivateServer, start_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    worker = start_worker(PROJECT, url=server.celery_url, pool="threads", concurrency=THREADS)
    found: Any = load_module(PROJECT, url=server.celery_url)
    store = found.app.store
    # A step is known to be short once it has run.
    assert group(found.says.s(number) for number in range(THREADS)).apply_async().get(timeout=TIMEOUT)
    with slow(server) as pauses:
        sent = group(found.says.s(number) for number in range(STEPS)).apply_async()
        mixed = [found.fails.delay(number) for number in range(THREADS)]
        assert sent.get(timeout=TIMEOUT) == [2 * number for number in range(STEPS)]
        ends = [each.get(timeout=TIMEOUT, propagate=False) for each in mixed]
        assert [isinstance(each, Exception) for each in ends] == [number % 7 == 3 for number in range(THREADS)]
        # As many at once as there are threads: each of these steps waits for all the others.
        together = [found.meets.delay(str(tmp_path), number, THREADS) for number in range(THREADS)]
        assert [each.get(timeout=TIMEOUT) for each in together] == [THREADS] * THREADS
        assert pauses
        (worker_id,) = store.client.zrange(store.keys.of("workers"), 0, -1)
        held = store.keys.of("held", worker_id.decode())
        wait_until(lambda: not store.client.exists(held), description="nothing is held", report=worker.log)
        worker.send(signal.SIGTERM)
        assert worker.wait(timeout=TIMEOUT) == 0, worker.log()[-4000:]
    starts = [store.record(each.id, each.id)["a"] for each in sent.results]
    assert starts == ["1"] * STEPS
    check_leaks(server.client)
