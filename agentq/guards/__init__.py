"""Middleware around a step: retry, breaker, fallback. Assembly installs them; the engine does not know them."""

from agentq.guards.breaker import BreakerGuard
from agentq.guards.fallback import FallbackGuard
from agentq.guards.retry import RetryGuard

__all__ = ["BreakerGuard", "FallbackGuard", "RetryGuard"]
