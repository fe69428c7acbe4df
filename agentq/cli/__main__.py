"""`python -m agentq.cli` is the command `agentq`."""

from agentq.cli import main

main()
