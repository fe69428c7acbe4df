"""How a command ends when something is wrong: the words on stderr and the exit code.

Owns the table from the error tree to exit codes. It imports the tree only when an error is to be told.
"""

from __future__ import annotations

import sys
import traceback

FAILED = 1
WRONG_USE = 2
UNREACHABLE = 3


class CommandRefused(Exception):
    """The command was used wrongly, or lacks something; the message says what to do."""


def exit_code_of(error: BaseException) -> int:
    """1 a run failed, 2 wrong use, 3 the server cannot be reached."""
    from agentq.core.errors import LetterNotFound, RunNotFound, Unavailable, UsageError

    if isinstance(error, CommandRefused | UsageError | RunNotFound | LetterNotFound):
        return WRONG_USE
    if isinstance(error, Unavailable | ConnectionError | TimeoutError) or _is_lost_connection(error):
        return UNREACHABLE
    return FAILED


def show_error(error: BaseException, *, debug: bool) -> None:
    """The error stands on stderr: its own words if it is ours, its type too if it is not."""
    from agentq.core.errors import AgentqError

    if debug:
        traceback.print_exception(error, file=sys.stderr)
        return
    if isinstance(error, AgentqError | CommandRefused):
        words = str(error)
    elif _is_lost_connection(error):
        words = f'The server cannot be reached: {error}. "agentq doctor" says what to do.'
    else:
        words = f"{type(error).__name__}: {error}. This is not expected; --debug shows the traceback."
    sys.stderr.write(f"agentq: {words}\n")


def _is_lost_connection(error: BaseException) -> bool:
    # Told by name: only the store may import redis and only the engine kombu, and both may let one through.
    names = {kind.__name__ for kind in type(error).__mro__}
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    lost = bool(names & {"ConnectionError", "TimeoutError", "OperationalError"})
    return lost and bool(modules & {"redis", "kombu", "amqp"})
