"""What a step or an agent does besides returning and raising an exception."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from agentq import RunFailed, StepFailed
from tests.kit.sample import TIMEOUT, Library


@pytest.mark.parametrize(("name", "args"), [("leave", (3,)), ("interrupt", ())])
def test_a_step_that_ends_the_process_fails_and_ends_nothing(library: Library, name: str, args: tuple[int]) -> None:
    with pytest.raises(Exception, match=r"SystemExit|KeyboardInterrupt"):
        library.task(name).delay(*args).get(timeout=TIMEOUT)
    assert library.worker.running
    assert library.task("add").delay(1, 2).get(timeout=TIMEOUT) == 3


def test_a_process_that_a_step_forks_does_not_go_on_as_the_step(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "child"
    assert library.task("fork").delay(str(seen)).get(timeout=TIMEOUT) == [0]
    assert not psutil.pid_exists(int(seen.read_text()))


def test_an_agent_that_ends_the_process_fails(library: Library) -> None:
    with pytest.raises(RunFailed, match=r"^Run \S+ of agent \S+ failed: SystemExit: sys.exit\(3\)") as told:
        library.task("leaving").start(3).get(timeout=TIMEOUT)
    assert isinstance(told.value.__cause__, StepFailed)


def test_a_question_that_is_open_ends_with_the_journal_that_asked_it(library: Library) -> None:
    handle = library.task("asking_anew").start(2)
    assert handle.get(timeout=TIMEOUT) == 0
    if library.kind == "agentq_app":
        assert library.app.asks.list(run_id=handle.id) == []
