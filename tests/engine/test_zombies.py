"""Runs that get nowhere stand still, with all below them, until a person has them go on; others never do."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentq.cli.root import execute
from agentq.core.errors import RunCancelled, UsageError
from agentq.core.models import ENDED
from tests.kit.leaks import check_leaks
from tests.kit.mode import settings_of
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.zombies"
TIMEOUT = 60.0


@pytest.fixture(scope="module", params=["fused", pytest.param("stock", marks=pytest.mark.long)])
def mode(request: pytest.FixtureRequest) -> str:
    """Both ways to take: from the lanes, and by the hints of a broker."""
    return str(request.param)


@pytest.fixture(scope="module")
def started(
    mode: str, module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]
) -> Iterator[tuple[Any, WorkerProcess]]:
    env = settings_of(mode)
    module_server.client.flushall()
    found = load_module(PROJECT, url=module_server.celery_url, **env)
    worker = start_module_worker(PROJECT, url=module_server.celery_url, concurrency=4, env=env)
    yield found, worker
    check_leaks(module_server.client)
    worker.terminate(timeout=20)


@pytest.fixture
def project(started: tuple[Any, WorkerProcess]) -> Any:
    return started[0]


def read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def wait_stopped(handle: Any) -> None:
    wait_until(
        lambda: handle.status() in ("stopped", *ENDED),
        description="the run stands still",
        report=lambda: told(handle),
    )
    assert handle.status() == "stopped", told(handle)


def told(handle: Any) -> str:
    events = [f"{event.kind} {event.name} {event.fields}" for event in handle.events(follow=False)][-20:]
    return "\n".join([handle.status(), *events])


def stops(handle: Any) -> list[Any]:
    return [event for event in handle.events(follow=False) if event.kind == "stopped"]


def test_a_run_that_calls_the_same_for_the_same_stands_still_until_a_word(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "looks"
    handle = project.stuck.start(str(path))
    wait_stopped(handle)
    assert len(read(path)) == 5, "the sixth was not sent"
    (event,) = stops(handle)
    assert event.fields["rule"] == "repeats"
    assert 'called "tests.projects.zombies.look"' in event.fields["why"]
    assert [run.run_id for run in project.app.runs.list(status="stopped")] == [handle.id]
    # What it had done counts no more; it is as lost as before, though.
    assert handle.resume(by="Ada")
    wait_until(lambda: len(read(path)) == 10, description="it looks again", report=lambda: told(handle))
    wait_until(lambda: len(stops(handle)) == 2, description="it is stopped once more")
    assert handle.resume(allow=["repeats"])
    wait_until(lambda: len(read(path)) >= 20, description="the rule does not stop it again")
    Path(f"{path}.enough").touch()
    assert handle.get(timeout=TIMEOUT) == "enough"
    (first, second) = [event.fields for event in handle.events(follow=False) if event.kind == "resumed"]
    assert first == {"allow": [], "by": "Ada"}
    assert second["allow"] == ["repeats"]


@pytest.mark.parametrize("agent", ["circling", "locally", "wasting"])
def test_other_ways_to_get_nowhere(project: Any, tmp_path: Path, agent: str) -> None:
    handle = getattr(project, agent).start(str(tmp_path / "done"))
    wait_stopped(handle)
    assert len(read(tmp_path / "done")) == {"circling": 6, "locally": 5, "wasting": 5}[agent]
    assert handle.cancel()
    with pytest.raises(RunCancelled):
        handle.get(timeout=TIMEOUT)


def test_who_polls_and_who_draws_samples_is_no_zombie(project: Any, tmp_path: Path) -> None:
    handle = project.polling.start(str(tmp_path / "polls"))
    assert handle.get(timeout=TIMEOUT) == 330
    assert stops(handle) == []


def test_all_below_it_stands_still_within_one_step(project: Any, tmp_path: Path) -> None:
    path, gate = tmp_path / "begun", tmp_path / "gate"
    handle = project.crowded.using(priority="high").start(str(path), str(gate), 200)
    wait_stopped(handle)
    begun = Counter(line.split()[0] for line in read(path))
    assert begun["look"] == 3
    assert begun["stand"] < 200
    # What ran comes to its end; of what waited nothing begins, of the crowd and of the sub-agents as little.
    wait_until(
        lambda: not {step.status for run in family(project, handle) for step in run.steps()} & {"running", "queued"},
        description="nothing runs or waits for a worker",
        report=lambda: told(handle),
    )
    (stop,) = stops(handle)
    assert [event for event in handle.events(after=stop.offset, follow=False) if event.kind == "started"] == []
    gate.touch()
    Path(f"{path}.enough").touch()
    assert handle.resume()
    assert handle.get(timeout=TIMEOUT) == [-2, 1, 1, sum(range(200))]
    begun = Counter(line for line in read(path) if line.startswith("stand"))
    assert begun == {"stand -1": 2, **{f"stand {number}": 1 for number in range(200)}}, "each member ran once"


def family(project: Any, handle: Any) -> list[Any]:
    """The run and its sub-agents."""
    found = project.app.runs.list(limit=1000)
    return [handle, *[project.app.runs.get(run.run_id) for run in found if run.parent_id == handle.id]]


def test_a_stopped_run_can_be_cancelled_and_forked(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "looks"
    handle = project.stuck.start(str(path))
    wait_stopped(handle)
    last = [step for step in handle.steps() if step.status == "succeeded"][-1]
    fork = handle.fork(last.step_id)
    # The fork begins without the evidence of its origin: it does its last step again, and five more.
    wait_stopped(fork)
    assert len(read(path)) == 5 + 5
    for each in (handle, fork):
        assert each.cancel()
        with pytest.raises(RunCancelled):
            each.get(timeout=TIMEOUT)
        with pytest.raises(UsageError, match=r"has ended \(cancelled\): it cannot be resumed"):
            each.resume()
        with pytest.raises(UsageError, match="cannot be stopped"):
            each.stop()


def test_an_agent_that_swallows_its_cancel_is_let_out_of_its_stop(project: Any, tmp_path: Path) -> None:
    handle = project.stubborn.start(str(tmp_path / "looks"))
    wait_stopped(handle)
    handle.cancel()
    assert handle.get(timeout=TIMEOUT) == "left"
    assert read(tmp_path / "looks")[-1] == "swallowed"


def test_many_who_resume_at_once_do_it_once(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "looks"
    handle = project.stuck.start(str(path))
    wait_stopped(handle)
    assert not handle.stop("twice"), "it stands still already"
    done: list[bool] = []
    threads = [threading.Thread(target=lambda: done.append(handle.resume())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False] * 7 + [True]
    wait_until(lambda: len(stops(handle)) == 2, description="it is stopped again")
    assert len(read(path)) == 10
    with pytest.raises(UsageError, match=r'There is no rule "repeat" to allow\. Did you mean "repeats"\?'):
        handle.resume(allow=["repeat"])
    handle.cancel()


def test_a_person_stops_a_run_and_has_it_go_on(project: Any, tmp_path: Path) -> None:
    path, gate = tmp_path / "begun", tmp_path / "gate"
    handle = project.waiting.start(str(path), str(gate))
    wait_until(lambda: read(path) == ["stand -1"], description="its step runs")
    assert handle.stop("let me look at it")
    assert handle.status() == "stopped"
    gate.touch()
    wait_until(lambda: handle.steps()[0].status == "succeeded", description="what ran has ended")
    wait_until(lambda: is_set_aside(project, handle), description="its next turn waits in its line")
    assert read(path) == ["stand -1"]
    assert handle.resume()
    assert handle.get(timeout=TIMEOUT) == 1
    assert read(path) == ["stand -1", "look below"]


def is_set_aside(project: Any, handle: Any) -> bool:
    return bool(project.app.store.record(handle.root, handle.id).get("zs") == handle.id)


def test_a_run_of_which_nothing_is_heard_is_stopped(project: Any, tmp_path: Path) -> None:
    path, gate = tmp_path / "begun", tmp_path / "gate"
    handle = project.hanging.start(str(path), str(gate))
    wait_stopped(handle)
    (event,) = stops(handle)
    assert event.fields["rule"] == "quiet"
    gate.touch()
    wait_until(lambda: is_set_aside(project, handle), description="its next turn waits in its line")
    # On a busy machine it may have been quiet before it sent anything.
    assert read(path) in (["stand 0"], [])
    handle.resume(allow=["quiet"])
    assert handle.get(timeout=TIMEOUT) == 1


@pytest.mark.long
def test_a_heartbeat_below_it_is_one(project: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    handle = project.beating.start(str(tmp_path / "beats"), str(gate))
    wait_until(lambda: len(list(handle.events(follow=False))) > 100, description="it has said for long that it lives")
    assert stops(handle) == []
    gate.touch()
    assert handle.get(timeout=TIMEOUT) == "through"


def test_a_run_that_does_not_end_is_stopped(project: Any) -> None:
    handle = project.endless.start()
    wait_stopped(handle)
    assert stops(handle)[0].fields["rule"] == "wall"
    handle.signal("go", "home")
    assert handle.resume(allow=["wall"])
    assert handle.get(timeout=TIMEOUT) == "home"


def test_the_command_line_tells_of_it(
    project: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTQ_APP", f"{PROJECT}:app")
    path = tmp_path / "looks"
    handle = project.stuck.start(str(path))
    wait_stopped(handle)
    assert execute(["runs", "list", "--status", "stopped", "--json"]) == 0
    assert handle.id in {run["run_id"] for run in json.loads(capfd.readouterr().out)}
    assert execute(["runs", "show", handle.id]) == 0
    shown = capfd.readouterr()
    assert "got the same answer 5 times in a row" in shown.err
    assert f"agentq runs resume {handle.id}" in shown.err
    assert execute(["runs", "resume", handle.id, "--allow", "repeats", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["resumed"] is True
    Path(f"{path}.enough").touch()
    assert handle.get(timeout=TIMEOUT) == "enough"
    assert execute(["runs", "resume", handle.id]) == 2
    assert "it cannot be resumed" in capfd.readouterr().err
    assert execute(["runs", "stop", handle.id]) == 2


def test_a_worker_that_dies_around_the_stop_changes_nothing(started: tuple[Any, WorkerProcess], tmp_path: Path) -> None:
    project, worker = started
    handles = [project.stuck.start(str(tmp_path / f"looks{number}")) for number in range(4)]
    # The children die again and again while the rules find them all.
    # Twice: the third death in a row would condemn a step.
    for _ in range(2):
        wait_for_any(handles)
        for child in worker.pool_children():
            os.kill(child, signal.SIGKILL)
    for number, handle in enumerate(handles):
        wait_stopped(handle)
        assert len(stops(handle)) == 1
        succeeded = [step for step in handle.steps() if step.status == "succeeded"]
        assert len(succeeded) == 5, "the sixth call was never sent"
        assert len(read(tmp_path / f"looks{number}")) >= 5
        handle.cancel()


def wait_for_any(handles: list[Any]) -> None:
    """Return when something has moved in one of them, or all stand still."""
    before = moved(handles)
    wait_until(
        lambda: moved(handles) != before or all(handle.status() == "stopped" for handle in handles),
        description="a run goes on",
    )


def moved(handles: list[Any]) -> int:
    return sum(len(list(handle.events(follow=False))) for handle in handles)
