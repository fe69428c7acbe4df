"""Canvas for flows without a loop, beside Celery's own ``chain``, ``group`` and ``chord``."""

from __future__ import annotations

from typing import Any

from celery.canvas import Signature

from agentq.engine.internal import FAN_OUT_TASK

__all__ = ["fan_out"]


def fan_out(step: Signature) -> Signature:
    """Return a signature that maps ``step`` over the list that the step before it returns.

    Its result is the list of results, in the order of the items; an empty list gives an empty list. For the middle of
    a chain: ``chain(plan.s(q), fan_out(read.s()), compose.s())``. Each item goes before the arguments that ``step``
    has already. If an item's step fails, the chain fails when all have ended.
    """
    return Signature(FAN_OUT_TASK, args=(dict(step),), app=_app_of(step))


def _app_of(step: Signature) -> Any:
    return getattr(step, "_app", None)
