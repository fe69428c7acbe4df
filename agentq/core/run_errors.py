"""Errors of runs: this run, or this step of it, cannot go on.

Their place in the tree stands atop `core/errors.py`, which gives them to everybody else.
"""

from collections.abc import Mapping
from typing import Any

from agentq.core.error_base import RunError, Wire, ended, from_wire, shown


class RunNotFound(RunError):
    """No run of that id is kept."""

    code = "run_not_found"
    run_id: str

    def __init__(self, *, run_id: str) -> None:
        self._fill(run_id=run_id)

    def describe(self) -> str:
        return (
            f"Run {self.run_id} is not in the store: the id is wrong, it is of another server or prefix, "
            'or its retention is over. "agentq runs list" shows the runs.'
        )


class RunFailed(RunError):
    """The agent of the run raised. `error` is the wire form of what it raised, or words for a stranger."""

    code = "run_failed"
    run_id: str
    agent: str
    error: Wire | str

    def __init__(self, *, run_id: str, agent: str, error: Mapping[str, Any] | str) -> None:
        self._fill(run_id=run_id, agent=agent, error=error)

    def describe(self) -> str:
        words = self.error if isinstance(self.error, str) else str(from_wire(self.error))
        return f'Run {self.run_id} of agent "{self.agent}" failed: {words}'


class RunCancelled(RunError):
    """The run was cancelled before it ended."""

    code = "run_cancelled"
    run_id: str
    why: str | None

    def __init__(self, *, run_id: str, why: str | None = None) -> None:
        self._fill(run_id=run_id, why=why)

    def describe(self) -> str:
        return f"Run {self.run_id} was cancelled: {self.why or 'no reason given'}."


class ResultRefused(RunError):
    """A step's result did not pass its check. Tried again, the step may return a better one."""

    code = "result_refused"
    retryable = True
    step: str
    value: str | None
    reason: str

    def __init__(self, *, step: str, value: object, reason: str) -> None:
        self._fill(step=step, value=shown(value), reason=reason)

    def describe(self) -> str:
        return f'The result of step "{self.step}" was refused: {self.reason} (returned: {self.value}).'


class StepFailed(RunError):
    """A step raised `error_type` with `message`, and no attempt is left. `details`: what else is known."""

    code = "step_failed"
    step: str
    step_id: str
    error_type: str
    message: str
    details: Any

    def __init__(self, *, step: str, step_id: str, error_type: str, message: str, details: object = None) -> None:
        self._fill(step=step, step_id=step_id, error_type=error_type, message=message, details=details)

    def describe(self) -> str:
        return f'Step "{self.step}" ({self.step_id}) failed: {self.error_type}: {self.message}'


class StepTimeout(RunError):
    """An attempt of the step ran for longer than its limit and was stopped."""

    code = "step_timeout"
    retryable = True
    step: str
    step_id: str
    seconds: float

    def __init__(self, *, step: str, step_id: str, seconds: float) -> None:
        self._fill(step=step, step_id=step_id, seconds=seconds)

    def describe(self) -> str:
        return (
            f'Step "{self.step}" ({self.step_id}) was stopped at its limit of {self.seconds:g} s. '
            "Raise timeout=, or make the step shorter."
        )


class TurnTimeout(StepTimeout):
    """An agent has computed for longer than it may between two awaits, and was interrupted."""

    code = "turn_timeout"

    def describe(self) -> str:
        return (
            f'Agent "{self.step}" (run {self.step_id}) has computed for {self.seconds:g} s without an await, which is '
            "the limit (AGENTQ_TURN_LIMIT). Move the work into a step or run.local, or raise the limit."
        )


class StepCondemned(RunError):
    """The step was a dead letter, and a person dropped it. `reason` is why it was one."""

    code = "step_condemned"
    step: str
    step_id: str
    reason: str

    def __init__(self, *, step: str, step_id: str, reason: str) -> None:
        self._fill(step=step, step_id=step_id, reason=reason)

    def describe(self) -> str:
        return ended(f'Step "{self.step}" ({self.step_id}) was given up: {self.reason}')


class JoinFailed(RunError):
    """Fewer members of the join succeeded than it needs. `first` is the first failure, in its wire form."""

    code = "join_failed"
    join_id: str
    succeeded: int
    need: int
    size: int
    first: Wire | None

    def __init__(
        self, *, join_id: str, succeeded: int, need: int, size: int, first: Mapping[str, Any] | None = None
    ) -> None:
        self._fill(join_id=join_id, succeeded=succeeded, need=need, size=size, first=first)

    def describe(self) -> str:
        first = "" if self.first is None else f" The first failure: {from_wire(self.first)}"
        return f"Join {self.join_id}: {self.succeeded} of {self.size} succeeded, {self.need} needed.{first}"


class BudgetExceeded(RunError):
    """What the run would use is over a limit of its budget. Both numbers are text: no cent is lost."""

    code = "budget_exceeded"
    limit_name: str
    limit: str
    used: str
    account: str | None = None
    """Whose budget, where it is not the run's own: such as "tenant acme today"."""

    def __init__(self, *, limit_name: str, limit: object, used: object, account: str | None = None) -> None:
        self._fill(limit_name=limit_name, limit=str(limit), used=str(used), account=account)

    def describe(self) -> str:
        whose = f" of {self.account}" if self.account is not None else ""
        return (
            f"The budget's {self.limit_name}{whose} is reached: {self.used} used or reserved of {self.limit}. "
            f"Raise Budget({self.limit_name}=...), or do less."
        )


class ReplayMismatch(RunError):
    """The agent's code asks for something else than the journal holds at this place; nothing was sent."""

    code = "replay_mismatch"
    run_id: str
    recorded: str
    asked: str

    def __init__(self, *, run_id: str, recorded: str, asked: str) -> None:
        self._fill(run_id=run_id, recorded=recorded, asked=asked)

    def describe(self) -> str:
        return (
            f"Run {self.run_id} cannot be replayed: its journal holds {self.recorded}, but the agent asks "
            f"for {self.asked}. The agent's code has changed, or depends on something outside the run: run "
            "the old version, give the new one another version=, or move the call outside into run.local or "
            "a step."
        )


class LetterNotFound(RunError):
    """There is no dead letter under the id, or no more."""

    code = "letter_not_found"
    letter_id: str

    def __init__(self, *, letter_id: str) -> None:
        self._fill(letter_id=letter_id)

    def describe(self) -> str:
        return (
            f"There is no dead letter {self.letter_id}: the id is wrong, or it was replayed or dropped. "
            '"agentq dead list" shows what there is.'
        )


class JournalUnreadable(RunError):
    """An entry of a journal is broken, or written by a newer version. `entry` is its text, cut."""

    code = "journal_unreadable"
    entry: str
    reason: str

    def __init__(self, *, entry: str, reason: str) -> None:
        self._fill(entry=entry, reason=reason)

    def describe(self) -> str:
        return (
            f"A journal entry cannot be read: {self.reason}. The entry: {self.entry}. "
            "Use the version of agentq that wrote it."
        )
