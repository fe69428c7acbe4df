"""What all errors of agentq share: their fields, their way through JSON and pickle, and the four bases.

The tree is drawn in `errors`, where the classes with fields stand; import from there.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Final, Self

from agentq.core.codec import to_jsonable

Wire = dict[str, Any]
"""An error on the wire: `code`, and `fields` that JSON can hold."""

_SHOWN_CHARACTERS: Final = 200
"""A value in a message is cut here: enough to recognise it, too little to fill a terminal or a log line."""

ABSENT: Final = object()
"""Stands for no value where None would be one."""


class AgentqError(Exception):
    """The root of the tree; `fields` holds what the message is made from, `code` never changes."""

    code: ClassVar[str] = "agentq_error"
    retryable: ClassVar[bool] = False
    """Whether the same attempt may succeed later, unchanged."""

    fields: dict[str, Any]
    message: str

    def __init__(self, message: str) -> None:
        self._fill(message=message)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _CLASSES.setdefault(cls.code, cls)

    def to_wire(self) -> Wire:
        """The error as JSON can hold it; `from_wire` makes the same class of it again."""
        return {"code": self.code, "fields": dict(self.fields)}

    def describe(self) -> str:
        """What happened, to which ids, the actual value beside the limit, and what to do."""
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way calls the class with `args`, which these constructors do not take.
        return _rebuild, (type(self), self.fields)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.fields == self.fields

    def __hash__(self) -> int:
        return hash((self.code, str(self)))

    def _fill(self, **fields: Any) -> Self:
        self.fields = {name: to_jsonable(value) for name, value in fields.items()}
        self.__dict__.update(self.fields)
        self.args = (self.describe(),)
        return self


_CLASSES: Final[dict[str, type[AgentqError]]] = {AgentqError.code: AgentqError}


def from_wire(wire: Mapping[str, Any]) -> AgentqError:
    """The error that stands in the wire form, as the class that it was.

    A code or fields that this version does not know give a plain AgentqError that tells them: a worker of a
    newer version may have written them.
    """
    code, fields = wire.get("code"), wire.get("fields")
    cls = _CLASSES.get(str(code))
    if cls is not None and isinstance(fields, Mapping):
        try:
            return _rebuild(cls, fields)
        except (AttributeError, TypeError, ValueError, LookupError):
            pass
    return AgentqError(f"An error of a kind unknown to this version of agentq: {shown(dict(wire))}")


def _rebuild(cls: type[AgentqError], fields: Mapping[str, Any]) -> AgentqError:
    return cls.__new__(cls)._fill(**fields)


class UsageError(AgentqError):
    """The caller's code or configuration is wrong; trying again changes nothing."""

    code = "usage_error"


class RunError(AgentqError):
    """This run, or this step of it, cannot go on."""

    code = "run_error"


class OwnershipLost(AgentqError):
    """This worker no longer owns what it works on and must stop without writing."""

    code = "ownership_lost"


class Unavailable(AgentqError):
    """Something that is needed is away; the same call may work later."""

    code = "unavailable"
    retryable = True


def shown(value: object) -> str | None:
    """How a value stands in a message: its repr, cut to 200 characters; None for ABSENT."""
    if value is ABSENT:
        return None
    try:
        text = repr(value)
    except Exception as error:  # A stranger's __repr__ must not hide the error that is being told.
        text = f"<{type(value).__qualname__} whose repr fails: {type(error).__name__}>"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"


def ended(sentence: str) -> str:
    """The sentence with the full stop that it may lack."""
    return sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."


def near(name: str, known: Iterable[str]) -> str:
    """` Did you mean "plan"?` for a name that is nearly a known one, else nothing."""
    found = get_close_matches(name, list(known), n=1)
    return f' Did you mean "{found[0]}"?' if found else ""


def listed(names: Iterable[str]) -> str:
    """The names, quoted and sorted; `none` if there are none."""
    return ", ".join(f'"{name}"' for name in sorted(names)) or "none"
