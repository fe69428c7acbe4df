"""How a coroutine is left for good: its `finally` blocks run, and wait for nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import CoroutineType
from typing import Any, Final

logger = logging.getLogger(__name__)

_MOST_STEPS: Final = 1000
"""Each step leaves one coroutine of the nest, or one `await` in a `finally` block; more is an agent that stays."""


def leave(task: asyncio.Task[Any]) -> None:
    """Every coroutine that the task was in has been left, innermost first; what they raise then is only logged.

    Closing the outermost would do for a nest without an `await` in a `finally` block. With one, CPython throws the
    complaint about it into the coroutines around, where an agent would take it for an error of its own.
    """
    outermost = task.get_coro()
    if not isinstance(outermost, CoroutineType):
        return
    for _ in range(_MOST_STEPS):
        if outermost.cr_frame is None:
            return
        _close(_innermost(outermost), task.get_name())
    logger.warning("%s does not end: it waits again and again in its finally blocks", task.get_name())


def _innermost(coroutine: CoroutineType[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    inner = coroutine.cr_await
    while isinstance(inner, CoroutineType) and inner.cr_frame is not None:
        coroutine, inner = inner, inner.cr_await
    return coroutine


def _close(coroutine: Coroutine[Any, Any, Any], name: str) -> None:
    try:
        coroutine.close()
    except Exception as error:
        if "ignored GeneratorExit" not in str(error):
            logger.debug("%s failed while it was left", name, exc_info=True)
