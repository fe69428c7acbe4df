"""Middleware around a step: admission (breakers, limits, budgets), retry, fallback.

Assembly installs them; the engine does not know them.
"""

from agentq.guards.admission import AdmissionGuard
from agentq.guards.fallback import FallbackGuard
from agentq.guards.retry import RetryGuard

__all__ = ["AdmissionGuard", "FallbackGuard", "RetryGuard"]
