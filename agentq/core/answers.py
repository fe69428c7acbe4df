"""Whether a person's answer is of the type that the agent asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentq.core.errors import InvalidArguments


def check_answer(schema: Mapping[str, Any], value: Any, *, question: str) -> None:
    """Return if ``value``, JSON-able, fits the JSON schema; raises InvalidArguments that says why it does not."""
    # Costs a fifth of a second, which nobody shall pay who answers nothing.
    from jsonschema import Draft202012Validator

    for problem in Draft202012Validator(dict(schema)).iter_errors(value):
        place = "answer" + "".join(f"[{part!r}]" for part in problem.absolute_path)
        raise InvalidArguments(step=question, parameter=place, value=value, reason=problem.message)
