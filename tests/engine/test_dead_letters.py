"""What kills, cannot be read, is unknown or too old: held until a person or a worker with the code comes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentq.engine.messages import HEADER
from tests.kit.leaks import check_leaks
from tests.kit.process import ROOT, clean_environment
from tests.kit.projects import load_app
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.perils"
TIMEOUT = 40

Start = Callable[..., WorkerProcess]


@pytest.fixture
def app(clean_server: PrivateServer) -> Iterator[Any]:
    made = load_app(PROJECT, url=clean_server.celery_url)
    yield made
    made.store.close()


@pytest.fixture
def launch(clean_server: PrivateServer, start_worker: Start) -> Start:
    """Start a worker of two children; what is named is its environment."""

    def start(*, concurrency: int = 2, **env: str) -> WorkerProcess:
        return start_worker(PROJECT, url=clean_server.celery_url, concurrency=concurrency, env=env)

    return start


def starts(folder: Path) -> int:
    path = folder / "starts"
    return len(path.read_text().split()) if path.exists() else 0


def letter_of(app: Any) -> Any:
    def find() -> Any:
        found = app.dead.list()
        return found[0] if found else None

    return wait_until(find, description="there is a dead letter", timeout=TIMEOUT)


def agentq(app: Any, *words: str) -> tuple[int, str, str]:
    """Run a command on the test's server and return its exit code, stdout and stderr."""
    env = clean_environment({"AGENTQ_REDIS_URL": app.store.url, "AGENTQ_APP": f"{PROJECT}:app"})
    argv = [sys.executable, "-m", "agentq.cli", *words]
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return done.returncode, done.stdout, done.stderr


class TestPoison:
    def test_a_step_that_kills_its_child_is_held_and_goes_on_when_it_is_replayed(
        self, app: Any, launch: Start, tmp_path: Path
    ) -> None:
        worker = launch()
        handle = app.tasks["daring"].start(str(tmp_path))
        letter = letter_of(app)
        assert (letter.why, letter.deaths, starts(tmp_path)) == ("poison", 3, 3)
        assert "condemned number=1" in worker.log()
        assert app.tasks[f"{PROJECT}.quiet"].delay("still here").get(timeout=TIMEOUT) == "still here"
        (step,) = handle.steps()
        assert (step.status, handle.status()) == ("condemned", "parked")
        kinds = [event.kind for event in handle.events(follow=False)]
        assert (kinds.count("lost"), kinds.count("condemned")) == (3, 1)

        code, told, _ = agentq(app, "dead", "list", "--json")
        (listed,) = json.loads(told)
        assert (code, listed["letter_id"], listed["why"]) == (0, letter.letter_id, "poison")
        _, told, _ = agentq(app, "dead", "show", letter.letter_id[:8])
        assert str(tmp_path) in told
        code, told, hint = agentq(app, "runs", "show", handle.id)
        assert code == 0
        assert "condemned" in told
        assert f"agentq dead replay {letter.letter_id}" in hint
        code, told, _ = agentq(app, "doctor")
        assert "dead letters" in told

        (tmp_path / "safe").touch()
        code, told, _ = agentq(app, "dead", "replay", letter.letter_id[:8])
        assert (code, told) == (0, f"Dead letter {letter.letter_id} is replayed.\n")
        assert handle.get(timeout=TIMEOUT) == "alive"
        code, _, hint = agentq(app, "dead", "replay", letter.letter_id)
        assert code == 2
        assert "There is no dead letter" in hint

    def test_dropped_it_fails_and_its_agent_goes_on(self, app: Any, launch: Start, tmp_path: Path) -> None:
        launch()
        handle = app.tasks["careful"].start(str(tmp_path))
        code, told, _ = agentq(app, "dead", "drop", letter_of(app).letter_id, "--json")
        assert code == 0
        assert len(json.loads(told)["dropped"]) == 1
        assert handle.get(timeout=TIMEOUT) == "gave up kill"
        assert app.dead.list() == []

    def test_a_step_that_kills_its_worker_leaves_bystanders_alone(
        self, app: Any, launch: Start, tmp_path: Path
    ) -> None:
        launch()
        handle = app.tasks["daring"].start(str(tmp_path), "worker")
        words = [app.tasks[f"{PROJECT}.quiet"].delay(str(number)) for number in range(20)]
        for _ in range(3):
            before = starts(tmp_path)
            wait_until(lambda: starts(tmp_path) > 0, description="it has started", timeout=TIMEOUT)
            if app.dead.list():
                break
            launch()
            wait_until(
                lambda before=before: starts(tmp_path) > before or app.dead.list(),  # type: ignore[misc]
                description="it has killed another one",
                timeout=TIMEOUT,
            )
        letter = letter_of(app)
        assert letter.name.endswith("kill")
        launch()
        assert [word.get(timeout=TIMEOUT) for word in words] == [str(number) for number in range(20)]
        app.dead.drop(letter.letter_id)
        with pytest.raises(Exception, match="given up"):
            handle.get(timeout=TIMEOUT)

    def test_a_condemned_member_of_a_chain_and_a_chord_is_dropped_as_celery_fails(
        self, app: Any, launch: Start, tmp_path: Path
    ) -> None:
        from celery import chord

        launch()
        kill, quiet = app.tasks[f"{PROJECT}.kill"], app.tasks[f"{PROJECT}.quiet"]
        behind = (kill.s(str(tmp_path), "child") | quiet.s()).apply_async()
        letter = letter_of(app)
        app.dead.drop(letter.letter_id)
        with pytest.raises(Exception, match="given up"):
            behind.get(timeout=TIMEOUT)
        met = chord([quiet.s("a"), kill.s(str(tmp_path), "child")], quiet.s()).apply_async()
        app.dead.drop(letter_of(app).letter_id)
        with pytest.raises(Exception, match="given up"):
            met.get(timeout=TIMEOUT)
        # The chord's body runs, to find that it has failed.
        check_leaks(app.store.client)


