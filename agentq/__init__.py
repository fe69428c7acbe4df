"""Durable AI agents on the Celery that you already run.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentq.app import AgentQ as AgentQ
    from agentq.app import install as install
    from agentq.core.errors import AgentqError as AgentqError
    from agentq.core.errors import GetTimeout as GetTimeout
    from agentq.core.errors import InvalidArguments as InvalidArguments
    from agentq.core.errors import KeyReused as KeyReused
    from agentq.core.errors import RunCancelled as RunCancelled
    from agentq.core.errors import RunFailed as RunFailed
    from agentq.core.errors import StepFailed as StepFailed
    from agentq.core.errors import UsageError as UsageError
    from agentq.core.guards import Breaker as Breaker
    from agentq.core.guards import Budget as Budget
    from agentq.core.guards import Limit as Limit
    from agentq.core.guards import Rate as Rate
    from agentq.core.models import Event as Event
    from agentq.core.models import Needs as Needs
    from agentq.core.models import Usage as Usage
    from agentq.core.retry import Retry as Retry
    from agentq.core.zombies import Zombies as Zombies
    from agentq.engine.agent import Agent as Agent
    from agentq.engine.declare import agent as agent
    from agentq.engine.declare import step as step
    from agentq.engine.handle import Handle as Handle
    from agentq.engine.task import Step as Step
    from agentq.engine.this_step import this_step as this_step
    from agentq.runtime.run import Run as Run

__version__ = "0.1.0"

_HOMES = {
    "AgentQ": "agentq.app",
    "install": "agentq.app",
    "AgentqError": "agentq.core.errors",
    "GetTimeout": "agentq.core.errors",
    "InvalidArguments": "agentq.core.errors",
    "KeyReused": "agentq.core.errors",
    "RunCancelled": "agentq.core.errors",
    "RunFailed": "agentq.core.errors",
    "StepFailed": "agentq.core.errors",
    "UsageError": "agentq.core.errors",
    "Breaker": "agentq.core.guards",
    "Budget": "agentq.core.guards",
    "Limit": "agentq.core.guards",
    "Rate": "agentq.core.guards",
    "Event": "agentq.core.models",
    "Needs": "agentq.core.models",
    "Retry": "agentq.core.retry",
    "Usage": "agentq.core.models",
    "Zombies": "agentq.core.zombies",
    "Agent": "agentq.engine.agent",
    "Handle": "agentq.engine.handle",
    "Step": "agentq.engine.task",
    "agent": "agentq.engine.declare",
    "step": "agentq.engine.declare",
    "this_step": "agentq.engine.this_step",
    "Run": "agentq.runtime.run",
}

__all__ = [
    "Agent",
    "AgentQ",
    "AgentqError",
    "Breaker",
    "Budget",
    "Event",
    "GetTimeout",
    "Handle",
    "InvalidArguments",
    "KeyReused",
    "Limit",
    "Needs",
    "Rate",
    "Retry",
    "Run",
    "RunCancelled",
    "RunFailed",
    "Step",
    "StepFailed",
    "Usage",
    "UsageError",
    "agent",
    "install",
    "step",
    "this_step",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
