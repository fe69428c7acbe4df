"""One parameter or one result: how its hint makes JSON of a value, and the value of JSON again."""

import json
import math
import typing
from collections.abc import Collection, Iterator, Sequence
from inspect import Parameter
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError

from agentq.core.codec import dumps, holds_unwritten_number, to_jsonable
from agentq.core.lazy import LazyList

_EXACT: Final = frozenset({str, int, bool, float, type(None)})
"""Types whose JSON is the value itself: a value of exactly this type crosses as it is."""

_UNTYPED: Final = (Parameter.empty, Any, object)

_LAZY: Final = (Sequence, Collection)
"""Hints that promise no more than a lazy list keeps; whoever says `list`, or nothing, gets a list."""

_MASK: Final = '"**********"'
"""What pydantic writes in place of a secret."""

_ERRORS_TOLD: Final = 3
"""Of the errors within one value; a hundred lines about a list of wrong items tell no more than three."""


class Boundary:
    """`write` makes a JSON-able value of a typed one, `read` the typed value again."""

    __slots__ = ("_adapter", "_exact", "_item", "name", "required")

    def __init__(self, name: str, hint: Any, *, required: bool) -> None:
        """`hint` is Parameter.empty where there is none; then every value passes that JSON can hold."""
        self.name = name
        self.required = required
        self._exact = hint if isinstance(hint, type) and hint in _EXACT else None
        self._adapter = None if hint in _UNTYPED else _adapter(hint)
        self._item = Boundary(name, _item_of(hint), required=True) if _is_lazy(hint) else None

    def write(self, value: Any) -> Any:
        """The value, validated by the hint, as JSON can hold it; ValueError says what is wrong."""
        if type(value) is self._exact and (type(value) is not float or math.isfinite(value)):
            return value
        try:
            if self._adapter is None:
                return to_jsonable(value)
            return self._written(self._adapter, value)
        except ValidationError as error:
            raise ValueError(_told(error)) from error
        except (PydanticSerializationError, UnicodeDecodeError) as error:
            raise ValueError(f"JSON cannot hold it: {error}") from error
        except TypeError as error:
            raise ValueError(str(error)) from error

    def read(self, value: Any) -> Any:
        """The typed value that the JSON-able one stands for; ValueError says why there is none.

        A `LazyList` stays one where the hint allows it; then its items are validated when they are read.
        """
        if isinstance(value, LazyList):
            if self._item is not None:
                return value.mapped(self._item.read)
            value = list(value)
        if self._adapter is None or type(value) is self._exact:
            return value
        try:
            return self._adapter.validate_python(value)
        except ValidationError:
            try:
                # A strict model takes a date from JSON text, but not from a Python str.
                return self._adapter.validate_json(dumps(value))
            except ValidationError as error:
                raise ValueError(_told(error)) from error
            except TypeError as error:
                raise ValueError(str(error)) from error

    def json_schema(self) -> dict[str, Any]:
        """JSON schema of the JSON-able value; an empty one, which allows all, where pydantic knows none."""
        if self._adapter is None:
            return {}
        try:
            return self._adapter.json_schema()
        except PydanticUserError:
            return {}

    def _written(self, adapter: TypeAdapter[Any], value: Any) -> Any:
        typed = adapter.validate_python(value)
        written = adapter.dump_python(typed, mode="json", warnings=False)
        text = json.dumps(written, allow_nan=False)
        if "null" in text and holds_unwritten_number(adapter.dump_python(typed, warnings=False)):
            raise ValueError("it holds NaN or an infinity, which JSON cannot hold")
        if _MASK in text and any(_secrets(self.json_schema())):
            # The mask would arrive in place of the secret, and the secret itself must not lie in a broker.
            raise ValueError("it holds a secret, which is not sent: let the step read it from its settings")
        return written


def _is_lazy(hint: Any) -> bool:
    return hint in _LAZY or typing.get_origin(hint) in _LAZY


def _item_of(hint: Any) -> Any:
    arguments = typing.get_args(hint)
    return arguments[0] if arguments else Parameter.empty


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(hint)
    except PydanticUserError:
        # A class of which pydantic knows nothing: what JSON cannot hold is refused when it is written.
        return None


def _secrets(schema: Any) -> Iterator[bool]:
    if isinstance(schema, dict):
        if schema.get("format") == "password" and schema.get("writeOnly"):
            yield True
        schema = schema.values()
    elif not isinstance(schema, list):
        return
    for part in schema:
        yield from _secrets(part)


def _told(error: ValidationError) -> str:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    words = []
    for each in errors[:_ERRORS_TOLD]:
        place = ".".join(str(part) for part in each["loc"])
        words.append(f"{place}: {each['msg']}" if place else each["msg"])
    more = len(errors) - _ERRORS_TOLD
    return "; ".join(words) + (f"; and {more} more" if more > 0 else "")