class TestUnreadable:
    def test_garbage_is_kept_whole_and_the_worker_goes_on(self, app: Any, launch: Start) -> None:
        launch()
        raws = [b"\x00\xff no message", b'{"body": "x", "headers": {}, "properties": {}}', b"[1, 2]"]
        for raw in raws:
            app.store.client.lpush("celery", raw)
        pickled = app.send_task(
            f"{PROJECT}.quiet", args=("a",), queue="celery", serializer="pickle", headers={HEADER: {"k": "s"}}
        )
        plain = app.send_task(f"{PROJECT}.quiet", args=("a",), queue="celery", serializer="pickle")
        count = len(raws) + 2
        wait_until(lambda: len(app.dead.list()) == count, description="all are dead letters", timeout=TIMEOUT)
        kept = {app.dead.get(letter.letter_id)[1] for letter in app.dead.list()}
        assert set(raws) <= kept
        assert app.tasks[f"{PROJECT}.quiet"].delay("still here").get(timeout=TIMEOUT) == "still here"
        code, _, _ = agentq(app, "dead", "drop", "--all")
        assert code == 0
        for result in (pickled, plain):
            with pytest.raises(Exception, match="given up"):
                result.get(timeout=TIMEOUT)

    def test_a_member_of_no_task_protocol_is_kept_too(self, app: Any, launch: Start) -> None:
        launch()
        with app.producer_pool.acquire() as producer:
            producer.publish({"hello": "world"}, routing_key="celery", serializer="json")
        letter = letter_of(app)
        assert letter.words == "it names no task"
        app.dead.drop(letter.letter_id)


class TestUnknown:
    def test_a_rolling_deploy_loses_nothing(self, app: Any, launch: Start) -> None:
        launch()
        results = [
            app.send_task("newcomer", args=("a",), queue="celery", headers={HEADER: {"k": "s"}}),
            app.send_task("plain_newcomer", args=("b",), queue="celery"),
        ]
        wait_until(lambda: len(app.store.unserved()) == 1, description="it is put off", timeout=TIMEOUT)
        code, told, _ = agentq(app, "doctor")
        assert code == 0
        assert "task newcomer" in told
        launch(PERILS_NEW="1")
        assert [result.get(timeout=TIMEOUT) for result in results] == ["a", "b"]
        assert (app.dead.list(), app.store.unserved()) == ([], [])

    def test_what_nobody_ever_knows_is_a_dead_letter(self, app: Any, launch: Start) -> None:
        launch(AGENTQ_UNKNOWN_TASK_GRACE="0s")
        app.send_task("newcomer", args=("a",), queue="celery", headers={HEADER: {"k": "s"}})
        app.send_task("plain_newcomer", args=("b",), queue="celery")
        wait_until(lambda: len(app.dead.list()) == 2, description="both are dead letters", timeout=TIMEOUT)
        assert {letter.why for letter in app.dead.list()} == {"unknown task"}
        assert {letter.words for letter in app.dead.list()} == {
            "no worker that took it knows the task 'newcomer'",
            "no worker that took it knows the task 'plain_newcomer'",
        }
        for letter in app.dead.list():
            app.dead.drop(letter.letter_id)


class TestVersions:
    def begin(self, app: Any, worker: WorkerProcess) -> Any:
        """Park a run of the first version, then stop its worker."""
        handle = app.tasks["aged"].start()
        wait_until(lambda: handle.status() == "parked", description="it waits for its signal", timeout=TIMEOUT)
        worker.terminate()
        return handle

    def test_a_run_waits_for_a_worker_of_its_version(self, app: Any, launch: Start) -> None:
        handle = self.begin(app, launch())
        launch(PERILS_VERSION="2")
        handle.signal("go")
        wait_until(lambda: handle.status() == "unschedulable", description="nobody serves it", timeout=TIMEOUT)
        _, told, hint = agentq(app, "runs", "show", handle.id)
        assert "unschedulable" in told
        assert "no worker serves version '1' of 'aged'" in hint
        code, told, _ = agentq(app, "doctor")
        assert code == 0
        assert "continues=" in told
        newer = app.tasks["aged"].start()
        launch()
        assert handle.get(timeout=TIMEOUT) == "1"
        newer.signal("go")
        assert newer.get(timeout=TIMEOUT) == "1"
        assert app.dead.list() == []

    def test_or_moves_on_where_the_agent_says_so(self, app: Any, launch: Start) -> None:
        handle = self.begin(app, launch())
        launch(PERILS_VERSION="2", PERILS_CONTINUES="0 1")
        handle.signal("go")
        assert handle.get(timeout=TIMEOUT) == "2"
