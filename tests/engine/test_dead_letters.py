"""What kills, cannot be read, is unknown or too old: held until a person or a worker with the code comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chord

from agentq.cli.root import execute
from agentq.core.errors import RunCancelled
from agentq.engine.messages import HEADER
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_app
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.perils"
TIMEOUT = 60

Start = Callable[..., WorkerProcess]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def module_app(module_server: PrivateServer) -> Iterator[Any]:
    made = load_app(PROJECT, url=module_server.celery_url)
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def worker(module_app: Any, module_server: PrivateServer, start_module_worker: Start) -> WorkerProcess:
    """The worker that most tests share, of two children."""
    return start_module_worker(PROJECT, url=module_server.celery_url, queues=["celery"])


@pytest.fixture
def app(module_app: Any) -> Iterator[Any]:
    yield module_app
    assert module_app.dead.list() == []
    check_leaks(module_app.store.client)


@pytest.fixture
def launch(module_server: PrivateServer, start_worker: Start) -> Start:
    """Start a worker for one queue; what is named is its environment."""

    def start(queue: str, *, pool: str = "solo", **env: str) -> WorkerProcess:
        return start_worker(PROJECT, url=module_server.celery_url, queues=[queue], pool=pool, concurrency=1, env=env)

    return start


@pytest.fixture
def agentq(app: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command and return its exit code, stdout and stderr."""
    monkeypatch.setenv("AGENTQ_REDIS_URL", app.store.url)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = execute(["-A", f"{PROJECT}:app", *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def starts(folder: Path) -> int:
    path = folder / "starts"
    return len(path.read_text().split()) if path.exists() else 0


def letter_of(app: Any) -> Any:
    def find() -> Any:
        found = app.dead.list()
        return found[0] if found else None

    return wait_until(find, description="there is a dead letter", timeout=TIMEOUT)


def offer_until(app: Any, is_done: Callable[[], bool]) -> None:
    """Return when it is done; the pauses between two offers are cut short, since each worker gets its share of them."""
    due, client = app.store.keys.of("due"), app.store.client

    def offered() -> bool:
        if waiting := client.zrange(due, 0, -1):
            client.zadd(due, dict.fromkeys(waiting, 1), xx=True)
        return is_done()

    wait_until(offered, description="a worker with the code runs it", timeout=TIMEOUT, interval=0.1)


class TestPoison:
    def test_a_step_that_kills_its_child_is_held_and_goes_on_when_it_is_replayed(
        self, app: Any, worker: WorkerProcess, agentq: Command, tmp_path: Path
    ) -> None:
        handle = app.tasks["daring"].start(str(tmp_path))
        letter = letter_of(app)
        assert (letter.why, letter.deaths, starts(tmp_path)) == ("poison", 3, 3)
        worker.wait_for_log("condemned number=1")
        assert app.tasks[f"{PROJECT}.quiet"].delay("still here").get(timeout=TIMEOUT) == "still here"
        (step,) = handle.steps()
        assert step.status == "condemned"
        wait_until(lambda: handle.status() == "parked", description="the run waits", timeout=TIMEOUT)
        kinds = [event.kind for event in handle.events(follow=False)]
        assert (kinds.count("lost"), kinds.count("condemned")) == (3, 1)

        code, told, _ = agentq("dead", "list", "--json")
        (listed,) = json.loads(told)
        assert (code, listed["letter_id"], listed["why"]) == (0, letter.letter_id, "poison")
        assert str(tmp_path) in agentq("dead", "show", letter.letter_id[:8])[1]
        code, told, hint = agentq("runs", "show", handle.id)
        assert (code, "condemned" in told) == (0, True)
        assert f"agentq dead replay {letter.letter_id}" in hint
        assert "agentq dead list" in agentq("doctor")[1]

        (tmp_path / "safe").touch()
        code, told, _ = agentq("dead", "replay", letter.letter_id[:8])
        assert (code, told) == (0, f"Dead letter {letter.letter_id} is replayed.\n")
        assert handle.get(timeout=TIMEOUT) == "alive"
        code, _, hint = agentq("dead", "replay", letter.letter_id)
        assert (code, "There is no dead letter" in hint) == (2, True)
        assert agentq("dead", "drop")[0] == 2

    def test_dropped_it_fails_and_its_agent_goes_on(
        self, app: Any, worker: WorkerProcess, agentq: Command, tmp_path: Path
    ) -> None:
        handle = app.tasks["careful"].start(str(tmp_path))
        code, told, _ = agentq("dead", "drop", letter_of(app).letter_id, "--json")
        assert (code, len(json.loads(told)["dropped"])) == (0, 1)
        assert handle.get(timeout=TIMEOUT) == "gave up kill"

    def test_what_stands_behind_it_fails_as_in_celery(self, app: Any, worker: WorkerProcess, tmp_path: Path) -> None:
        kill, quiet = app.tasks[f"{PROJECT}.kill"], app.tasks[f"{PROJECT}.quiet"]
        met = chord([quiet.s("a"), kill.s(str(tmp_path), "child") | quiet.s()], quiet.s()).apply_async()
        app.dead.drop(letter_of(app).letter_id)
        with pytest.raises(Exception, match="given up"):
            met.get(timeout=TIMEOUT)

    def test_a_step_that_kills_its_worker_leaves_bystanders_alone(
        self, app: Any, launch: Start, tmp_path: Path
    ) -> None:
        quiet = app.tasks[f"{PROJECT}.quiet"].using(queue="rough")
        poison = app.tasks[f"{PROJECT}.kill"].using(queue="rough").delay(str(tmp_path), "worker")
        words = [quiet.delay(str(number)) for number in range(20)]
        for number in range(1, 4):
            launch("rough", pool="prefork")
            wait_until(lambda number=number: starts(tmp_path) == number, description="it kills", timeout=TIMEOUT)  # type: ignore[misc]
        # In a pool without children the step's parent would be this very process.
        launch("rough", pool="prefork")
        letter = letter_of(app)
        assert letter.step_id == poison.id
        assert [word.get(timeout=TIMEOUT) for word in words] == [str(number) for number in range(20)]
        assert starts(tmp_path) == 3
        app.dead.drop(letter.letter_id)
        with pytest.raises(Exception, match="given up"):
            poison.get(timeout=TIMEOUT)


class TestUnreadable:
    def test_it_is_kept_whole_and_the_worker_goes_on(self, app: Any, worker: WorkerProcess, agentq: Command) -> None:
        raws = [
            b"\x00\xff no message",
            b'{"body": "x", "headers": {}, "properties": {}}',
            b"[1, 2]",
            b'{"agentq":"no name","body": "x", "headers": {}, "properties": {}}',
            b'{"body": "x", "agentq": "a|b|1", "headers": {}, "properties": {}}',
            b'{"body": {"__type__": "decimal", "__value__": "none"}, "headers": {}, "properties": {}}',
            b"[" * 100_000,
        ]
        for raw in raws:
            app.store.client.lpush("celery", raw)
        with app.producer_pool.acquire() as producer:
            producer.publish({"hello": "world"}, routing_key="celery", serializer="json")
        sent = {"args": ("a",), "queue": "celery", "serializer": "pickle"}
        step = app.send_task(f"{PROJECT}.quiet", headers={HEADER: {"k": "s"}}, **sent)
        app.send_task("plain", **sent)
        unwanted = app.send_task(f"{PROJECT}.quiet", headers={HEADER: {"k": "s"}}, **sent)
        count = len(raws) + 4
        wait_until(lambda: len(app.dead.list()) == count, description="all are dead letters", timeout=TIMEOUT)
        kept = {app.dead.get(letter.letter_id)[1] for letter in app.dead.list()}
        assert set(raws) <= kept
        assert {letter.why for letter in app.dead.list()} == {"unreadable"}
        assert "it names no task" in {letter.words for letter in app.dead.list()}
        assert app.tasks[f"{PROJECT}.quiet"].delay("still here").get(timeout=TIMEOUT) == "still here"
        plain = next(letter.letter_id for letter in app.dead.list() if letter.step_id is None)
        code, told, hint = agentq("dead", "drop", plain, plain, "nothing")
        assert (code, told) == (2, f"Dead letter {plain} is dropped.\n")
        assert "no dead letter nothing" in hint
        app.store.client.sadd(app.store.keys.of("cancelled", unwanted.id), unwanted.id)
        assert agentq("dead", "drop", "--all")[0] == 0
        with pytest.raises(Exception, match="given up"):
            step.get(timeout=TIMEOUT)
        assert unwanted.state == "REVOKED"


class TestUnknown:
    def test_a_rolling_deploy_loses_nothing(
        self, app: Any, worker: WorkerProcess, launch: Start, agentq: Command
    ) -> None:
        results = [
            app.send_task("newcomer", args=("a",), queue="celery", headers={HEADER: {"k": "s"}}),
            app.send_task("plain_newcomer", args=("b",), queue="celery"),
        ]
        gone = app.send_task("gone", args=("c",), queue="celery", headers={HEADER: {"k": "s"}})
        wait_until(lambda: len(app.store.unserved()) == 2, description="both steps are put off", timeout=TIMEOUT)
        code, told, _ = agentq("doctor")
        assert (code, "task newcomer" in told) == (0, True)
        # Nobody has known it for long.
        key = app.store.keys.step(gone.id, gone.id)
        app.store.client.hset(key, "un", "0|1000|task|words")
        launch("celery", PERILS_NEW="1")
        offer_until(app, lambda: all(result.ready() for result in results))
        assert [result.get(timeout=TIMEOUT) for result in results] == ["a", "b"]
        letter = letter_of(app)
        assert (letter.why, letter.words) == ("unknown task", "no worker that took it knows the task 'gone'")
        assert app.store.unserved() == []
        app.dead.drop(letter.letter_id)
        with pytest.raises(Exception, match="given up"):
            gone.get(timeout=TIMEOUT)


class TestVersions:
    def test_a_cancelled_run_ends_when_nobody_has_its_version_any_more(self, app: Any, launch: Start) -> None:
        launch("aged", PERILS_VERSION="2", AGENTQ_UNKNOWN_TASK_GRACE="500ms")
        handle = app.tasks["aged"].start()
        wait_until(lambda: handle.status() == "unschedulable", description="nobody serves it", timeout=TIMEOUT)
        handle.cancel("nobody will")
        offer_until(app, lambda: handle.status() == "cancelled")
        with pytest.raises(RunCancelled):
            handle.get(timeout=TIMEOUT)

    def test_a_run_waits_for_its_version_or_goes_on_where_the_agent_says_so(
        self, app: Any, launch: Start, agentq: Command
    ) -> None:
        launch("aged", PERILS_VERSION="2")
        handle = app.tasks["aged"].start()
        wait_until(lambda: handle.status() == "unschedulable", description="nobody serves it", timeout=TIMEOUT)
        _, told, hint = agentq("runs", "show", handle.id)
        assert "unschedulable" in told
        assert "no worker serves version '1' of 'aged'" in hint
        code, told, _ = agentq("doctor")
        assert (code, "continues=" in told) == (0, True)

        old = launch("aged")
        handle.signal("go")
        offer_until(app, lambda: handle.status() == "succeeded")
        assert handle.get(timeout=TIMEOUT) == "1"
        old.terminate()

        later = app.tasks["aged"].start()
        later.signal("go")
        launch("aged", PERILS_VERSION="2", PERILS_CONTINUES="0 1")
        offer_until(app, lambda: later.status() == "succeeded")
        assert later.get(timeout=TIMEOUT) == "2"
