"""Errors' texts without the values that they quote: an argument or a result may tell of people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from pydantic import ValidationError

from agentq.core.error_base import AgentqError, from_wire
from agentq.core.retry import EARLIER_FAILED

FILTERED: Final = "[Filtered]"
"""Sentry's own word for what is left out."""

QUOTES: Final = ("value",)
"""Fields of agentq's errors that hold what a caller passed or a step returned."""


def without_values(error: BaseException, text_of: Callable[[BaseException], str] = str) -> dict[str | None, str]:
    """Return, for each error of the chain whose text quotes a value, that text and the one that does not.

    What earlier attempts failed with is left out too, whatever the error.

    Args:
        error: the last of the chain.
        text_of: gives an error's text as it is to be looked up, its notes included or not.
    """
    found: dict[str | None, str] = {}
    for each in _chain(error):
        said, text = _discreet(each), text_of(each)
        if said is not None:
            found[text] = said
        elif (alone := _without_earlier(each, text)) != text:
            # Another error of the same text may quote a value, which goes first.
            found.setdefault(text, alone)
    return found


def _without_earlier(error: BaseException, text: str) -> str:
    notes = getattr(error, "__notes__", None)
    for note in notes if isinstance(notes, list) else ():
        if isinstance(note, str) and note.startswith(EARLIER_FAILED):
            text = text.replace(f"\n{note}", "")
    return text


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
