"""What a thread has in hand: its order, what becomes of it behind a long step, and commits whose answers come late."""

from __future__ import annotations

from typing import cast

import pytest
from redis import ResponseError

from agentq.core.errors import CalledOff, StaleHolder, StoreUnavailable
from agentq.engine import in_hand
from agentq.engine.in_hand import Hand, how_many
from agentq.engine.slots import Taker
from agentq.store import Store
from agentq.store.refs import Committed, Taken
from agentq.store.steps import CommitUnderWay

STALE = StaleHolder(step="read", run_id="r", holder="w2", take=9, mine="w1", my_take=3)
CALLED_OFF = CalledOff(step="read", run_id="r")
AWAY = StoreUnavailable(url="redis://x", reason="away")


class Returns:
    """A store to which messages are handed back."""

    def __init__(self) -> None:
        self.takes: list[int] = []

    def requeue(self, _worker: str, take: int) -> None:
        self.takes.append(take)


class Answer:
    """A commit under way whose answers are known."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)

    def result(self) -> Committed:
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer
        return Committed()


@pytest.fixture
def store() -> Returns:
    return Returns()


@pytest.fixture
def taker(store: Returns) -> Taker:
    return Taker(cast(Store, store), label="w1")


@pytest.fixture
def hand(taker: Taker) -> Hand:
    return Hand(taker)


def taken(*takes: int) -> list[Taken]:
    return [Taken(take=each, queue="q", cancelled=False, overdue=False, message=b"{}") for each in takes]


def left(hand: Hand, take: int, *answers: Exception | None) -> list[int]:
    """Leave a commit with these answers; the list gets the take when it is revoked."""
    revoked: list[int] = []
    hand.leave(cast(CommitUnderWay, Answer(*answers)), take, lambda: revoked.append(take))
    return revoked


def drawn(hand: Hand) -> int:
    found = hand.draw()
    assert found is not None
    return found.take


def test_steps_come_in_their_order_and_are_known_until_they_have_ended(hand: Hand, taker: Taker) -> None:
    hand.put(taken(4, 5, 6))
    assert (taker.in_hand, taker.floor) == ({4, 5, 6}, 6)
    assert drawn(hand) == 4
    hand.ended(4)
    assert taker.in_hand == {5, 6}
    assert [drawn(hand), drawn(hand), hand.draw()] == [5, 6, None]
    hand.close()


@pytest.mark.parametrize("answer", [None, STALE, CALLED_OFF], ids=["stands", "stale", "called off"])
def test_the_answer_to_a_commit_comes_behind_the_next_step(hand: Hand, taker: Taker, answer: Exception | None) -> None:
    revoked = left(hand, 3, answer)
    hand.ended(3)
    assert taker.in_hand == {3}, "held as long as nobody knows"
    hand.settle()
    assert taker.in_hand == set()
    assert revoked == ([3] if answer is CALLED_OFF else [])
    hand.settle()


def test_a_second_one_is_left_when_the_first_one_s_answer_is_known(hand: Hand, taker: Taker) -> None:
    revoked = left(hand, 3, CALLED_OFF)
    left(hand, 4, None)
    assert (revoked, taker.in_hand) == ([3], {4})
    hand.close()


def test_while_the_server_is_away_it_is_asked_again(hand: Hand, taker: Taker) -> None:
    left(hand, 3, AWAY, AWAY, None)
    hand.settle()
    assert taker.in_hand == set()


def test_an_answer_that_nobody_understands_leaves_the_step_to_the_next_reconcile(hand: Hand, taker: Taker) -> None:
    left(hand, 3, ValueError("what?"))
    hand.settle()
    assert taker.in_hand == set()


def test_what_stands_behind_a_long_step_is_given_back_from_the_last(
    hand: Hand, taker: Taker, store: Returns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_hand, "LONG_S", 3600.0)
    hand.put(taken(4, 5, 6))
    assert drawn(hand) == 4
    assert hand._look() is not None, "soon enough"
    assert store.takes == []
    left(hand, 3, AWAY, None)
    monkeypatch.setattr(in_hand, "LONG_S", 0.0)
    assert hand._look() == in_hand.AGAIN_S
    assert (store.takes, hand.draw(), taker.in_hand) == ([6, 5], None, {3, 4})
    hand._look()
    assert taker.in_hand == {4}
    hand.close()


def test_an_answer_is_read_before_anything_is_given_back(
    hand: Hand, store: Returns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_hand, "LONG_S", 0.0)
    hand.put(taken(4, 5))
    drawn(hand)

    def revoke() -> None:
        assert store.takes == [], "its connection is free by then"
        store.takes.append(0)

    hand.leave(cast(CommitUnderWay, Answer(CALLED_OFF)), 3, revoke)
    assert hand._look() is not None
    assert store.takes == [0, 5]
    hand.close()


def test_one_that_cannot_be_given_back_keeps_none_of_the_others(
    hand: Hand, taker: Taker, store: Returns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def requeue(_worker: str, take: int) -> None:
        if take == 6:
            raise ResponseError("what?")
        store.takes.append(take)

    monkeypatch.setattr(in_hand, "LONG_S", 0.0)
    monkeypatch.setattr(store, "requeue", requeue)
    hand.put(taken(4, 5, 6))
    drawn(hand)
    assert hand._look() is not None, "looked again"
    assert (store.takes, taker.in_hand) == ([5], {4})
    hand.close()


def test_what_was_not_drawn_goes_back_in_the_end(hand: Hand, taker: Taker, store: Returns) -> None:
    hand.put(taken(4, 5))
    hand.close()
    assert (store.takes, taker.in_hand) == ([5, 4], set())


def test_so_many_are_taken_at_once_as_take_a_few_ms() -> None:
    assert [how_many(seconds) for seconds in (0.0, 0.0001, 0.001, 0.0021, 0.02)] == [8, 8, 4, 1, 1]
