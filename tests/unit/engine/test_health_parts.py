"""What marks of draining mean for a worker, what memory is free, and the sheets on the keeper's page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentq.engine.health.draining import decide_drain
from agentq.engine.health.memory import free_bytes
from agentq.engine.keeper import claims
from agentq.engine.keeper.board import Board

BOTH = frozenset({"tools", "model"})


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.make()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("marks", "words", "left_out"),
    [
        ({}, None, set()),
        ({"worker|w2": "{}", "node|other": "{}", "pool|else": "{}"}, None, set()),
        ({"worker|w1": "{}"}, "drained", set()),
        ({"node|here": "{}"}, "its node here is drained", set()),
        ({"pool|tools": "{}"}, None, {"tools"}),
        ({"pool|tools": "{}", "pool|model": "{}"}, "drained: pool model, tools", {"tools", "model"}),
        ({"worker|w1": "no JSON"}, "drained", set()),
    ],
)
def test_marks_concern_a_worker_its_machine_or_some_of_its_queues(
    marks: dict[str, str], words: str | None, left_out: set[str]
) -> None:
    drain = decide_drain(marks, worker="w1", node="here", queues=BOTH)
    assert (drain.words, set(drain.queues)) == (words, left_out)


def test_a_grace_concerns_what_its_mark_concerns() -> None:
    marks = {"pool|tools": json.dumps({"grace_ms": 1500}), "node|here": json.dumps({"at": 1})}
    drain = decide_drain(marks, worker="w1", node="here", queues=BOTH)
    assert drain.graces == {"pool|tools": 1.5}
    assert drain.hands_over("pool|tools", "tools")
    assert not drain.hands_over("pool|tools", "model")
    assert drain.hands_over("node|here", "model")


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_free_memory_is_that_of_the_tightest_container(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) is None
    write(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable:   1000 kB\n")
    assert free_bytes(tmp_path) == 1000 * 1024
    write(tmp_path, proc__self__cgroup="0::/pod/box\n")
    top = tmp_path / "sys/fs/cgroup"
    for folder, most, used, idle in (("pod/box", "max", 1, 0), ("pod", "500000", 480000, 80000)):
        (top / folder).mkdir(parents=True, exist_ok=True)
        (top / folder / "memory.max").write_text(f"{most}\n")
        (top / folder / "memory.current").write_text(f"{used}\n")
        (top / folder / "memory.stat").write_text(f"anon 3\ninactive_file {idle}\n")
    assert free_bytes(tmp_path) == 100_000


def test_here_it_can_be_told() -> None:
    found = free_bytes()
    assert found is None or found > 0


def test_a_sheet_holds_one_text_that_another_process_reads(board: Board) -> None:
    other = Board.open(board.path)
    assert other.report.read() is None
    assert board.report.write(b"first, and longer")
    assert board.report.write(b"second")
    assert other.report.read() == b"second"
    assert other.marks.read() is None
    assert not board.report.write(b"x" * 40_000)
    assert other.report.read() == b"second", "what has no room leaves the one before"
    other.close()


def test_attempts_are_counted_over_all_slots(board: Board) -> None:
    claims.publish(board)
    try:
        for number in range(5):
            with claims.claim(number, 1.0) as claim:
                claim.failed = number % 2 == 0
        assert board.counts() == (5, 3)
        with claims.claim(5, 1.0) as claim:
            claim.fail_in_place()
            claim.fail_in_place()
        assert board.counts() == (8, 5), "two tries that failed, and one that did not"
        with claims.claim(6, 1.0) as claim:
            claim.failed, claim.counts = True, False
        assert board.counts() == (8, 5), "it only stood in a line"
    finally:
        claims.withdraw(board)


def test_a_closed_worker_goes_on_with_nothing(board: Board) -> None:
    assert claims.may_go_on(0)
    claims.publish(board)
    try:
        assert claims.may_go_on(0)
        board.closed = True
        assert not claims.may_go_on(0)
        board.closed = False
        claims.note_order()
        assert not claims.may_go_on(0), "it was granted before the order"
        assert claims.may_go_on(claims.orders())
    finally:
        claims.withdraw(board)
