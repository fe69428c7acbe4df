"""What an event of Sentry's holds, and what it leaves out unless it is asked for."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sentry_sdk
from pydantic import BaseModel, ValidationError
from sentry_sdk.envelope import Envelope
from sentry_sdk.scope import global_event_processors
from sentry_sdk.transport import Transport

from agentq.core.errors import InvalidArguments, InvalidResult, ResultRefused, StepTimeout
from agentq.core.retry import told
from agentq.engine.watching import Trouble, trouble_of_loss
from agentq.observability.discretion import without_values
from agentq.observability.sentry import Sentry
from agentq.store.losses import Loss

SECRET = "a secret"


class Kept(Transport):
    """Keeps events instead of sending them."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        assert event is not None
        self.events.append(json.loads(json.dumps(event, default=str)))


Turn = Callable[..., Kept]


@pytest.fixture
def turn_on() -> Iterator[Turn]:
    """Turn Sentry on in this process, without its integrations, which would stay."""
    before, processors = sentry_sdk.get_client(), list(global_event_processors)

    def begin(**options: Any) -> Kept:
        kept = Kept()
        client = sentry_sdk.Client(dsn="http://k@localhost/1", transport=kept, default_integrations=False, **options)
        sentry_sdk.get_global_scope().set_client(client)
        return kept

    yield begin
    sentry_sdk.get_global_scope().set_client(before)
    global_event_processors[:] = processors


def watcher(*, in_a_step: bool = True) -> Sentry:
    return Sentry(dsn=None, is_of_a_step=lambda: in_a_step, is_told=lambda record: record.name == "told")


def raised(secret: str) -> BaseException:
    local = secret
    try:
        raise ValueError(f"{len(local)} characters")
    except ValueError as error:
        return error


def failed(error: BaseException, **fields: Any) -> Trouble:
    given = {"step": "s", "step_id": "i", "run_id": "r", "agent": "a", "attempt": 3, "pool": "p", **fields}
    return Trouble(what="failed", error=error, arguments=([SECRET], {}), **given)


def test_it_is_off_until_somebody_turns_it_on(turn_on: Turn) -> None:
    off = watcher()
    assert not off.is_on()
    off.tell(lambda: pytest.fail("nobody asks what there is to tell"))
    turn_on()
    assert off.is_on()


@pytest.mark.filterwarnings("ignore:The send_default_pii option is deprecated")
@pytest.mark.parametrize(
    ("options", "personal"),
    [
        ({}, False),
        ({"include_local_variables": True}, False),
        ({"send_default_pii": False}, False),
        ({"send_default_pii": True}, True),
        ({"data_collection": {"queues": False}}, False),
        ({"data_collection": {"queues": True}}, True),
    ],
)
def test_arguments_and_local_variables_go_out_only_where_they_may(
    turn_on: Turn, options: dict[str, Any], personal: bool
) -> None:
    kept = turn_on(**options)
    watcher().tell(lambda: failed(raised(SECRET), earlier=(f"attempt 1: ValueError: {SECRET}",)))
    (event,) = kept.events
    assert (SECRET in json.dumps(event)) is personal
    assert event["tags"] == {"run": "r", "agent": "a", "step": "s", "step_id": "i", "attempt": "3", "pool": "p"}
    frame = event["exception"]["values"][0]["stacktrace"]["frames"][-1]
    assert ("vars" in frame) is personal
    assert event["breadcrumbs"]["values"][0]["message"].startswith("attempt 1: ValueError")


def test_what_agentqs_errors_quote_is_left_out() -> None:
    class Order(BaseModel):
        number: int

    with pytest.raises(ValidationError) as caught:
        Order.model_validate({"number": SECRET})
    error = InvalidArguments(step="s", parameter="p", value=SECRET, reason="it is wrong")
    error.__cause__ = caught.value
    error.__context__ = ResultRefused(step="s", value=SECRET, reason="no")
    found = without_values(error)
    assert set(found) == {str(error), str(caught.value), str(error.__context__)}
    assert SECRET not in " ".join(found.values())
    assert "[Filtered]" in found[str(error)]
    assert "number: int_parsing" in found[str(caught.value)]
    assert without_values(StepTimeout(step="s", step_id="i", seconds=1)) == {}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ResultRefused(step="s", value=SECRET, reason="no"), "[Filtered]"),
        (InvalidResult(step="s", value=SECRET, reason="no"), "[Filtered]"),
        (ValueError("it is wrong"), "it is wrong"),
    ],
)
def test_neither_the_last_attempts_value_nor_what_earlier_ones_said_goes_out(
    turn_on: Turn, error: BaseException, said: str
) -> None:
    kept = turn_on()
    error.add_note("a note of the application's")
    told([f"attempt 1: ValueError: {SECRET}"], error)
    last = RuntimeError("its fallback is away too")
    last.__cause__ = error
    watcher().tell(lambda: failed(last))
    (event,) = kept.events
    assert SECRET not in json.dumps(event)
    texts = [value["value"] for value in event["exception"]["values"]]
    assert said in texts[0]
    assert texts[1] == "its fallback is away too"


def test_an_error_that_is_expected_is_not_told(turn_on: Turn) -> None:
    kept = turn_on()
    watcher().tell(lambda: failed(raised("x"), expected=True))
    assert kept.events == []


def test_what_cannot_be_told_fails_nobody(turn_on: Turn, caplog: pytest.LogCaptureFixture) -> None:
    turn_on()

    def make() -> Trouble:
        raise RuntimeError("no")

    watcher().tell(make)
    assert "sentry_failed: RuntimeError: no" in caplog.text


@pytest.mark.parametrize(
    ("why", "words", "level", "said"),
    [
        ("lost", "", "warning", "An attempt of s was lost with its worker w, and is made again."),
        ("poison", "it died", "error", "s is a dead letter (poison): it died: agentq dead list"),
        ("unreadable", SECRET, "error", "s is a dead letter (unreadable): agentq dead list"),
    ],
)
def test_a_loss_is_told_in_words(turn_on: Turn, why: str, words: str, level: str, said: str) -> None:
    kept = turn_on()
    at = datetime(2026, 1, 2, tzinfo=UTC)
    loss = Loss(why, words, at, "i", "q", "s", "r", None, 2, "w")
    watcher().tell(lambda: trouble_of_loss(loss))
    (event,) = kept.events
    assert (event["level"], event["message"], event["tags"]["attempt"]) == (level, said, "2")
    assert event["timestamp"].startswith("2026-01-02")


@pytest.mark.parametrize(("in_a_step", "left"), [(True, 0), (False, 1)])
def test_celerys_integration_is_heard_of_plain_tasks_alone(turn_on: Turn, in_a_step: bool, left: int) -> None:
    kept = turn_on()
    watcher(in_a_step=in_a_step).begin()
    value = {"type": "ValueError", "value": "x", "mechanism": {"type": "celery", "handled": False}}
    sentry_sdk.capture_event({"exception": {"values": [value]}})
    assert len(kept.events) == left


def test_lines_of_the_log_that_tell_the_same_are_dropped(turn_on: Turn) -> None:
    kept = turn_on()
    watcher().begin()
    for name in ("told", "other"):
        record = logging.LogRecord(name, logging.ERROR, "", 1, "words", (), None)
        sentry_sdk.capture_event({"message": name}, hint={"log_record": record})
    assert [event["message"] for event in kept.events] == ["other"]


def test_without_the_package_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    sentry = Sentry(dsn="https://k@h/1", is_of_a_step=bool, is_told=lambda record: False)
    with pytest.raises(Exception, match=r"agentq-celery\[sentry\]"):
        sentry.begin()
