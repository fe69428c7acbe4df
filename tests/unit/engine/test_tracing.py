"""A step that follows another is run without Celery's tracer: who looks or listens sees what that shows."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from celery import signals
from celery.app import trace as celery_trace
from celery.exceptions import Ignore, Retry

from agentq import AgentQ
from agentq.engine import task as task_module
from agentq.engine import tracing
from agentq.engine.log_lines import Line
from agentq.engine.messages import HOLDER_HEADER
from agentq.engine.outcome import COMMITTED
from agentq.settings import Settings

HOLDER = {"root": "r", "id": "one", "worker": "w", "take": 1, "generation": 1}


class Tried:
    """Stands for an attempt: what it sees of its request, and what it comes to."""

    seen: ClassVar[list[dict[str, Any]]] = []
    outcome: Any = None

    def __init__(self, task: Any, _binding: Any, _holder: Any, request: Any) -> None:
        fields = ("id", "args", "kwargs", "group", "hostname", "chain", "errbacks", "called_directly", "is_eager")
        self.seen.append({name: getattr(task.request, name) for name in fields})
        self.request = request

    def run(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        setattr(self.request, COMMITTED, True)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    """A step of an app that reaches no server, traced as in a worker."""
    app = AgentQ("traced", settings=Settings.model_validate({"redis_url": "redis://nowhere"}), set_as_current=False)

    @app.step(name="read")
    def read(path: str) -> str:
        return path

    app.finalize()
    task: Any = app.tasks["read"]
    # Celery's looks once for who hears its lines, when it is made.
    caplog.set_level(logging.INFO)
    task.__trace__ = celery_trace.build_tracer("read", task, app.loader, "host", app=app)
    monkeypatch.setattr(celery_trace, "_localized", [app.tasks, {}, "host"])
    monkeypatch.setattr(task_module, "Attempt", Tried)
    monkeypatch.setattr(Tried, "seen", [])
    return task


@pytest.fixture
def celerys(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the steps that Celery's tracer has run."""
    found: list[str] = []
    real = celery_trace.fast_trace_task

    def traced(name: str, task_id: str, *rest: Any, **options: Any) -> Any:
        found.append(task_id)
        return real(name, task_id, *rest, **options)

    monkeypatch.setattr(celery_trace, "fast_trace_task", traced)
    return found


@pytest.fixture
def listener() -> Iterator[list[str]]:
    """What is heard of a task's end, by signal."""
    heard: list[str] = []

    def hear(task_id: str, **_kwargs: Any) -> None:
        heard.append(task_id)

    signals.task_postrun.connect(hear)
    yield heard
    signals.task_postrun.disconnect(hear)


def call() -> tracing.Call:
    request = {"id": "one", "task": "read", "group": "g", "headers": None, HOLDER_HEADER: dict(HOLDER)}
    request |= {"argsrepr": "('docs',)", "kwargsrepr": "{}", "delivery_info": {"priority": 0}, "root_id": "r"}
    return "read", "one", request, (["docs"], {}, {"chain": None, "errbacks": None, "callbacks": None}), None, None


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, str, list[str]]]:
    found = [
        (each.name, each.levelno, re.sub(r"\d+\.\d+(e-\d+)?s:", "s:", each.getMessage()), sorted(vars(each)["data"]))
        for each in caplog.records
    ]
    caplog.clear()
    return found


OUTCOMES = [None, "docs", ["a"], ValueError("no"), Ignore("gone"), Retry(exc=ValueError("later"), when=1.0)]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_it_says_and_shows_what_celerys_tracer_does(
    step: Any, celerys: list[str], outcome: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Any] = []
    monkeypatch.setattr(step, "on_failure", lambda error, *_: ended.append(repr(error)), raising=False)
    monkeypatch.setattr(step, "on_retry", lambda error, *_: ended.append(repr(error)), raising=False)
    monkeypatch.setattr(Tried, "outcome", outcome)
    found = []
    for is_whole in (False, True):
        monkeypatch.setattr(tracing, "_is_short", lambda _task, whole=is_whole: not whole)
        tracing.run_call(call())
        found.append((told(caplog), list(ended), list(Tried.seen)))
        ended.clear()
        Tried.seen.clear()
    assert found[0] == found[1]
    assert found[0][0][0][2] == "Task read[one] received"
    assert celerys == ["one"], "once by each"
    assert step.request_stack.top is None


