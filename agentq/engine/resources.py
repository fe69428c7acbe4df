"""What steps share in one process and is dear to make: a model's weights, a client of a service.

A resource is opened when it is first asked for, once per process, and closed when the process ends. A forked child has
none of its parent's, unless it is declared as shared. Async ones live on the process's event loop (``realloop``).
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, Generic, TypeVar, cast
from zlib import crc32

from agentq.core.errors import InvalidArguments
from agentq.engine import realloop
from agentq.engine.keeper import claims

T_co = TypeVar("T_co", covariant=True)

logger = logging.getLogger(__name__)

CLOSING_S = 10.0
"""For one async resource to close, when its process ends."""

WARM_BITS = 63
"""Of the word on the keeper's page that says what is open; two names may share a bit, which then says too much."""

_known: list[AnyResource] = []
_abandoned: list[object] = []
_opened: list[AnyResource] = []
"""In this process, in the order of their opening."""


class AnyResource(ABC):
    """What both kinds of resources have in common.

    Attributes:
        name: module and name of the function that makes it.
        shared: whether a worker opens it before its children are forked, which then use the parent's.
    """

    def __init__(self, make: Callable[[], Any], *, name: str | None = None, shared: bool = False) -> None:
        self.name = name if name is not None else f"{make.__module__}.{make.__qualname__}"
        self.shared = shared
        self._make = make
        self._reset()
        _known.append(self)

    def __repr__(self) -> str:
        return f"<resource {self.name}, {'open' if self.is_open else 'closed'}>"

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether this process has it."""

    @property
    def bit(self) -> int:
        """Its place in the word of what is open."""
        return 1 << crc32(self.name.encode()) % WARM_BITS

    @abstractmethod
    def open(self) -> None:
        """Return once it is open; not to be called on the event loop of async steps."""

    @abstractmethod
    def close(self) -> None:
        """Close it, if this process has opened it; the next use opens it anew."""

    @abstractmethod
    def _reset(self) -> None:
        """Forget what a parent process has opened."""

    def _note_open(self) -> None:
        _opened.append(self)
        _tell()
        logger.info("resource_opened name=%s pid=%d", self.name, os.getpid())

    def _note_closed(self) -> None:
        with suppress(ValueError):
            _opened.remove(self)
        _tell()


class Resource(AnyResource, Generic[T_co]):
    """A resource of a plain function; calling it gives its value. Safe in threads: they wait for the first one."""

    _lock: threading.RLock
    _opener: int | None
    _is_open: bool
    _value: Any
    _end: Callable[[], Any] | None

    def __call__(self) -> T_co:
        """Return the value; opens it at the first call in this process, and raises what its function raises."""
        if not self._is_open:
            self.open()
        return cast(T_co, self._value)

    @property
    def is_open(self) -> bool:
        """Whether this process has it."""
        return self._is_open

    def open(self) -> None:
        """Return once it is open."""
        if self._opener == threading.get_ident():
            raise RuntimeError(f"Resource {self.name} asks for itself while it is opened.")
        with self._lock:
            if self._is_open:
                return
            self._opener = threading.get_ident()
            try:
                made: Any = self._make()
                if inspect.isgenerator(made):
                    self._value, self._end = next(made), lambda: _finish(made)
                elif isinstance(made, _MANAGER):
                    self._value, self._end = made.__enter__(), lambda: made.__exit__(None, None, None)
                else:
                    self._value, self._end = made, getattr(made, "close", None) or getattr(made, "aclose", None)
            finally:
                self._opener = None
            self._is_open = True
            self._note_open()

    def close(self) -> None:
        """Close it, if this process has opened it."""
        with self._lock:
            if self._is_open and self in _opened:
                self._is_open, self._value, end = False, None, self._end
                self._note_closed()
                if callable(end) and inspect.isawaitable(ending := end()):
                    # An async client that a plain function has made.
                    realloop.run(_awaited(ending))

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._opener, self._is_open = None, False
        self._value, self._end = None, None


class AsyncResource(AnyResource, Generic[T_co]):
    """A resource of an ``async def`` function: ``await resource()`` in async steps, ``resource.get()`` in others."""

    def __call__(self) -> Awaitable[T_co]:
        """Return what gives the value when it is awaited; opens it at the first call in this process."""
        return self._give()

    def get(self) -> T_co:
        """Return the value, in a plain step; blocks while it is opened."""
        self.open()
        return cast(T_co, self._value)

    @property
    def is_open(self) -> bool:
        """Whether this process has it."""
        return self._ready is not None and self._ready.done() and not self._ready.exception()

    def open(self) -> None:
        """Return once it is open."""
        if not self.is_open:
            realloop.run(self._give())

    def close(self) -> None:
        """Close it, if this process has opened it."""
        if self.is_open:
            realloop.run(self._close())

    _ready: asyncio.Future[None] | None
    _holder: asyncio.Task[None] | None
    _closing: asyncio.Event | None
    _value: Any

    async def _give(self) -> T_co:
        if not realloop.is_here():
            raise RuntimeError(
                f"Resource {self.name} lives on the event loop of async steps: await it in an `async def` step. A "
                "plain step says resource.get(), and an agent asks a step."
            )
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._holder = asyncio.create_task(self._hold(self._ready), name=f"resource {self.name}")
        # The step that came first may be cancelled while others wait for the same.
        await asyncio.shield(self._ready)
        return cast(T_co, self._value)

    async def _hold(self, ready: asyncio.Future[None]) -> None:
        """Open and close it in one task: what an async context manager enters it leaves in the same one."""
        self._closing = closing = asyncio.Event()
        try:
            made = self._make()
            made = await made if inspect.isawaitable(made) else made
            if inspect.isasyncgen(made):
                self._value = await anext(made)
            elif isinstance(made, AbstractAsyncContextManager) and not _is_own_value(made):
                self._value = await made.__aenter__()
            else:
                self._value = made
        except BaseException as error:
            self._ready = None
            ready.set_exception(error if isinstance(error, Exception) else RuntimeError(f"{self.name}: {error!r}"))
            # Somebody may have gone meanwhile; what nobody has seen is no reason for a warning.
            ready.exception()
            return
        ready.set_result(None)
        self._note_open()
        try:
            await closing.wait()
        finally:
            self._ready, self._value = None, None
            self._note_closed()
            await _finish_async(made)

    async def _close(self) -> None:
        holder, closing = self._holder, self._closing
        if holder is not None and closing is not None:
            closing.set()
            await asyncio.wait({holder}, timeout=CLOSING_S)
            if holder.done() and not holder.cancelled() and (error := holder.exception()) is not None:
                raise error

    def _reset(self) -> None:
        # A task that nobody holds any more complains; its loop is the parent's.
        _abandoned.append(getattr(self, "_holder", None))
        self._ready = self._holder = self._closing = self._value = None


@contextmanager
def _example() -> Iterator[None]:
    yield


_MANAGER = type(_example())
"""What ``contextlib.contextmanager`` makes. Other objects that have ``__enter__`` may mean something else by it: a
connection's begins a transaction, a lock's waits for it."""


def _is_own_value(made: Any) -> bool:
    # A client of httpx or aiohttp is its own value, and is closed by its method.
    return callable(getattr(made, "aclose", None)) or callable(getattr(made, "close", None))


async def _awaited(ending: Awaitable[Any]) -> None:
    await ending


def _finish(made: Generator[Any, Any, Any]) -> None:
    with suppress(StopIteration):
        next(made)
        made.close()


async def _finish_async(made: Any) -> None:
    if inspect.isasyncgen(made):
        with suppress(StopAsyncIteration):
            await anext(made)
            await made.aclose()
        return
    end = getattr(made, "aclose", None) or getattr(made, "close", None)
    if not callable(end) and isinstance(made, AbstractAsyncContextManager):
        await made.__aexit__(None, None, None)
    elif callable(end):
        ended = end()
        if inspect.isawaitable(ended):
            await ended


def open_all(resources: Iterable[AnyResource]) -> None:
    """Return once these are open in this process."""
    for each in resources:
        if not each.is_open:
            each.open()


def open_shared() -> None:
    """Open what children are to share with this process, before they are forked."""
    open_all(sorted((each for each in _known if each.shared), key=lambda each: each.name))


def close_all() -> None:
    """Close what this process has opened, the last first; what fails is logged. Again: nothing happens."""
    for each in reversed(_opened[:]):
        try:
            each.close()
        except Exception:
            logger.exception("resource_not_closed name=%s", each.name)


def warm_names(word: int) -> list[str]:
    """Return the names of the resources that a word of the page says are open."""
    return sorted(each.name for each in _known if word & each.bit)


def check(step: str, given: object) -> None:
    """Return if these are resources; raises InvalidArguments for anything else."""
    for each in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(each, AnyResource):
            reason = "it takes a list of what @app.resource has made, such as resources=[model]"
            raise InvalidArguments(step=step, parameter="resources", value=each, reason=reason)


def _tell() -> None:
    word = 0
    for each in _opened:
        word |= each.bit
    claims.note_warm(word)


def _forget() -> None:
    """Have a forked child begin without its parent's: a connection that two processes use belongs to neither."""
    _opened.clear()
    for each in _known:
        if not (each.shared and each.is_open and isinstance(each, Resource)):
            each._reset()


os.register_at_fork(after_in_child=_forget)
realloop.before_close(close_all)
atexit.register(close_all)
