"""Type hints of local calls, signals and answers, read once and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from agentq.core.boundary import Boundary
from agentq.core.schema import CallSchema

_schemas: Final[WeakKeyDictionary[Any, CallSchema]] = WeakKeyDictionary()
_boundaries: Final[dict[Any, Boundary]] = {}
_KEPT: Final = 1024
"""Kinds of signals and answers in one process; code that makes types as it goes must not fill the memory."""


def local_schema(function: Callable[..., Any]) -> CallSchema:
    """The schema of a function that an agent calls in place."""
    inner = getattr(function, "__func__", function)
    try:
        found = _schemas.get(inner)
    except TypeError:  # A callable that cannot be kept by reference.
        return CallSchema.of(function)
    if found is None:
        found = CallSchema.of(inner, skip_first=inner is not function)
        _schemas[inner] = found
    return found


def boundary_of(kind: Any) -> Boundary:
    """The boundary of one value of this type."""
    try:
        found = _boundaries.get(kind)
    except TypeError:  # An annotation with an unhashable part.
        return Boundary("value", kind, required=True)
    if found is None:
        if len(_boundaries) >= _KEPT:
            _boundaries.clear()
        found = _boundaries[kind] = Boundary("value", kind, required=True)
    return found
