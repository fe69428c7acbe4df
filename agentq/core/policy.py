"""When a failed step is tried again, and when a dead process is started again. Chance is passed in."""

from datetime import timedelta
from typing import Final

from agentq.core.errors import AgentqError, OwnershipLost
from agentq.core.models import Retry

_RESTART_FIRST: Final = 0.5
"""Seconds: long enough that a process that dies at once does not fill the log, short enough for a person."""

_RESTART_MOST: Final = 30.0
"""Seconds: a broken configuration is mended by a person, who does not want to wait longer for the effect."""


def decide_retry(retry: Retry, attempt: int, error: BaseException, random01: float) -> timedelta | None:
    """The pause before the next attempt, or None when this failure is final.

    `attempt` is the number of the one that failed, from 1. `random01` lies in [0, 1) and moves the pause by
    up to `retry.jitter` of it either way, never above `retry.max_wait`. An error of agentq's own is tried
    again only if it is `retryable`: a wrong argument stays wrong. Who has lost the step tries nothing.
    """
    if attempt < 1:
        raise ValueError(f"attempt is {attempt}, but attempts count from 1")
    if attempt >= retry.attempts or not isinstance(error, retry.on) or isinstance(error, OwnershipLost):
        return None
    if isinstance(error, AgentqError) and not error.retryable:
        return None
    return decide_wait(retry, attempt, random01)


def decide_wait(retry: Retry, attempt: int, random01: float) -> timedelta:
    """The pause after this attempt: exponential, cut at `max_wait`, with proportional jitter.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ tells why the jitter; a share of
    the pause, rather than all of it, keeps the first pause near the `wait` that was asked for.
    """
    most = retry.max_wait.total_seconds()
    try:
        pause = min(retry.wait.total_seconds() * retry.factor ** (attempt - 1), most)
    except OverflowError:
        pause = most
    moved = pause * (1 + retry.jitter * (2 * random01 - 1))
    return timedelta(seconds=min(moved, most))


def decide_restart_wait(deaths: int) -> timedelta:
    """The pause before a supervisor starts a dead process again; `deaths` counts those in a row, from 1."""
    # 2 ** 6 is past the cut already; a greater exponent would only overflow.
    doubled = min(max(deaths - 1, 0), 6)
    return timedelta(seconds=min(_RESTART_FIRST * 2**doubled, _RESTART_MOST))
