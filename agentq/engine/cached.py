"""Steps whose answers are kept: under which name, and what is kept of one.

A key is never made of users' text itself. Where the answers lie, and who makes one while others wait, is the store's.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Set
from typing import TYPE_CHECKING, Any, Final

from celery.utils.log import get_logger

from agentq.core.codec import canonical, dumps
from agentq.engine.messages import HEDGED
from agentq.store.admissions import cache_wish

if TYPE_CHECKING:
    from agentq.engine.attempt import Attempt
    from agentq.engine.ending import Ending

logger = get_logger(__name__)

NOTHING: Final = object()
"""No answer of the function's own."""


def wish_of(attempt: Attempt, *, refresh: bool = False) -> dict[str, Any] | None:
    """Return what the attempt asks the store's cache for; None for a step that is not cached.

    ``refresh``: what is kept is of no use. A hedge does not wait for the step that it is to overtake.
    """
    if attempt.task.is_agent or attempt.task.agentq.cache is None:
        return None
    return cache_wish(attempt.task.name, _digest_of(attempt), refresh=refresh, alone=HEDGED in attempt.ours)


def answer_of(attempt: Ending, value: Any) -> dict[str, Any] | None:
    """Return what is kept of a step's success with this value; None for nothing.

    Only what its function has returned is kept, not what answered in its place. Of an answer that is too large, that it
    is, so that the next ones do not wait for each other.
    """
    span = attempt.task.agentq.cache
    if span is None or attempt.fresh is not value:
        return None
    text, limit = dumps(value), attempt.binding.limits.cache_bytes
    kept: dict[str, Any] = {"ms": max(int(span.total_seconds() * 1000), 1)}
    if len(text.encode()) > limit:
        logger.warning(
            "answer_not_cached step=%s bytes=%d limit=%d: it is too large (setting cache_limit)",
            attempt.task.name,
            len(text),
            limit,
        )
        return kept
    tokens = sum(each.tokens_in + each.tokens_out for each in attempt.spent)
    usd_micro = sum(int(each.usd * 1_000_000) for each in attempt.spent)
    return kept | {"v": text, "tokens": tokens, "usd_micro": usd_micro}


def _digest_of(attempt: Attempt) -> str:
    """Return what stands for name, version, tenant and arguments, by whichever way these were given."""
    task = attempt.task
    args, kwargs = attempt.arguments
    bound = inspect.signature(task.run).bind(*args, **kwargs)
    bound.apply_defaults()
    written = task.schema.encode(bound.args, bound.kwargs)
    told = [
        task.name,
        task.agentq.cache_version,
        (attempt.ours.get("cd") or {}).get("tenant"),
        [_ordered(value, given) for value, given in zip(written[0], bound.args, strict=True)],
        {name: _ordered(value, bound.kwargs[name]) for name, value in written[1].items()},
    ]
    return hashlib.sha256(canonical(told).encode()).hexdigest()[:32]


def _ordered(written: Any, given: Any) -> Any:
    """Return a set in an order that is the same in every process."""
    if isinstance(given, Set) and isinstance(written, list):
        return sorted(written, key=lambda each: json.dumps(each, sort_keys=True))
    return written
