"""Waits for results: which subscriptions are taken back, while others begin to wait."""

from __future__ import annotations

from typing import Any

import pytest
from celery.backends.redis import ResultConsumer

from agentq.engine.listening import LateCanceller, Listener


class Watched(set[Any]):
    """A set that tells when something is about to leave it."""

    def __init__(self, keys: set[Any], tell: Any) -> None:
        super().__init__(keys)
        self.tell = tell

    def discard(self, key: Any) -> None:
        self.tell(key)
        super().discard(key)

    def difference_update(self, *others: Any) -> None:
        for key in sorted(set().union(*others)):
            self.tell(key)
        super().difference_update(*others)


def make_listener() -> Any:
    listener = Listener.__new__(Listener)
    listener.drainer = None
    listener._get_key_for_task = str
    listener._wanted, listener._pending_unsubscribe = set(), set()
    listener._ended, listener.subscribed_to = {"a", "b"}, {"a", "b", "c"}
    return listener


def test_what_has_ended_is_subscribed_to_no_more() -> None:
    listener = make_listener()
    assert sorted(listener._take_ended()) == ["a", "b"]
    assert (listener._ended, listener.subscribed_to) == (set(), {"c"})


def test_a_result_that_is_waited_for_again_meanwhile_is_still_heard() -> None:
    listener = make_listener()
    listener.subscribed_to = Watched({"a", "b", "c"}, lambda key: key == "a" and listener.consume_from("a"))
    ended = listener._take_ended()
    assert "b" in ended
    assert "a" in listener._wanted or ("a" not in ended and "a" in listener.subscribed_to)


def test_before_celery_5_7_whoever_waits_next_takes_back_what_nobody_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(ResultConsumer, "cancel_for", lambda _, task_id: done.append(task_id))
    monkeypatch.setattr(ResultConsumer, "consume_from", lambda *_: None)
    monkeypatch.setattr(ResultConsumer, "drain_events", lambda *_: done.append("drained"))
    listener: Any = LateCanceller.__new__(LateCanceller)
    listener._left = set()
    for task_id in ("a", "b"):
        listener.cancel_for(task_id)
    listener.consume_from("b")
    assert done == [], "a finaliser says nothing to the server"
    listener.drain_events()
    assert done == ["a", "drained"]
