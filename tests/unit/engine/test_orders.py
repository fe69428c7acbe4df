"""Orders by remote control: which of what a worker is told makes void what its children were granted."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from agentq.engine.keeper import claims
from agentq.engine.keeper.board import Board
from agentq.engine.orders import watch_orders


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.make()
    claims.publish(made)
    yield made
    claims.withdraw(made)
    made.close()


@pytest.fixture
def heard() -> list[Any]:
    return []


@pytest.fixture
def consumer(board: Board, heard: list[Any]) -> Any:
    def obey(body: Any, _message: Any = None) -> None:
        assert board.orders == 0, "it counts when it was carried out"
        heard.append(body["method"])
        if body["method"] == "breaks":
            raise RuntimeError("as it may")

    made = SimpleNamespace(
        add_task_queue=lambda queue, **_: heard.append(queue),
        cancel_task_queue=heard.append,
        steps=[SimpleNamespace(), SimpleNamespace(box=SimpleNamespace(node=SimpleNamespace(handle_message=obey)))],
    )
    watch_orders(made)
    return made


@pytest.mark.parametrize("method", ["revoke", "rate_limit", "of_a_plugin"])
def test_an_order_counts(consumer: Any, board: Board, heard: list[Any], method: str) -> None:
    consumer.steps[1].box.node.handle_message({"method": method}, None)
    assert (board.orders, heard) == (1, [method])


def test_an_order_that_fails_counts_too(consumer: Any, board: Board) -> None:
    with pytest.raises(RuntimeError):
        consumer.steps[1].box.node.handle_message({"method": "breaks"}, None)
    assert board.orders == 1


@pytest.mark.parametrize("method", ["ping", "active", "stats"])
def test_a_question_does_not(consumer: Any, board: Board, heard: list[Any], method: str) -> None:
    consumer.steps[1].box.node.handle_message({"method": method}, None)
    assert (board.orders, heard) == (0, [method])


def test_a_queue_counts_when_it_is_served_or_no_more(consumer: Any, board: Board, heard: list[Any]) -> None:
    consumer.add_task_queue("extra", exchange=None)
    assert (board.orders, heard) == (1, ["extra"])
    consumer.cancel_task_queue("extra")
    assert (board.orders, heard) == (2, ["extra", "extra"])
