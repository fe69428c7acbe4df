"""Runs `agentq` commands in forks of a process that has loaded everything: a second less for each command.

Reads requests from stdin, one JSON object per line with argv, env, cwd and the paths for stdout and stderr, and
answers each with the exit code on a line of its own.
"""

from __future__ import annotations

import json
import os
import sys
import traceback

import agentq.app
import agentq.console.report
import agentq.console.timeline
import agentq.runtime.run  # noqa: F401
from agentq.cli.root import execute


def run(request: dict[str, object]) -> None:
    """The child's part: become the command."""
    code = 70
    try:
        for number, name in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(str(name), flags), number)
        os.environ.clear()
        os.environ.update(request["env"])  # type: ignore[call-overload]
        os.chdir(str(request["cwd"]))
        code = execute(request["argv"])  # type: ignore[arg-type]
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Answer requests until stdin ends."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
