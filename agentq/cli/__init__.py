"""The command line `agentq`.

Owns what is said to a person at a terminal and which exit code ends a command. It holds no rules: it
asks the application (`agentq.app`) and shows what comes back through `agentq.console`. Nothing is
imported here before a command is known, so that `agentq --help` answers at once.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The command given in `sys.argv` has run, and the process ends with its exit code."""
    from agentq.cli.root import execute

    sys.exit(execute(sys.argv[1:]))
