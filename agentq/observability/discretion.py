"""Errors' texts without the values that they quote: an argument or a result may tell of people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import ValidationError

from agentq.core.error_base import AgentqError, from_wire

FILTERED: Final = "[Filtered]"
"""Sentry's own word for what is left out."""

QUOTES: Final = ("value",)
"""Fields of agentq's errors that hold what a caller passed or a step returned."""


def without_values(error: BaseException) -> dict[str | None, str]:
    """Return, for each error of the chain whose text quotes a value, that text and the one that does not."""
    found: dict[str | None, str] = {}
    for each in _chain(error):
        said = _discreet(each)
        if said is not None:
            found[str(each)] = said
    return found


def _discreet(error: BaseException) -> str | None:
    if isinstance(error, ValidationError):
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        told = "; ".join(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['type']}" for fault in faults)
        return f"{error.error_count()} validation errors for {error.title}: {told}"
    if isinstance(error, AgentqError):
        wire = error.to_wire()
        quoted = [name for name in QUOTES if wire["fields"].get(name) is not None]
        if quoted:
            return str(from_wire({**wire, "fields": {**wire["fields"], **dict.fromkeys(quoted, FILTERED)}}))
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
