"""Signals, questions, events, keys: what an application says to a run and hears of it."""

from __future__ import annotations

from typing import Any

import pytest

from agentq import AgentqError, KeyReused
from tests.kit.waiting import wait_until

TIMEOUT = 60


def test_a_signal_wakes_a_parked_run(guide: Any) -> None:
    handle = guide.greeter.start()
    wait_until(lambda: handle.status() == "parked", description="the run is parked")
    handle.signal("name", "Ada")
    assert handle.get(timeout=TIMEOUT) == "Hello Ada"


def test_waiting_may_time_out(guide: Any) -> None:
    assert guide.patient.start().get(timeout=TIMEOUT) == "nobody came"


def test_a_person_answers_a_question(guide: Any) -> None:
    handle = guide.publish.start("Trees")
    ask = wait_until(lambda: guide.app.asks.list(run_id=handle.id), description="the question is asked")[0]
    assert ask.question == "Publish Trees?"
    guide.app.asks.answer(ask.ask_id, True)
    assert handle.get(timeout=TIMEOUT) is True


def test_an_answer_of_the_wrong_type_is_refused(guide: Any) -> None:
    handle = guide.publish.start("Trees")
    ask = wait_until(lambda: guide.app.asks.list(run_id=handle.id), description="the question is asked")[0]
    with pytest.raises(AgentqError):
        guide.app.asks.answer(ask.ask_id, "perhaps, who knows")
    guide.app.asks.answer(ask.ask_id, False)
    assert handle.get(timeout=TIMEOUT) is False


def test_an_unanswered_question_takes_its_default(guide: Any) -> None:
    assert guide.unanswered.start().get(timeout=TIMEOUT) is False


def test_events_are_read_from_any_offset(guide: Any) -> None:
    handle = guide.narrator.start()
    events = list(handle.events())
    chapters = [event for event in events if event.kind == "chapter" or event.name == "chapter"]
    assert [event.fields["number"] for event in chapters] == [1, 2]
    rest = list(handle.events(after=chapters[0].offset))
    assert [event.offset for event in rest] == [e.offset for e in events if e.offset > chapters[0].offset]


def test_a_key_starts_one_run(guide: Any) -> None:
    first = guide.study.using(key="req-42", tenant="acme").start("Trees", ["one"])
    again = guide.study.using(key="req-42", tenant="acme").start("Trees", ["one"])
    other = guide.study.using(key="req-42", tenant="other").start("Trees", ["one"])
    assert first.id == again.id != other.id
    assert first.get(timeout=TIMEOUT) == other.get(timeout=TIMEOUT)


def test_a_key_with_other_arguments_is_refused(guide: Any) -> None:
    handle = guide.study.using(key="req-43").start("Trees", ["one"])
    with pytest.raises(KeyReused, match=handle.id):
        guide.study.using(key="req-43").start("Trees", ["two"])
    handle.get(timeout=TIMEOUT)


def test_a_run_is_cancelled(guide: Any) -> None:
    handle = guide.greeter.start()
    handle.cancel("not wanted")
    with pytest.raises(AgentqError, match="cancel"):
        handle.get(timeout=TIMEOUT)
    assert handle.status() == "cancelled"


def test_runs_are_listed(guide: Any) -> None:
    handle = guide.study.start("Listed", ["one"])
    handle.get(timeout=TIMEOUT)
    listed = {run.run_id: run for run in guide.app.runs.list(limit=50)}
    assert listed[handle.id].status == "succeeded"
