"""The transport and the boot step in real workers: slots, leases, shutdowns, deaths, remote control."""

from __future__ import annotations

import base64
import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from agentq.engine.given_up import EXIT_GIVEN_UP
from agentq.engine.messages import HEADER
from agentq.store import Store
from tests.engine.transport_app import make_app
from tests.kit.server import PrivateServer
from tests.kit.waiting import holds_for, wait_until
from tests.kit.worker import WorkerProcess

APP = "tests.engine.transport_app"

Start = Callable[..., WorkerProcess]


@pytest.fixture
def app(server: PrivateServer) -> Iterator[Celery]:
    made = make_app(server.celery_url)
    yield made
    made.close()


@pytest.fixture
def store(server: PrivateServer) -> Iterator[Store]:
    opened = Store(server.url)
    yield opened
    opened.close()


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.touch()
    return path


def lines(notes: Path, word: str) -> list[str]:
    return [line.split()[1] for line in notes.read_text().splitlines() if line.startswith(word)]


def send(app: Celery, name: str, *args: Any, **options: Any) -> Any:
    return app.send_task(name, args=args, queue="q", **options)


def launch(start_worker: Start, server: PrivateServer, **options: Any) -> WorkerProcess:
    return start_worker(APP, url=server.celery_url, queues=["q"], **options)


def label_of(worker: WorkerProcess) -> str:
    return f"{worker.name}@{socket.gethostname()}"


def given_up(store: Store) -> str:
    """Mark the only worker dead, as another would whose tick found its lease run out; return its id."""
    (card,) = store.workers()
    store.client.set(store.keys.of("dead", card.id), 1, px=600_000)
    store.client.zrem(store.keys.of("workers"), card.id)
    return card.id


def no_custody(store: Store) -> bool:
    return not list(store.client.scan_iter(match=store.keys.held("*")))


class TestServing:
    @pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
    def test_tasks_run_in_every_pool(
        self, app: Celery, server: PrivateServer, store: Store, start_worker: Start, pool: str
    ) -> None:
        launch(start_worker, server, pool=pool)
        results = [send(app, "echo", number) for number in range(20)]
        assert [result.get(timeout=60) for result in results] == list(range(20))
        wait_until(lambda: no_custody(store), description="all is acknowledged")
        ((card,),) = (store.workers(),)
        assert card.queues == ("q",)
        assert store.announced()["echo"]["worker"] == card.id
        for result in results:
            result.forget()

    @pytest.mark.parametrize("pool", ["prefork", "threads"])
    def test_no_more_is_taken_than_there_are_slots(
        self, app: Celery, server: PrivateServer, store: Store, start_worker: Start, notes: Path, pool: str
    ) -> None:
        launch(start_worker, server, pool=pool, concurrency=2)
        for number in range(6):
            send(app, "note", str(notes), str(number), 1.0, ignore_result=True)
        wait_until(lambda: len(lines(notes, "start")) == 2, description="two tasks run")
        time.sleep(0.3)
        left = store.client.llen("q")
        # On a slow machine the first may have ended by now: each gives its slot to one that waited.
        assert left >= 4 - len(lines(notes, "end"))
        wait_until(lambda: len(lines(notes, "end")) == 6, description="all have run")
        assert sorted(lines(notes, "start")) == [str(number) for number in range(6)]

    def test_a_freed_thread_takes_at_once(
        self, app: Celery, server: PrivateServer, start_worker: Start, notes: Path
    ) -> None:
        launch(start_worker, server, pool="threads", concurrency=1)
        began = time.monotonic()
        for number in range(10):
            send(app, "note", str(notes), str(number), 0.05, ignore_result=True)
        wait_until(lambda: len(lines(notes, "end")) == 10, description="all have run")
        assert time.monotonic() - began < 0.9 * 10, "each would wait for a second"

    def test_an_idle_worker_hears_the_bell(self, app: Celery, server: PrivateServer, start_worker: Start) -> None:
        launch(start_worker, server)
        send(app, "echo", 0).get(timeout=60)
        waits = []
        for number in range(5):
            time.sleep(0.3)
            began = time.monotonic()
            send(app, "echo", number).get(timeout=60)
            waits.append(time.monotonic() - began)
        assert min(waits) < 0.5, "who only looks once a second would come after 0.7 s"

    def test_remote_control_works(self, app: Celery, server: PrivateServer, start_worker: Start) -> None:
        worker = launch(start_worker, server)
        # Without a name it waits to the end for others that may answer.
        asked = app.control.inspect([label_of(worker)], timeout=60)
        (pong,) = asked.ping().values()
        assert pong == {"ok": "pong"}
        (stats,) = asked.stats().values()
        assert len(stats["agentq"]["worker"]) == 32
        app.control.add_consumer("later", reply=True, destination=[label_of(worker)], timeout=60)
        assert app.send_task("echo", args=(7,), queue="later").get(timeout=60) == 7
        app.control.broadcast("shutdown")
        assert worker.wait() == 0

    def test_a_plain_eta_keeps_celerys_way(self, app: Celery, server: PrivateServer, start_worker: Start) -> None:
        launch(start_worker, server, concurrency=1)
        delayed = [send(app, "echo", number, countdown=1.5) for number in range(3)]
        now = send(app, "echo", "now")
        assert now.get(timeout=60) == "now"
        assert [result.get(timeout=60) for result in delayed] == [0, 1, 2]
        assert all(now.date_done < result.date_done for result in delayed)

    @pytest.mark.leaves(r"q$")
    def test_a_rate_limit_does_not_draw_the_queue_into_memory(
        self, app: Celery, server: PrivateServer, start_worker: Start
    ) -> None:
        worker = launch(start_worker, server, concurrency=2)
        app.control.rate_limit("echo", "1/m", reply=True, destination=[label_of(worker)], timeout=60)
        for number in range(20):
            send(app, "echo", number, ignore_result=True)
        time.sleep(1)
        with app.connection_for_write() as connection:
            assert connection.default_channel.queue_purge("q") >= 16


