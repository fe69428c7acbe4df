"""What is said loudly, whoever finds it: the worker, its keeper, a command."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def report_condemned(number: int = 1) -> None:
    """Say that something went to the dead letters: nobody goes on with it until a person looks."""
    logger.critical("condemned number=%d: held among the dead letters until a person decides: agentq dead list", number)
