"""A streak's ends: when it waits for no next step any more."""

from __future__ import annotations

from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from agentq.engine import going_on, paces
from agentq.engine.going_on import Grant, Streak
from agentq.engine.keeper import claims
from agentq.store.refs import GoOn, Taken


class Follows:
    """A store that always has one more step."""

    def __init__(self) -> None:
        self.calls = 0

    def new_token(self) -> str:
        return "token"

    def follow(self, _worker: str, _token: str, _terms: GoOn, *, wait_s: float = 0.0) -> Taken:
        self.calls += 1
        return Taken(take=self.calls, queue="q", cancelled=False, overdue=False, message=b"{}")


@pytest.fixture
def store() -> Follows:
    return Follows()


@pytest.fixture
def streak(store: Follows, monkeypatch: pytest.MonkeyPatch) -> Streak:
    """A streak whose last step has succeeded, where the next ones come soon."""
    kin = SimpleNamespace(names=("read",))
    claim = SimpleNamespace(seat=lambda: "1", go_on=lambda: None, stay=lambda: None, floor=lambda: 0)
    attempt: Any = SimpleNamespace(task=SimpleNamespace(name="read"), claim=claim, store=store)
    monkeypatch.setattr(going_on, "_patience", going_on._Patience())
    monkeypatch.setattr(claims, "may_go_on", lambda: True)
    monkeypatch.setattr(paces, "note", lambda _name, _seconds: None)
    found = Streak(Grant("w", ("q",), 8, hurries=True), {})
    # However slow this machine is: its last step was short, and it may go on for long.
    found._began = found._ends = monotonic() + 3600
    monkeypatch.setattr(found, "_kin_of", lambda _task: kin)
    assert found.terms(attempt) is not None
    return found


def test_it_waits_once_for_each_success(streak: Streak, store: Follows) -> None:
    assert streak.next("w") is not None
    assert [streak.next("w"), store.calls] == [None, 1], "what was taken has failed"


def test_a_worker_that_takes_nothing_waits_for_nothing(
    streak: Streak, store: Follows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "may_go_on", lambda: False)
    assert [streak.next("w"), store.calls] == [None, 0]


def test_a_long_one_ends(streak: Streak, store: Follows) -> None:
    streak._ends = 0.0
    assert [streak.next("w"), store.calls] == [None, 0]