class TestEnds:
    def test_a_warm_shutdown_runs_what_it_took_and_leaves(
        self, app: Celery, server: PrivateServer, store: Store, start_worker: Start, notes: Path
    ) -> None:
        worker = launch(start_worker, server, concurrency=1)
        for number in range(3):
            send(app, "note_late", str(notes), str(number), 1.0, ignore_result=True)
        wait_until(lambda: len(lines(notes, "start")) == 1, description="the first runs")
        worker.terminate()
        assert worker.returncode == 0
        ended = lines(notes, "end")
        # On a slow machine the signal may come when the second has begun.
        assert lines(notes, "start") == ended == ["0", "1", "2"][: len(ended)]
        assert len(ended) < 3
        assert store.workers() == []
        assert no_custody(store)
        with app.connection_for_write() as connection:
            assert connection.default_channel.queue_purge("q") == 3 - len(ended)

    def test_a_killed_workers_messages_move_within_seconds(
        self, app: Celery, server: PrivateServer, store: Store, start_worker: Start, notes: Path
    ) -> None:
        first = launch(start_worker, server, concurrency=1)
        send(app, "note_late", str(notes), "a", 30.0, ignore_result=True)
        wait_until(lambda: len(lines(notes, "start")) == 1, description="it runs")
        second = launch(start_worker, server, concurrency=1)
        first.kill_tree()
        wait_until(lambda: len(lines(notes, "start")) == 2, description="it runs again")
        assert notes.stat().st_mtime - first.killed_at < 20, "not when the step's time is over, nor after an hour"
        second.kill_tree()
        server.flush()

    def test_a_worker_of_threads_that_was_given_up_ends_with_an_error(
        self, app: Celery, server: PrivateServer, store: Store, start_worker: Start, notes: Path
    ) -> None:
        worker = launch(start_worker, server, concurrency=1, pool="threads")
        send(app, "note_late", str(notes), "a", 30.0, ignore_result=True)
        wait_until(lambda: len(lines(notes, "start")) == 1, description="it runs")
        given_up(store)
        assert worker.wait() == EXIT_GIVEN_UP
        assert worker.children() == []
        store.client.flushdb()

    @pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.long)])
    def test_one_that_can_end_what_runs_goes_on_under_a_fresh_id(
        self, app: Celery, server: PrivateServer, store: Store, start_worker: Start, notes: Path, pool: str
    ) -> None:
        worker = launch(start_worker, server, concurrency=1, pool=pool)
        if pool == "prefork":
            send(app, "note_late", str(notes), "a", 30.0, ignore_result=True)
            wait_until(lambda: len(lines(notes, "start")) == 1, description="it runs")
        before = given_up(store)
        assert send(app, "echo", 1).get(timeout=60) == 1
        (card,) = store.workers()
        assert card.id != before
        assert worker.running
        assert lines(notes, "end") == []
        store.client.flushdb()

    def test_a_message_that_fails_the_consumer_is_kept_and_does_not_come_again(
        self, app: Celery, server: PrivateServer, store: Store, start_worker: Start
    ) -> None:
        worker = launch(start_worker, server)
        send(app, "echo", 1, ignore_result=True)
        wait_until(lambda: no_custody(store), description="the first has run")
        body = base64.b64encode(b"[[1], {}, {}]").decode()
        headers = {"task": "echo", "lang": "py"}
        properties = {"delivery_tag": "x", "body_encoding": "base64", "delivery_info": {}}
        broken = {
            "body": body,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": headers,
            "properties": properties,
        }
        store.ring("q", 0, json.dumps(broken))
        wait_until(lambda: "failed: KeyError('id')" in worker.log(), description="the consumer has failed")
        assert send(app, "echo", 2).get(timeout=60) == 2
        assert worker.log().count("failed: KeyError('id')") == 1
        worker.terminate()
        with app.connection_for_write() as connection:
            assert connection.default_channel.queue_purge("q") == 1

    def test_a_worker_that_stood_still_stops_what_it_ran_when_it_goes_on(
        self, app: Celery, server: PrivateServer, start_worker: Start, notes: Path
    ) -> None:
        first = launch(start_worker, server, concurrency=1)
        send(app, "note_late", str(notes), "a", 4.0, ignore_result=True)
        wait_until(lambda: len(lines(notes, "start")) == 1, description="it runs")
        first.pause()
        second = launch(start_worker, server, concurrency=1)
        wait_until(lambda: len(lines(notes, "start")) == 2, description="it runs elsewhere", timeout=60)
        first.resume()
        first.wait_for_log("worker_begins_anew")
        wait_until(lambda: len(lines(notes, "end")) >= 1, description="it ends elsewhere", timeout=60)
        assert first.running
        assert second.running

    @pytest.mark.parametrize("pool", ["prefork", "threads"])
    def test_a_restarted_server_is_found_again(
        self, app: Celery, server: PrivateServer, start_worker: Start, pool: str
    ) -> None:
        worker = launch(start_worker, server, pool=pool)
        assert send(app, "echo", 1).get(timeout=60) == 1
        server.restart()
        assert send(app, "echo", 2).get(timeout=60) == 2
        server.restart()
        assert send(app, "echo", 3).get(timeout=60) == 3
        assert worker.running

    def test_what_waits_in_memory_goes_back_when_the_connection_is_lost(
        self, app: Celery, server: PrivateServer, start_worker: Start, notes: Path
    ) -> None:
        launch(start_worker, server, concurrency=2)
        for number in range(6):
            send(app, "note_late", str(notes), str(number), 0.5, ignore_result=True)
        wait_until(lambda: len(lines(notes, "start")) >= 1, description="some run")
        server.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait_until(lambda: len(set(lines(notes, "end"))) == 6, description="all have run", timeout=60)


