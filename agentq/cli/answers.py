"""A person's words as the answer to an ask."""

from __future__ import annotations

import getpass
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentq.core.models import AskSummary

TRUTHS = {"yes": True, "y": True, "true": True, "no": False, "n": False, "false": False}


def read_answer(ask: AskSummary, words: str) -> Any:
    """The answer as a value; `ValueError` when the words are none for this question.

    Yes and no are understood where a truth is asked for, text is taken as it stands where text is asked
    for, and everything else is read as JSON.
    """
    kind = ask.answer_schema.get("type")
    if kind == "boolean":
        if words.strip().lower() not in TRUTHS:
            raise ValueError(f'"{words}" is neither yes nor no')
        return TRUTHS[words.strip().lower()]
    if kind == "string" or (kind is None and isinstance(next(iter(ask.options), None), str)):
        return words
    try:
        return json.loads(words)
    except ValueError:
        if kind in ("integer", "number", "array", "object"):
            raise ValueError(f'"{words}" is not {kind}, written as JSON') from None
        return words


def person() -> str:
    """Who answers, for the run's history; empty where the system knows no name for the user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
