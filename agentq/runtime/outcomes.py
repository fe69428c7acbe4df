"""How a journaled outcome becomes the error that an agent sees."""

from __future__ import annotations

from agentq.core.errors import AgentqError, StepFailed, from_wire
from agentq.core.journal import Ask, Result


def error_of(result: Result, ask: Ask) -> AgentqError:
    """What a step, child run or local call raised, by its result."""
    if isinstance(result.value, dict) and "code" in result.value:
        return from_wire(result.value)
    reason = "Revoked" if result.status == "revoked" else "Unknown"
    return StepFailed(step=ask.name, step_id=ask.id, error_type=reason, message=str(result.value or result.status))