class TestReconcile:
    """What stands in a worker's custody and is known to nobody there: a consumer lost it with its connection, say."""

    def test_it_goes_back_once_it_cannot_be_on_its_way(
        self, app: Celery, server: PrivateServer, store: Store, start_worker: Start, notes: Path
    ) -> None:
        launch(start_worker, server, concurrency=2)
        (card,) = store.workers()
        store.ring("other", 0, "{}")
        reply = store.take(card.id, "a token of nobody", slots=1, label="x", queues=["other"])
        assert len(reply.taken) == 1
        holds_for(lambda: store.client.llen("other") == 0, description="newer than what it has seen", seconds=0.8)
        # It runs longer than two looks, and stays.
        send(app, "note_late", str(notes), "a", 1.5, ignore_result=True)
        wait_until(lambda: store.client.llen("other") == 1, description="it is in its lane again")
        wait_until(lambda: lines(notes, "end") == ["a"], description="the other has run")
        assert lines(notes, "start") == ["a"]
        store.client.delete("other")


@pytest.mark.leaves(r".*")
class TestUnserved:
    def test_a_step_of_an_unknown_task_waits_for_a_worker_that_has_it(
        self, app: Celery, server: PrivateServer, store: Store, start_worker: Start
    ) -> None:
        step = str(uuid.uuid4())
        launch(start_worker, server)
        send(app, "elsewhere", task_id=step, headers={HEADER: {"k": "s"}})
        wait_until(
            lambda: store.client.hget(store.keys.step(step, step), "s") == b"l",
            description="the step is delayed",
        )
        assert no_custody(store)
        assert store.client.exists(store.keys.result(step)) == 0
