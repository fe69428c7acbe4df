"""Which versions of kombu the fused transport was tried with: it takes the place of parts that are not kombu's API."""

from __future__ import annotations

import logging
from functools import cache
from typing import Final

import kombu

logger = logging.getLogger(__name__)

TRIED_KOMBU: Final = ((5, 6), (5, 7))
"""(major, minor) of the versions that were tried: the latest by all tests, the oldest by a smoke (tests/older)."""


@cache
def is_kombu_tried(version: str = kombu.__version__) -> bool:
    """Tell whether the fused transport may be trusted with this kombu; says so in the log, once, when it may not."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers in TRIED_KOMBU:
        return True
    known = ", ".join(f"{major}.{minor}" for major, minor in TRIED_KOMBU)
    logger.warning(
        "kombu_unknown version=%s: agentq's own transport was tried with kombu %s. It uses kombu's instead "
        "(AGENTQ_TRANSPORT=stock): the same promises, at more round trips. AGENTQ_TRANSPORT=fused insists.",
        version,
        known,
    )
    return False
