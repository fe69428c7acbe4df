"""A person's words as an answer, by what the question takes."""

from __future__ import annotations

from typing import Any

import pytest

from agentq.cli.answers import read_answer
from agentq.core.models import AskSummary
from tests.unit.cli.made import BEGIN


def ask(schema: dict[str, Any]) -> AskSummary:
    return AskSummary(
        ask_id="a", run_id="r", agent="research", question="Publish?", answer_schema=schema, asked_at=BEGIN
    )


@pytest.mark.parametrize(
    ("schema", "words", "value"),
    [
        ({"type": "boolean"}, "yes", True),
        ({"type": "boolean"}, " N ", False),
        ({"type": "boolean"}, "true", True),
        ({"type": "string"}, "3", "3"),
        ({"enum": ["red", "blue"]}, "red", "red"),
        ({"type": "integer"}, "3", 3),
        ({"type": "array"}, "[1]", [1]),
        ({}, '{"a": 1}', {"a": 1}),
        ({}, "just words", "just words"),
    ],
)
def test_answers(schema: dict[str, Any], words: str, value: object) -> None:
    assert read_answer(ask(schema), words) == value


@pytest.mark.parametrize(("kind", "words"), [("boolean", "maybe"), ("integer", "three"), ("object", "{")])
def test_words_that_are_no_answer(kind: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_answer(ask({"type": kind}), words)
