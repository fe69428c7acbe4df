"""Tells a worker's own order to end from a step that calls ``sys.exit``: both are SystemExit."""

from __future__ import annotations

from agentq.core.errors import StepFailed

_FIRST_SIGNAL_STATUS = -192
"""A child of Celery's prefork pool ends on a signal by ``sys.exit(-(256 - signum))``; there are 64 signals."""


def is_ordered(error: BaseException) -> bool:
    """Whether the worker ends by it: a signal that a child was sent, or Celery's own shutdown.

    Anything else was raised by the code of a step or an agent. Were it to end the process, the next worker would
    take the same step, and end as well.
    """
    if type(error) is KeyboardInterrupt:
        # Celery handles SIGINT itself, in the worker and in its children.
        return False
    if type(error) is not SystemExit:
        return True
    return isinstance(error.code, int) and -256 < error.code <= _FIRST_SIGNAL_STATUS


def failure_by(error: BaseException, *, step: str, step_id: str) -> StepFailed:
    """Return the failure that a SystemExit or KeyboardInterrupt of user code is."""
    words = f"sys.exit({error.code!r})" if isinstance(error, SystemExit) else str(error)
    return StepFailed(step=step, step_id=step_id, error_type=type(error).__name__, message=words)
