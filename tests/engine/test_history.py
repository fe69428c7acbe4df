"""A run's history, followed through all that may cut it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from agentq.core.errors import StoreUnavailable
from agentq.core.models import Event
from tests.kit.projects import load_app
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.past"
WORDS = 12
SOON_S = 0.1
"""How long a word may take from the step that says it to whoever follows."""


class Listener(threading.Thread):
    """Follows a run and notes each word with the delay of its arrival."""

    def __init__(self, handle: Any) -> None:
        super().__init__(daemon=True)
        self.handle = handle
        self.events: list[Event] = []
        self.delays: list[float] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            for event in self.handle.events():
                self.note(event)
        except StoreUnavailable as error:
            self.error = error

    def note(self, event: Event) -> None:
        self.events.append(event)
        if event.name == "word":
            self.delays.append(time.time() - event.fields["said"])

    @property
    def words(self) -> list[int]:
        return [event.fields["number"] for event in self.events if event.name == "word"]


class AsyncListener(Listener):
    """The same in an event loop."""

    def run(self) -> None:
        async def listen() -> None:
            async for event in self.handle.events():
                self.note(event)

        asyncio.run(listen())


@pytest.fixture
def app(clean_server: PrivateServer) -> Iterator[Any]:
    loaded = load_app(PROJECT, url=clean_server.celery_url)
    yield loaded
    loaded.store.close()


@pytest.fixture
def worker(clean_server: PrivateServer, make_worker: Callable[..., WorkerProcess]) -> WorkerProcess:
    return make_worker(PROJECT, url=clean_server.celery_url, pool="threads").launch()


def say(folder: Path, listener: Listener, words: range) -> None:
    """Let the step say one word after the other, each when the last one was heard."""
    for word in words:
        (folder / str(word)).touch()
        wait_until(lambda word=word: word in listener.words, description=f"word {word} is heard", interval=0.01)  # type: ignore[misc]


def check(listener: Listener, handle: Any) -> None:
    listener.join(timeout=60)
    assert not listener.is_alive()
    assert [event.offset for event in listener.events] == [event.offset for event in handle.events(follow=False)]


@pytest.mark.parametrize("kind", [Listener, AsyncListener])
def test_partial_results_reach_a_follower_at_once(
    app: Any, worker: WorkerProcess, tmp_path: Path, kind: type[Listener]
) -> None:
    """In one of up to three speeches: a machine that lets processes wait for a core is late with each word."""
    took: list[float] = []
    while len(took) < 3 and min(took, default=SOON_S) >= SOON_S:
        folder = tmp_path / f"speech-{len(took)}"
        folder.mkdir()
        handle = app.agents["speech"].start(str(folder), WORDS)
        listener = kind(handle)
        listener.start()
        say(folder, listener, range(WORDS))
        assert handle.get(timeout=60) == WORDS
        check(listener, handle)
        took.append(median(listener.delays))
    assert min(took) < SOON_S, took


def test_a_follower_goes_on_when_server_and_worker_were_killed(
    app: Any,
    clean_server: PrivateServer,
    worker: WorkerProcess,
    make_worker: Callable[..., WorkerProcess],
    tmp_path: Path,
) -> None:
    handle = app.agents["speech"].start(str(tmp_path), WORDS)
    listener = Listener(handle)
    listener.start()
    say(tmp_path, listener, range(3))
    # What the killed server may forget is at most its last second: it was written before.
    clean_server.client.execute_command("BGREWRITEAOF")
    wait_until(
        lambda: clean_server.client.info("persistence")["aof_rewrite_in_progress"] == 0,
        description="the history is on the disk",
    )
    clean_server.restart()
    say(tmp_path, listener, range(3, 6))
    worker.kill_tree()
    make_worker(PROJECT, url=clean_server.celery_url, pool="threads").launch()
    for word in range(6, WORDS):
        (tmp_path / str(word)).touch()
    assert handle.get(timeout=60) == WORDS
    check(listener, handle)
    # The second attempt says everything again, and nothing of the first one is lost.
    assert listener.words == [*range(6), *range(WORDS)]
    assert listener.error is None


def test_a_worker_warns_of_a_server_that_evicts(
    clean_server: PrivateServer, make_worker: Callable[..., WorkerProcess]
) -> None:
    clean_server.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        made = make_worker(PROJECT, url=clean_server.celery_url, pool="solo").launch()
        assert "server_evicts" in made.log()
    finally:
        clean_server.client.config_set("maxmemory-policy", "noeviction")
