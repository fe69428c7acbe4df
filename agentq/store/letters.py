"""Dead letters: messages that nobody takes until a person decides, and what is said of them."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def report_condemned(number: int = 1) -> None:
    """Say loudly that something went to the dead letters: nobody goes on with it until a person looks."""
    logger.critical("condemned number=%d: held among the dead letters until a person decides: agentq dead list", number)
