"""A step that has ended: its success while the server is away, and a failure behind a commit that was left."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context

from agentq.core.errors import StoreUnavailable
from agentq.engine import exits, going_on
from agentq.engine.attempt import Attempt
from agentq.engine.backend import Backend
from agentq.engine.capture import Capture
from agentq.engine.ending import Ending
from agentq.engine.outcome import COMMITTED
from agentq.store.refs import Committed, Holder


class Away:
    """A store that cannot be reached at first: large arguments of what goes on cannot be written."""

    def __init__(self) -> None:
        self.calls = 0

    def begin_commit(self, _holder: Holder, **_parts: Any) -> Any:
        self.calls += 1
        if self.calls == 1:
            raise StoreUnavailable(url="redis://x", reason="away")
        return SimpleNamespace(result=Committed)


def test_it_waits_for_the_server_also_where_it_carries_large_arguments() -> None:
    store = Away()
    binding: Any = SimpleNamespace(store=store, limits=SimpleNamespace(inline_bytes=1000))
    holder = Holder(root="r", id="i", worker="w", take=1)
    request = SimpleNamespace(id="i", task="read", chain=None)
    task: Any = SimpleNamespace(name="read")
    Ending(task, binding, holder, request).succeed(1, Capture())
    assert store.calls == 2
    assert getattr(request, COMMITTED)


def test_before_a_failure_is_written_the_answer_that_was_left_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[bool] = []
    monkeypatch.setattr(exits, "ignore_soft_limit", lambda: None)
    monkeypatch.setattr(going_on, "settle_here", lambda: settled.append(True))
    attempt: Any = Attempt.__new__(Attempt)
    attempt.ours, attempt.claim = {}, SimpleNamespace(finish=lambda: None)
    attempt.task, attempt.request = SimpleNamespace(name="read"), SimpleNamespace(id="i")
    monkeypatch.setattr(Attempt, "step_id", "i", raising=False)

    def fails(_args: list[Any], _kwargs: dict[str, Any]) -> None:
        raise ValueError("no")

    monkeypatch.setattr(attempt, "_value", fails)
    with pytest.raises(ValueError):
        attempt._contained([], {})
    assert settled == [True]


def test_an_outcome_is_not_compressed_for_who_reads_it_without_celery() -> None:
    """A script, or an agent that goes on with it."""
    app = Celery("compressed", set_as_current=False)
    app.conf.result_compression = "gzip"
    backend = Backend(app=app, url="redis://localhost:1")
    assert backend.compression == "gzip"
    assert json.loads(backend.success_meta("i", 5, Context()))["result"] == 5
    assert json.loads(backend._failure_meta("i", ValueError("no"), "FAILURE", None))["status"] == "FAILURE"
