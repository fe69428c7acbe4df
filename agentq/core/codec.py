"""How Python values become JSON and text, and text becomes values again.

It owns the one spelling of JSON on the wire. It must not know type hints: those are `schema`'s.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence, Set
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

import pydantic_core
from pydantic import AnyUrl, BaseModel

_HASH_CHARACTERS: Final = 16
"""64 bits: within one run, where alone it must tell arguments apart, a clash needs billions of calls."""

_PLAIN: Final = frozenset({str, int, bool, type(None)})

_WRITTEN_BY_PYDANTIC: Final = (date, time, timedelta, Decimal, UUID, PurePath, AnyUrl)

_canonical: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

_Trail = tuple[tuple[int, object], ...]
"""The collections around a value, outermost first: each one's id, and the key or index that leads on."""


def to_jsonable(value: Any) -> Any:
    """The value as JSON knows it: dict, list, str, int, float, bool and None, and no subclass of them.

    Pydantic models, dataclasses, enums, dates, durations, Decimal, UUID and paths become what pydantic writes
    for them; tuples and other sequences become lists, and sets become sorted lists, so that the same set is
    written the same way in every process.

    Raises:
        TypeError: for what JSON cannot hold (bytes, secrets, a mapping whose keys are not text, any other
            object). The message says where in the value it stands.
        ValueError: for NaN and infinities, and for a value that contains itself.
    """
    return _walk(value, ())


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that are None: what is left out is read as None again."""
    return {name: value for name, value in fields.items() if value is not None}


def dumps(value: Any) -> str:
    """Compact JSON text of the value, its keys in the order that they have."""
    return pydantic_core.to_json(to_jsonable(value)).decode()


def loads(text: str | bytes) -> Any:
    """The value that the JSON text stands for; raises ValueError for text that is not JSON (NaN is not)."""
    return pydantic_core.from_json(text, allow_inf_nan=False)


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values: keys sorted, no blanks, only ASCII."""
    return canonical_of_jsonable(to_jsonable(value))


def canonical_of_jsonable(value: Any) -> str:
    """The `canonical` text of what `to_jsonable` gave, tuples in it or not."""
    return _canonical.encode(value)


def short_hash(text: str) -> str:
    """Sixteen hexadecimal digits of SHA-256; the same text gives the same digits on every machine."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARACTERS]


def holds_unwritten_number(dumped: Any) -> bool:
    """Whether NaN or an infinity is in what pydantic dumped in its Python mode.

    Its JSON mode writes null for one where a hint leaves the type open, and says nothing.
    """
    if isinstance(dumped, float):
        return not math.isfinite(dumped)
    if isinstance(dumped, Mapping):
        return any(map(holds_unwritten_number, dumped.values()))
    if isinstance(dumped, list | tuple | Set):
        return any(map(holds_unwritten_number, dumped))
    return False


def _walk(value: Any, trail: _Trail) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is float:
        if not math.isfinite(value):
            raise ValueError(f"{_place(trail)} is {value}, which JSON cannot hold")
        return value
    if kind is list or kind is tuple or kind is dict:
        # First, though it comes again below: to ask the abstract classes of each of ten thousand takes longer than to
        # write them.
        return _collection(value, trail)
    if isinstance(value, Enum):
        return _walk(value.value, trail)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(
            f"{_place(trail)} is {kind.__name__}, which JSON cannot hold: "
            "send text (base64, say), a path to a file, or say bytes in the type hint"
        )
    if isinstance(value, Mapping | Sequence | Set):
        return _collection(value, trail)
    return _object(value, trail)


def _collection(value: Any, trail: _Trail) -> Any:
    own = id(value)
    for outer, _ in trail:
        if outer == own:
            raise ValueError(f"{_place(trail)} contains itself, which JSON cannot hold")
    if type(value) is dict or isinstance(value, Mapping):
        written = {}
        for key, item in value.items():
            inner = (*trail, (own, key))
            written[_key(key, inner)] = item if type(item) in _PLAIN else _walk(item, inner)
        return written
    items = [item if type(item) in _PLAIN else _walk(item, (*trail, (own, index))) for index, item in enumerate(value)]
    if not isinstance(value, list | tuple) and isinstance(value, Set):
        # An order by hash would differ from process to process, and with it the key of the step.
        items.sort(key=lambda item: json.dumps(item, sort_keys=True))
    return items


def _key(key: object, trail: _Trail) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        kind = type(key).__name__
        raise TypeError(
            f"{_place(trail)} has a key of type {kind}, but JSON knows only text as keys: "
            f"use text, or say the type in a hint such as dict[{kind}, ...]"
        )
    return str.__str__(key)


def _object(value: Any, trail: _Trail) -> Any:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _walk(float(value), trail)
    if isinstance(value, BaseModel):
        written = _walk(value.model_dump(mode="json"), trail)
        if holds_unwritten_number(value.model_dump()):
            raise ValueError(f"{_place(trail)} holds NaN or an infinity, which JSON cannot hold")
        return written
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _walk(getattr(value, field.name), (*trail, (id(value), field.name)))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, _WRITTEN_BY_PYDANTIC):
        return pydantic_core.to_jsonable_python(value)
    raise TypeError(
        f"{_place(trail)} is of type {type(value).__qualname__}, which JSON cannot hold: "
        "send plain values, a pydantic model or a dataclass"
    )


def _place(trail: _Trail) -> str:
    return "the value" + "".join(f"[{key!r}]" for _, key in trail)
