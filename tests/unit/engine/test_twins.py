"""Which lines of the log tell what is told anyway: of a child that died in a step, whatever its worker has heard."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from agentq.engine.keeper import claims
from agentq.engine.keeper.board import Board
from agentq.engine.twins import is_told

SLOT = 2


@pytest.fixture
def board() -> Iterator[Board]:
    """The page of a worker of which this process is a child."""
    made = Board.make()
    made.seat(SLOT)
    claims.publish(made)
    yield made
    claims.withdraw(made)
    made.close()


def line(name: str = "multiprocessing", pid: int | None = None) -> logging.LogRecord:
    said = ("ForkPoolWorker-3", os.getpid() if pid is None else pid, "signal 9 (SIGKILL)")
    return logging.LogRecord(name, logging.ERROR, "", 1, "Process %r pid:%r exited with %r", said, None)


def test_a_child_that_died_in_a_step_is_told_of(board: Board) -> None:
    assert not is_told(line()), "it was idle, and nobody else tells of it"
    board.write(SLOT, take=7, limit_s=1.0, deadline=1.0)
    assert is_told(line())
    assert not is_told(line(pid=os.getpid() + 1))
    assert not is_told(line("somebody's"))
    board.clear(SLOT)
    assert not is_told(line())


def test_a_child_that_died_between_two_steps_is_told_of(board: Board) -> None:
    board.go_on(SLOT, 5.0)
    assert is_told(line())
    board.go_on(SLOT, 0.0)
    assert not is_told(line())
