"""The decorator ``resource``: makes resources of functions, typed by what they return or yield."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from agentq.core.errors import InvalidArguments
from agentq.engine.resources import AnyResource, AsyncResource, Resource

if TYPE_CHECKING:
    # What ``contextmanager`` and ``asynccontextmanager`` make: other objects that can be entered are values themselves.
    from contextlib import _AsyncGeneratorContextManager, _GeneratorContextManager

T = TypeVar("T")

# The narrower signatures stand first; that the last one would fit as well is what mypy is told to bear.


class ResourceDecorator(Protocol):
    """What ``resource(...)`` with options returns; see ``resource``."""

    @overload
    def __call__(self, make: Callable[[], AsyncIterator[T]], /) -> AsyncResource[T]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, make: Callable[[], Awaitable[T]], /) -> AsyncResource[T]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, make: Callable[[], Iterator[T]], /) -> Resource[T]: ...

    @overload
    def __call__(self, make: Callable[[], T], /) -> Resource[T]: ...

    def __call__(self, make: Callable[[], Any], /) -> Any:
        """Make the function a resource."""


class ResourceMaker:
    """The decorator, as an object: a class may have it as an attribute, and type checkers see all its forms."""

    @overload
    def __call__(self, make: Callable[[], _AsyncGeneratorContextManager[T]], /) -> AsyncResource[T]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, make: Callable[[], _GeneratorContextManager[T]], /) -> Resource[T]: ...

    @overload
    def __call__(self, make: Callable[[], AsyncIterator[T]], /) -> AsyncResource[T]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, make: Callable[[], Awaitable[T]], /) -> AsyncResource[T]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, make: Callable[[], Iterator[T]], /) -> Resource[T]: ...

    @overload
    def __call__(self, make: Callable[[], T], /) -> Resource[T]: ...

    @overload
    def __call__(self, /, *, name: str | None = None, shared: bool = False) -> ResourceDecorator: ...

    def __call__(
        self, make: Callable[[], Any] | None = None, /, *, name: str | None = None, shared: bool = False
    ) -> Any:
        """Make a function without parameters a resource: opened at its first use in a process, closed at its end.

        The function returns the value, which is closed by its ``close`` or ``aclose`` where it has one; or yields it,
        and what stands behind the ``yield`` closes it. ``shared``: opened before a worker's children are forked, which
        then read the parent's memory; for plain functions, and for nothing that holds a connection, a thread or a GPU.
        """

        def decorate(function: Callable[[], Any]) -> AnyResource:
            _check_function(function, name, shared)
            kind = AsyncResource if _is_async(function) else Resource
            return kind(function, name=name, shared=shared)

        return decorate if make is None else decorate(make)


resource = ResourceMaker()
"""See ``ResourceMaker.__call__``."""


def _check_function(function: Callable[[], Any], name: str | None, shared: bool) -> None:
    words = None
    if not callable(function):
        words = "it is no function"
    elif any(
        each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        for each in inspect.signature(function).parameters.values()
    ):
        words = "its function has parameters, which nobody would give"
    elif shared and _is_async(function):
        words = "shared is for plain functions: an event loop does not outlive a fork"
    if name is not None and not re.fullmatch(r"[^\s]{1,200}", name):
        words = f"its name {name!r} has blanks in it, or is longer than 200 characters"
    if words is not None:
        raise InvalidArguments(step="resource", parameter="function", value=function, reason=words)


def _is_async(function: Callable[[], Any]) -> bool:
    inner = inspect.unwrap(function)
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)
