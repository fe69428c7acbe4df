"""Who a run is, how it ended, and how a journaled failure becomes the error that an agent sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agentq.core.errors import AgentqError, StepFailed, from_wire
from agentq.core.journal import Ask, Entry, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the run is: its id, its agent's name and version, and what its start said.

    Attributes:
        wall: the time that its budget gives it, for people; None without a limit.
        wall_end_ms: server time at which that is over.
    """

    run_id: str
    agent: str
    version: str | None = None
    key: str | None = None
    tenant: str | None = None
    wall: str | None = None
    wall_end_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        kind: `restart` when the agent continued as new.
        value: what the agent returned, encoded; for a restart the encoded arguments.
        error: what it raised, or RunCancelled.
        carry: inputs of this log that the next one begins with.
    """

    kind: Literal["value", "error", "cancelled", "restart"]
    value: Any = None
    error: BaseException | None = None
    carry: tuple[Entry, ...] = ()


def error_of(result: Result, ask: Ask) -> AgentqError:
    """What a step, child run or local call raised, by its result."""
    if isinstance(result.value, dict) and "code" in result.value:
        return from_wire(result.value)
    reason = "Revoked" if result.status == "revoked" else "Unknown"
    return StepFailed(step=ask.name, step_id=ask.id, error_type=reason, message=str(result.value or result.status))