def test_what_it_raises_keeps_the_place_where_it_was_raised(
    step: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tried, "outcome", ValueError("no"))
    tracing.run_call(call())
    (failed,) = [each for each in caplog.records if each.exc_info]
    assert "in run\n" in (logging.Formatter().formatException(failed.exc_info) if failed.exc_info else "")
    assert len(Tried.seen) == 1, "it does not run again to be told of"


def test_who_listens_hears(step: Any, celerys: list[str], listener: list[str]) -> None:
    tracing.run_call(call())
    assert (celerys, listener) == (["one"], ["one"])


def test_a_tracer_of_somebodys_own_is_called(step: Any, celerys: list[str]) -> None:
    tracing.run_call(call())
    assert celerys == []
    real, traced = step.__trace__, []

    def around(*args: Any, **kwargs: Any) -> Any:
        traced.append(args[0])
        return real(*args, **kwargs)

    step.__trace__ = around
    tracing.run_call(call())
    assert traced == ["one"]


class Proxy:
    """What libraries wrap things with: looks as what it wraps in all it is asked for."""

    def __init__(self, wrapped: Any, called: list[str]) -> None:
        self.__dict__.update(wrapped=wrapped, called=called)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self.__dict__["wrapped"])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["wrapped"], name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.__dict__["called"].append("through it")
        return self.__dict__["wrapped"](*args, **kwargs)


@pytest.mark.parametrize("wraps", ["the tracer", "the task"])
def test_a_proxy_of_somebodys_own_is_called(step: Any, wraps: str) -> None:
    called: list[str] = []
    assert tracing.is_celerys_own(step.__trace__, step)
    if wraps == "the tracer":
        step.__trace__ = Proxy(step.__trace__, called)
    else:
        step.__trace__ = celery_trace.build_tracer("read", Proxy(step, called), step.app.loader, "host", app=step.app)
    tracing.run_call(call())
    assert called == ["through it"]


def test_the_line_of_its_end_is_said_while_it_is_the_current_task(step: Any, caplog: pytest.LogCaptureFixture) -> None:
    whose: list[tuple[str, str | None]] = []

    def look(record: logging.LogRecord) -> bool:
        task = celery_trace._task_stack.top
        whose.append((record.msg[:18], task.request.id if task is not None else None))
        return True

    celery_trace.logger.addFilter(look)
    try:
        tracing.run_call(call())
    finally:
        celery_trace.logger.removeFilter(look)
    assert whose == [(celery_trace.LOG_SUCCESS[:18], "one")]


@pytest.mark.parametrize("name", ["before_start", "on_success", "after_return"])
def test_a_method_of_the_tasks_class_is_called(step: Any, celerys: list[str], name: str) -> None:
    called: list[str] = []
    setattr(type(step), name, lambda *_args: called.append(name))
    # As a worker's start would: with the class as it is.
    step.__trace__ = celery_trace.build_tracer("read", step, step.app.loader, "host", app=step.app)
    tracing.run_call(call())
    assert (called, celerys) == ([name], ["one"])


def test_a_line_is_the_record_that_logging_makes(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("agentq.test.lines")
    line = Line(logger, "Task %(name)s", said_by=call)
    values = {"name": "read"}
    with caplog.at_level(logging.INFO, logger=logger.name):
        for _ in range(2):
            line.say(values)
        logger.info("Task %(name)s", values, extra={"data": values})
    first, again, plain = (vars(each) for each in caplog.records)
    assert first.keys() == again.keys() == plain.keys()
    place = {"lineno", "funcName", "created", "msecs", "relativeCreated"}
    assert {name for name in plain if again[name] != plain[name]} <= place
    assert abs(again["relativeCreated"] - plain["relativeCreated"]) < 60_000
    assert again["msecs"] == int(again["created"] * 1000) % 1000


def test_who_makes_records_makes_these_too_and_levels_count(monkeypatch: pytest.MonkeyPatch) -> None:
    logger, made = logging.getLogger("agentq.test.made"), list[str]()
    line = Line(logger, "Task %(name)s", said_by=call)
    logger.setLevel(logging.WARNING)
    assert not line.is_heard
    logger.setLevel(logging.INFO)
    assert line.is_heard
    monkeypatch.setattr(logger, "propagate", False)
    real = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made.append(args[0])
        return real(*args, **kwargs)

    logging.setLogRecordFactory(factory)
    try:
        line.say({"name": "read"})
    finally:
        logging.setLogRecordFactory(real)
    assert made == [logger.name]


def test_without_celerys_own_tracer_nothing_is_left_out() -> None:
    assert tracing._CELERYS_OWN
    assert tracing._codes_within(SimpleNamespace()) == []
