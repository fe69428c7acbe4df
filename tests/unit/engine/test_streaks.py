"""A streak's ends: when it waits for no next step any more."""

from __future__ import annotations

from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from agentq.engine import going_on, paces
from agentq.engine.going_on import Grant, Streak
from agentq.engine.keeper import claims
from agentq.engine.patience import Patience
from agentq.store.refs import GoOn, Taken


class Follows:
    """A store that always has one more step."""

    def __init__(self) -> None:
        self.calls = 0
        self.waits: list[float] = []
        self.terms: list[GoOn] = []

    def new_token(self) -> str:
        return "token"

    def follow(self, _worker: str, _token: str, terms: GoOn, *, wait_s: float = 0.0) -> Taken | None:
        self.calls += 1
        self.waits.append(wait_s)
        self.terms.append(terms)
        if not terms.names:
            return None
        return Taken(take=self.calls, queue="q", cancelled=False, overdue=False, message=b"{}")


@pytest.fixture
def store() -> Follows:
    return Follows()


@pytest.fixture
def streak(store: Follows, monkeypatch: pytest.MonkeyPatch) -> Streak:
    """A streak whose last step has succeeded, where the next ones come soon."""
    kin = SimpleNamespace(names=("read",))
    claim = SimpleNamespace(seat=lambda: "1", go_on=lambda: None, stay=lambda: None, floor=lambda: 0)
    attempt: Any = SimpleNamespace(task=SimpleNamespace(name="read", is_agent=False), claim=claim, store=store)
    monkeypatch.setattr(going_on, "_patience", Patience())
    monkeypatch.setattr(claims, "may_go_on", lambda granted: granted == 7)
    monkeypatch.setattr(paces, "note", lambda _name, _seconds: None)
    found = Streak(Grant("w", ("q",), 8, hurries=True, orders=7), {})
    # However slow this machine is: its last step was short, and it may go on for long.
    found._began = found._ends = monotonic() + 3600
    monkeypatch.setattr(found, "_kin_of", lambda _task: kin)
    assert found.terms(attempt) is not None
    return found


def test_it_waits_once_for_each_success(streak: Streak, store: Follows) -> None:
    assert streak.next("w") is not None
    assert [streak.next("w"), store.calls] == [None, 1], "what was taken has failed"


@pytest.mark.parametrize("after", [-1, 8], ids=["closed", "after an order"])
def test_a_worker_that_takes_nothing_says_that_nobody_waits_here(
    streak: Streak, store: Follows, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The commit of its last step has told the server that this slot waits: the next step rings for nobody else."""
    monkeypatch.setattr(claims, "may_go_on", lambda granted: granted == after)
    assert streak.next("w") is None
    assert store.waits == [0.0]
    assert [each.names for each in store.terms] == [()], "what has rung is told on, and nothing taken"


def test_one_whose_time_is_over_waits_for_what_it_was_announced_for(streak: Streak, store: Follows) -> None:
    streak._ends = 0.0
    assert streak.next("w") is not None
    assert store.waits == [going_on.LINGER_S]


def test_its_time_counts_anew_from_a_step_that_it_has_waited_for(streak: Streak) -> None:
    """Nothing else was there, up to the time in which it hears nothing of the main process."""
    streak._last = monotonic() + 3600
    streak._ends = 0.0
    assert streak.next("w") is not None
    assert 0 < streak._ends - monotonic() <= going_on.LONGEST_S
    streak._last = 0.0
    streak._may_linger = True
    assert streak.next("w") is not None
    assert streak._ends == 0.0


def test_a_caller_may_be_late_once() -> None:
    patience, now = Patience(), monotonic()
    patience.note(True)
    patience.note(False)
    assert patience.may_wait(now)
    patience.note(False)
    assert not patience.may_wait(now)
