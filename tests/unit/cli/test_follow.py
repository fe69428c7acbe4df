"""A run is followed to its end: live, as lines, or silently."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import click
import pytest
from rich.console import Console

from agentq.cli.follow import Follower
from agentq.core.errors import StoreUnavailable
from agentq.core.models import AskSummary, Event, RunStatus, StepSummary
from tests.unit.cli.made import BEGIN, step


class FakeHandle:
    """A run whose status changes with each look."""

    id = root = "3f2a81c0-5e0f"

    def __init__(self, *statuses: RunStatus, steps: Sequence[StepSummary] = ()) -> None:
        self._statuses = list(statuses)
        self._steps = list(steps)
        self.looks_at_steps = 0

    def status(self) -> RunStatus:
        return self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]

    def steps(self) -> list[StepSummary]:
        self.looks_at_steps += 1
        return self._steps


class FakeApp:
    """An application whose only part that counts is its asks."""

    def __init__(self, *asks: AskSummary) -> None:
        self.asks = self.store = self
        self._asks = list(asks)
        self._events = [
            Event(offset=1, at=BEGIN, kind="taken", run_id="r", name="search"),
            Event(offset=2, at=BEGIN, kind="emit", run_id="r", name="listed", fields={"parts": 3}),
        ]

    def list(self, *, run_id: str) -> list[AskSummary]:
        return self._asks

    def events(self, root: str, *, after: int) -> Sequence[Event]:
        return [event for event in self._events if event.offset > after]

    def revive_server(self) -> str:
        return "The server was started again"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


def followed(handle: FakeHandle, *asks: AskSummary, terminal: bool = False, **more: Any) -> tuple[str, str]:
    stream = io.StringIO()
    console = Console(file=stream, width=80, force_terminal=terminal, color_system=None)
    app: Any = FakeApp(*asks)
    status = Follower(app, handle, agent="research", console=console, **more).follow()
    return status, stream.getvalue()


def test_lines_tell_each_change_once() -> None:
    steps = [step("app.search", 0, 1, 2, number=n) for n in range(3)]
    notes = [["started one worker"]]
    status, told = followed(
        FakeHandle("queued", "running", "running", "succeeded", steps=steps),
        tend=lambda: notes.pop() if notes else [],
    )
    assert status == "succeeded"
    words = [line.split("s  ", 1)[1] for line in told.splitlines()]
    assert words == [
        "research 3f2a81c0 queued",
        "started one worker",
        "listed parts=3",
        "search 3/3 on tools-1@host",
        "research 3f2a81c0 running",
        "research 3f2a81c0 succeeded",
    ]


class AwayHandle(FakeHandle):
    """A run whose server is away at first."""

    def __init__(self, *statuses: RunStatus, times: int) -> None:
        super().__init__(*statuses)
        self.times = times

    def status(self) -> RunStatus:
        self.times -= 1
        if self.times >= 0:
            raise StoreUnavailable(url="unix:///sock", reason="Connection refused")
        return super().status()


def test_a_server_that_is_away_is_started_or_waited_for() -> None:
    status, told = followed(AwayHandle("running", "succeeded", times=3))
    assert status == "succeeded"
    assert told.count("was started again") == 1


def test_a_server_that_stays_away_is_given_up() -> None:
    with pytest.raises(StoreUnavailable):
        followed(AwayHandle("running", times=3), patience=0)


def test_lines_tell_how_to_answer() -> None:
    ask = AskSummary(ask_id="a-1", run_id="r", agent="research", question="Publish?", asked_at=BEGIN)
    _, told = followed(FakeHandle("parked", "parked", "succeeded"), ask)
    assert told.count("Publish?") == 1
    assert "agentq asks answer a-1 VALUE" in told


def test_live_view_leaves_nothing_behind() -> None:
    status, told = followed(FakeHandle("running", "succeeded"), terminal=True)
    assert status == "succeeded"
    assert "research 3f2a81c0" in told


def test_without_a_console_steps_are_not_asked_for() -> None:
    handle = FakeHandle("running", "failed")
    app: Any = FakeApp()
    assert Follower(app, handle, agent="research", console=None).follow() == "failed"
    assert handle.looks_at_steps == 0


def test_the_time_may_be_over_before_the_run_is() -> None:
    status, _ = followed(FakeHandle("running"), timeout=timedelta(0))
    assert status == "running"


def test_a_person_at_the_terminal_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["perhaps", "yes"]
    asked: list[str] = []
    answered: list[tuple[str, object]] = []

    def prompt(question: str, **_options: object) -> str:
        asked.append(question)
        return said.pop(0)

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr(
        FakeApp, "answer", lambda _app, ask_id, value, *, by: answered.append((ask_id, value)), raising=False
    )
    ask = AskSummary(
        ask_id="a-1",
        run_id="r",
        agent="research",
        question="Publish?",
        answer_schema={"type": "boolean"},
        asked_at=BEGIN,
    )
    status, _ = followed(FakeHandle("parked", "parked", "succeeded"), ask, terminal=True)
    assert status == "succeeded"
    assert asked == ["research asks: Publish? [yes | no]"] * 2
    assert answered == [("a-1", True)]
