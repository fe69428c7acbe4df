"""Canvas for flows without a loop, beside Celery's own ``chain``, ``group`` and ``chord``."""

from agentq.engine.internal import fan_out

__all__ = ["fan_out"]
