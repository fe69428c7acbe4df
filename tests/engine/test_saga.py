"""What a failed or cancelled run has done is taken back, last first and once; what cannot be is a dead letter."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentq.cli.root import execute
from agentq.core.errors import RunCancelled, RunFailed
from agentq.core.models import ENDED
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.zombies"
TIMEOUT = 60.0
BOOKED = ["book train", "book hotel", "remember friend", "book museum"]
TAKEN_BACK = ["unbook museum", "forget friend", "try hotel", "try hotel", "try hotel", "unbook train"]


@pytest.fixture(scope="module")
def started(
    module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]
) -> Iterator[tuple[Any, WorkerProcess]]:
    found = load_module(PROJECT, url=module_server.celery_url)
    yield found, start_module_worker(PROJECT, url=module_server.celery_url, concurrency=3)
    check_leaks(module_server.client)


@pytest.fixture
def project(started: tuple[Any, WorkerProcess]) -> Any:
    return started[0]


def read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def undone(path: Path) -> list[str]:
    return [line for line in read(path) if line.split()[0] in ("unbook", "forget", "try")]


def letters(project: Any, handle: Any) -> list[Any]:
    return [letter for letter in project.app.dead.list() if letter.root_id == handle.root]


def test_a_failed_undo_is_a_dead_letter_and_the_others_are_done(
    project: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journey"
    handle = project.travelling.start(str(path), "fails")
    with pytest.raises(RunFailed, match="no holiday"):
        handle.get(timeout=TIMEOUT)
    assert read(path) == [*BOOKED, *TAKEN_BACK]
    (letter,) = letters(project, handle)
    assert (letter.why, letter.name) == ("undo failed", "tests.projects.zombies.fail_to_unbook")
    assert letter.words == "ConnectionError: the provider is away"
    failed = [event for event in handle.events(follow=False) if event.kind == "undo-failed"]
    assert [event.name.rpartition(".")[2] for event in failed] == ["remember", "fail_to_unbook"]
    assert "OSError: it cannot be forgotten" in failed[0].fields["error"]
    assert failed[1].fields["error"] == "ConnectionError: the provider is away"
    monkeypatch.setenv("AGENTQ_APP", f"{PROJECT}:app")
    assert execute(["runs", "show", handle.id]) == 0
    assert f"agentq dead replay {letter.step_id}" in capfd.readouterr().err
    # It fails once more, is a dead letter once more, and succeeds when the provider is back.
    project.app.dead.replay(letter.letter_id)
    wait_until(lambda: len(undone(path)) == 9 and letters(project, handle), description="it was tried again")
    Path(f"{path}.well").touch()
    project.app.dead.replay(letter.letter_id)
    wait_until(lambda: undone(path)[9:] == ["try hotel", "unbook hotel"], description="it is taken back")
    assert letters(project, handle) == []


@pytest.mark.parametrize("how", ["cancelled", "overspent", "lost"])
def test_it_is_taken_back_however_the_run_is_brought_to_its_end(project: Any, tmp_path: Path, how: str) -> None:
    path = tmp_path / "journey"
    Path(f"{path}.well").touch()
    agent = {"cancelled": project.travelling, "overspent": project.overspending, "lost": project.lost}[how]
    handle = agent.start(str(path), "waits") if how == "cancelled" else agent.start(str(path))
    if how == "overspent":
        with pytest.raises(RunFailed, match="The budget's steps is reached: 5 used or reserved of 5"):
            handle.get(timeout=TIMEOUT)
    else:
        wait_until(lambda: handle.status() in ("parked", "stopped"), description="it waits, or was stopped")
        wait_until(lambda: len(read(path)) >= 4, description="all is booked")
        assert undone(path) == [], "what stands still takes nothing back"
        handle.cancel()
        with pytest.raises(RunCancelled):
            handle.get(timeout=TIMEOUT)
    assert undone(path) == ["unbook museum", "forget friend", "try hotel", "unbook hotel", "unbook train"]


def test_a_sub_agent_takes_back_its_own_and_its_caller_the_sub_agent(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "journey"
    Path(f"{path}.well").touch()
    with pytest.raises(RunFailed, match="no holiday"):
        project.organising.start(str(path)).get(timeout=TIMEOUT)
    assert read(path) == [
        "book bus",
        *BOOKED,
        *("unbook museum", "forget friend", "try hotel", "unbook hotel", "unbook train"),
        "unbook bus",
    ]


def test_a_worker_that_dies_meanwhile_changes_nothing(started: tuple[Any, WorkerProcess], tmp_path: Path) -> None:
    project, worker = started
    paths = [tmp_path / f"journey{number}" for number in range(4)]
    for path in paths:
        Path(f"{path}.well").touch()
    handles = [project.travelling.start(str(path), "fails") for path in paths]
    for _ in range(2):
        seen = sum(len(undone(path)) for path in paths)
        wait_until(
            lambda seen=seen: (  # type: ignore[misc]
                sum(len(undone(path)) for path in paths) > seen or all(handle.status() in ENDED for handle in handles)
            ),
            description="something is taken back",
        )
        for child in worker.pool_children():
            os.kill(child, signal.SIGKILL)
    for handle, path in zip(handles, paths, strict=True):
        with pytest.raises(RunFailed, match="no holiday"):
            handle.get(timeout=TIMEOUT)
        steps = [step for step in handle.steps() if "unbook" in step.name]
        assert [(step.name.rpartition(".")[2], step.status) for step in steps] == [
            ("unbook", "succeeded"),
            ("fail_to_unbook", "succeeded"),
            ("unbook", "succeeded"),
        ]
        # What was under way when its worker died is done again; in its order all the same.
        order = list(dict.fromkeys(undone(path)))
        assert order == ["unbook museum", "forget friend", "try hotel", "unbook hotel", "unbook train"]
        assert letters(project, handle) == []
