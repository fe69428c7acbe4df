"""Async steps in real workers: one loop per process, hundreds of waits in it, clients that live from step to step."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import group

from agentq import AgentqError
from tests.kit.projects import load_module
from tests.kit.sample import lines, wait_for_lines
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.asyncs"
CROWD = 500


class Counting(ThreadingHTTPServer):
    """A web server that counts its connections; each stays open as long as the client wants."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Counting

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_args: Any) -> None: ...


@pytest.fixture
def web() -> Iterator[Counting]:
    server = Counting()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def workers(module_server: PrivateServer, make_module_worker: Callable[..., WorkerProcess]) -> dict[str, WorkerProcess]:
    """One process of five hundred threads, and one with a child that gives way after a few steps."""
    url = module_server.celery_url
    made = {
        "threads": make_module_worker(PROJECT, url=url, queues=["threads"], pool="threads", concurrency=CROWD),
        "prefork": make_module_worker(
            PROJECT, url=url, queues=["prefork"], concurrency=1, options=["--max-tasks-per-child", "10"]
        ),
    }
    for worker in made.values():
        worker.start()
    for worker in made.values():
        worker.wait_ready()
    return made


@pytest.fixture
def project(clean_server: PrivateServer, workers: dict[str, WorkerProcess]) -> Any:
    return load_module(PROJECT, url=clean_server.celery_url)


@pytest.fixture(params=["threads", "prefork"])
def pool(request: pytest.FixtureRequest, workers: dict[str, WorkerProcess]) -> Iterator[str]:
    """A pool's name; nothing of its loop was closed under anybody."""
    yield request.param
    log = workers[request.param].log()
    assert "Event loop is closed" not in log
    assert "was destroyed but it is pending" not in log


def test_five_hundred_wait_in_one_process_and_few_threads(project: Any) -> None:
    steps = group(project.meets.s(CROWD).set(queue="threads") for _ in range(CROWD))
    (pid,) = set(steps.apply_async().get(timeout=120))
    # The process has some fifteen of its own; the pool's stay once they were made.
    assert psutil.Process(pid).num_threads() < 50


