"""Options and summaries: frozen, exact, and nothing unknown in them."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agentq.core.guards import Breaker, Budget
from agentq.core.models import AskSummary, Event, Needs, RunSummary, StepSummary, Usage
from agentq.core.retry import Retry

AT = datetime(2026, 1, 2, tzinfo=UTC)

EVERY: list[BaseModel] = [
    Needs(gpu="a100", vram_gb=40, os="linux", fast=True),
    Budget(usd=2, tokens=10, steps=3, wall=timedelta(hours=1)),
    Usage(tokens_in=1, tokens_out=2, usd="0.1", model="m"),
    Event(offset=1, at=AT, kind="step.done", run_id="r", fields={"a": 1}),
    RunSummary(run_id="r", agent="a", status="parked", started_at=AT, priority="low"),
    StepSummary(step_id="s", name="n", status="queued", queue="q", queued_at=AT),
    AskSummary(ask_id="a", run_id="r", agent="g", question="?", answer_schema={"type": "boolean"}, asked_at=AT),
]


@pytest.mark.parametrize("model", EVERY, ids=lambda model: type(model).__name__)
def test_a_model_crosses_json_as_itself(model: BaseModel) -> None:
    assert type(model).model_validate_json(model.model_dump_json()) == model


@pytest.mark.parametrize("model", [*EVERY, Retry(), Breaker("llm", volume=2)], ids=lambda model: type(model).__name__)
def test_a_model_cannot_be_changed(model: BaseModel) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(model, next(iter(type(model).model_fields)), None)


@pytest.mark.parametrize("model", EVERY[4:], ids=lambda model: type(model).__name__)
def test_an_unknown_field_is_refused(model: BaseModel) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(model).model_validate(model.model_dump() | {"unknown": 1})


@pytest.mark.parametrize("cls", [Budget, Breaker, Usage])
def test_an_unknown_option_is_refused(cls: type[BaseModel]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'usdd'"):
        cls(usdd=1)


def test_an_unknown_retry_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Retry(attempt=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Needs(vram_gb=0), "vram_gb"),
        (lambda: Budget(usd=-1), "usd"),
        (lambda: Budget(steps=-1), "steps"),
        (lambda: Budget(wall=timedelta(0)), "wall"),
        (lambda: Breaker("", volume=1), "name"),
        (lambda: Breaker("b", volume=0), "volume"),
        (lambda: Retry(attempts=0), "attempts"),
        (lambda: Retry(jitter=1.5), "jitter"),
        (lambda: Retry(factor=0.5), "factor"),
        (lambda: Usage(tokens_in=-1), "tokens_in"),
        (lambda: RunSummary(run_id="r", agent="a", status="queued", started_at=datetime(2026, 1, 1)), "started_at"),  # noqa: DTZ001
    ],
)
def test_a_value_out_of_range_is_refused(make: Any, field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        make()
    assert refused.value.errors()[0]["loc"] == (field,)


def test_further_keywords_of_needs_are_tags() -> None:
    needs = Needs(gpu="a100", vram_gb=40, os="linux", cuda=12, fast=True, tags={"zone": "a"})
    assert needs.tags == {"zone": "a", "os": "linux", "cuda": "12", "fast": "true"}
    assert needs.as_tags() == needs.tags | {"gpu": "a100", "vram_gb": "40"}
    assert Needs().as_tags() == {}


def test_needs_are_taken_as_they_are() -> None:
    needs = Needs(gpu="a100", os="linux")
    assert Needs.model_validate(needs) == needs


def test_defaults_are_the_documented_ones() -> None:
    second = timedelta(seconds=1)
    assert Retry().model_dump() == {
        "attempts": 3, "wait": second, "factor": 2, "max_wait": 60 * second, "jitter": 0.1, "on": (Exception,),
        "stop": None, "change": None, "in_place": second / 2,
    }  # fmt: skip
    for breaker in (Breaker("b"), Breaker.model_validate({"name": "b"})):
        assert (breaker.rate, breaker.volume, breaker.probes, breaker.slow_after) == (0.5, 10, 1, None)
        assert (breaker.window, breaker.reset_after, breaker.jitter) == (30 * second, 30 * second, 0.2)
    assert set(Budget().model_dump().values()) == {None, "run", "refuse"}
    assert Budget().limits() == {}
    assert Usage().model_dump() == {"tokens_in": 0, "tokens_out": 0, "usd": Decimal(0), "model": None}


def test_a_budget_of_a_tenth_is_a_tenth() -> None:
    assert Budget(usd=0.1).usd == Decimal("0.1")
    assert Budget(usd=2).usd == 2
    assert Budget(usd="0.30").usd == Decimal("0.30")


def test_usage_adds_up_without_losing_a_cent() -> None:
    total = sum((Usage(usd=0.1, tokens_in=1, model="m") for _ in range(10)), Usage(model="m"))
    assert total == Usage(usd=1, tokens_in=10, model="m")
    assert (total + Usage(model="n")).model is None


def test_durations_may_be_written_as_text() -> None:
    retry = Retry.model_validate({"wait": "250ms", "max_wait": 3})
    assert (retry.wait, retry.max_wait) == (timedelta(milliseconds=250), timedelta(seconds=3))


def test_the_errors_of_a_retry_are_announced_by_name() -> None:
    assert Retry(on=(ValueError, OSError)).model_dump(mode="json")["on"] == ["builtins.ValueError", "builtins.OSError"]


def test_the_choices_of_an_ask_come_from_its_schema() -> None:
    ask = AskSummary(ask_id="a", run_id="r", agent="g", question="?", asked_at=AT)
    assert ask.options == ()
    assert ask.model_copy(update={"answer_schema": {"enum": ["a", "b"]}}).options == ("a", "b")
