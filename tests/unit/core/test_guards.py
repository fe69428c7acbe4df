"""Breakers, rates, limits and budgets as they are declared, and the names that they go by."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from typing import Any

import pytest
from pydantic import ValidationError

from agentq.core.errors import BudgetExceeded, InvalidArguments, from_wire
from agentq.core.guards import Breaker, Budget, Limit, Quota, Rate
from agentq.core.key_template import check_names, fill


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("words", "amount", "seconds"),
    [("500/min", 500, 60), ("200k/min", 200_000, 60), ("10/s", 10, 1), ("1.5m/h", 1_500_000, 3600), ("9/5m", 9, 300),
     ("3/day", 3, 86400)],
)  # fmt: skip
def test_quotas_are_read_as_people_write_them(words: str, amount: int, seconds: int) -> None:
    assert Rate("r", requests=words).requests == Quota(amount, timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Rate("r"), "it limits nothing"),
        (lambda: Rate("r", requests="many"), '"500/min"'),
        (lambda: Rate("r", requests="5/fortnight"), '"500/min"'),
        (lambda: Rate("r", requests="0/min"), "let nothing through"),
        (lambda: Rate("r", in_flight=0), "in_flight"),
        (lambda: Limit("", 1), "key"),
        (lambda: Limit("a:{b.c}", 1), "no name of an argument"),
        (lambda: Limit("a:{b", 1), "key"),
        (lambda: Limit("a:{0}", 1), "no name of an argument"),
        (lambda: Limit("a", 0), "slots"),
        (lambda: Breaker("b", rate=0), "rate"),
        (lambda: Breaker("b", rate=1.1), "rate"),
        (lambda: Breaker("b", probes=0), "probes"),
        (lambda: Budget(per="tenant", wall=timedelta(1)), "cannot be summed up"),
        (lambda: Budget(on_exceeded="shout"), "on_exceeded"),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make()
    assert words in str(caught.value)


def test_a_budget_counts_as_the_store_does() -> None:
    budget = Budget(
        usd="0.1", tokens=5, steps=4, attempts=3, wall=timedelta(seconds=2), depth=1, width=0, storage="1KiB"
    )
    assert budget.limits() == {
        "usd_micro": 100_000, "tokens": 5, "steps": 4, "attempts": 3, "wall_ms": 2000, "depth": 1, "width": 0,
        "storage_bytes": 1024,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("template", "values", "name"),
    [
        ("plain", {}, "plain"),
        ("llm:{model}", {"model": "m"}, "llm:m"),
        ("{a}-{b}", {"a": 1, "b": True}, "1-True"),
        ("{colour}", {"colour": Colour.RED}, "red"),
        ("{gone}", {}, "None"),
    ],
)
def test_names_are_filled_from_arguments(template: str, values: dict[str, Any], name: str) -> None:
    assert fill(template, values, step="s") == name


@pytest.mark.parametrize(("value", "words"), [(["x"], "must be text"), ("x" * 300, "characters long")])
def test_a_value_that_names_nothing_is_refused(value: Any, words: str) -> None:
    with pytest.raises(InvalidArguments, match=words):
        fill("llm:{model}", {"model": value}, step="s")


def test_a_name_without_its_argument_is_refused_at_once() -> None:
    check_names("llm:{model}", ["model"], step="s", option="breaker")
    with pytest.raises(InvalidArguments, match="has no argument 'modle'; it has model, tenant"):
        check_names("llm:{modle}", ["model", "tenant"], step="s", option="breaker")


@pytest.mark.parametrize(("account", "whose"), [(None, ""), ("tenant acme today", " of tenant acme today")])
def test_a_refusal_says_whose_budget_it_is(account: str | None, whose: str) -> None:
    """As the scripts write it: without an account for the run's own."""
    fields = {"limit_name": "tokens", "limit": "10", "used": "9"} | ({"account": account} if account else {})
    error = from_wire({"code": "budget_exceeded", "fields": fields})
    assert isinstance(error, BudgetExceeded)
    assert str(error).startswith(f"The budget's tokens{whose} is reached: 9 used or reserved of 10.")