def test_one_that_waits_is_among_those_that_run(project: Any, pool: str, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    asked = project.waits.apply_async((str(path), 3.0), queue=pool)
    wait_for_lines(path, 1)
    wait_until(lambda: asked.id in _active(project), description="the step to be listed")
    assert asked.get(timeout=60) == "waited"
    wait_until(lambda: asked.id not in _active(project), description="it to be listed no more")


def test_how_long_one_has_run_is_told(
    project: Any, pool: str, workers: dict[str, WorkerProcess], tmp_path: Path
) -> None:
    asked = project.waits.apply_async((str(tmp_path / "notes"), 0.3), queue=pool)
    asked.get(timeout=60)
    said = re.compile(rf"{asked.id}\] succeeded in ([0-9.]+)s")
    wait_until(lambda: said.search(workers[pool].log()) is not None, description="the log's line of its end")
    assert float(said.findall(workers[pool].log())[0]) >= 0.3


def _active(project: Any) -> set[str]:
    found = project.app.control.inspect(timeout=5).active() or {}
    return {each["id"] for listed in found.values() for each in listed}


def test_guards_are_asked_before_it_begins(project: Any, pool: str, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    for each in [project.alone.apply_async((str(path),), queue=pool) for _ in range(5)]:
        each.get(timeout=60)
    assert lines(path) == ["in", "out"] * 5


def test_one_that_fails_is_tried_again_in_place(project: Any, pool: str, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    assert project.at_the_second_try.apply_async((str(path),), queue=pool).get(timeout=60) == "done"
    assert lines(path) == ["try 1", "try 2"]


def test_a_client_lives_from_step_to_step_and_ends_with_its_process(project: Any, web: Counting, pool: str) -> None:
    found = [project.fetches.apply_async((web.url,), queue=pool).get(timeout=60) for _ in range(25)]
    processes = {pid for pid, text in found if text == "ok"}
    assert len(processes) == (1 if pool == "threads" else len(processes))
    assert len(found) == 25
    assert web.connections == len(processes), "one connection for each process"
    assert (len(processes) > 1) == (pool == "prefork"), "children gave way to fresh ones"


ODD = [[[0.01], None, {}], [1, {}, {}], [[0.01], {}, "x"], [1, 2], None]
"""Bodies by which no task can be called."""


def test_a_message_that_is_no_call_is_kept_and_holds_no_slot(project: Any, pool: str) -> None:
    """Of a stock producer, for an async step and a plain one: of each body two."""
    app, names = project.app, [project.plain.name, project.remembers.name]
    sent = [(name, body) for name in names for body in ODD]
    with app.producer_pool.acquire() as producer:
        for number, (name, body) in enumerate(sent):
            headers = {"task": name, "id": f"odd-{number}", "root_id": f"odd-{number}", "lang": "py"}
            producer.publish(body, routing_key=pool, serializer="json", headers=headers)
    wait_until(lambda: len(app.dead.list()) == len(sent), description="all are dead letters", timeout=60)
    assert {letter.why for letter in app.dead.list()} == {"unreadable"}
    assert all("it is no valid task" in letter.words for letter in app.dead.list())
    for letter in app.dead.list():
        app.dead.drop(letter.letter_id)
    assert project.plain.apply_async((0.0,), queue=pool).get(timeout=60) == 0.0


def test_what_its_class_puts_around_a_step_is_around_it(project: Any, pool: str) -> None:
    assert project.is_called_by_its_class.apply_async(queue=pool).get(timeout=60) == "set by __call__"


def test_what_a_step_remembers_is_its_own(project: Any, pool: str) -> None:
    asked = [project.remembers.apply_async((f"value {n}",), queue=pool) for n in range(8)]
    for number, each in enumerate(asked):
        assert each.get(timeout=60) == ["empty", f"value {number}", each.id, each.id]


def test_what_a_step_leaves_behind_is_closed_and_told(
    project: Any, pool: str, workers: dict[str, WorkerProcess], tmp_path: Path
) -> None:
    path = tmp_path / "notes"
    assert project.abandons.apply_async((str(path),), queue=pool).get(timeout=60) == "forgotten"
    wait_for_lines(path, 1)
    wait_until(lambda: "nobody waits for this" in workers[pool].log(), description="the log tells of the task")
    assert "left_behind" in workers[pool].log()


def test_one_that_takes_too_long_is_cancelled_and_cleans_up(project: Any, pool: str, tmp_path: Path) -> None:
    path = tmp_path / "notes"

    def overran() -> bool:
        """Whether the step had begun before its limit came: a child that gets no processor may be too late for it."""
        with pytest.raises(AgentqError, match="limit"):
            project.too_long.apply_async((str(path),), queue=pool).get(timeout=60)
        return lines(path) != []

    wait_until(overran, description="a step that begins within its limit")
    assert lines(path) == ["begun", "cleaned up"], "the failure is known only once the step has cleaned up"


def test_a_plain_step_may_run_a_loop_of_its_own(project: Any, pool: str) -> None:
    asked = [project.by_a_loop_of_its_own.apply_async((number,), queue=pool) for number in range(4)]
    assert [each.get(timeout=60) for each in asked] == [0, 2, 4, 6]


def test_a_warm_shutdown_lets_the_waits_end(project: Any, workers: dict[str, WorkerProcess], tmp_path: Path) -> None:
    """The last one: no worker is left."""
    path = tmp_path / "notes"
    asked = [project.waits.apply_async((str(path), 1.0), queue=pool) for pool in ("threads", "threads", "prefork")]
    wait_for_lines(path, 3)
    for worker in workers.values():
        worker.send(15)
    assert [each.get(timeout=60) for each in asked] == ["waited"] * 3
    assert [worker.wait() for worker in workers.values()] == [0, 0]
    assert sorted(lines(path)) == ["begun"] * 3 + ["ended"] * 3
    for worker in workers.values():
        assert "Traceback" not in worker.log().split("Warm shutdown")[1]
