"""What a step or an agent does besides returning and raising an exception."""

from __future__ import annotations

import pytest

from agentq import RunFailed
from tests.kit.library import TIMEOUT, Library


@pytest.mark.parametrize(("name", "args"), [("leave", (3,)), ("interrupt", ())])
def test_a_step_that_ends_the_process_fails_and_ends_nothing(library: Library, name: str, args: tuple[int]) -> None:
    with pytest.raises(Exception, match=r"SystemExit|KeyboardInterrupt"):
        library.task(name).delay(*args).get(timeout=TIMEOUT)
    assert library.worker.running
    assert library.task("add").delay(1, 2).get(timeout=TIMEOUT) == 3


def test_an_agent_that_ends_the_process_fails(library: Library) -> None:
    with pytest.raises(RunFailed, match=r"SystemExit: sys.exit\(3\)"):
        library.task("leaving").start(3).get(timeout=TIMEOUT)


def test_a_question_that_is_open_ends_with_the_journal_that_asked_it(library: Library) -> None:
    handle = library.task("asking_anew").start(2)
    assert handle.get(timeout=TIMEOUT) == 0
    if library.kind == "agentq_app":
        assert library.app.asks.list(run_id=handle.id) == []
