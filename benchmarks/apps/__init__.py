"""The same tasks for each contender, in modules that worker processes load."""

from __future__ import annotations

import os

ADDRESS = "BENCHMARK_URL"
"""Environment variable that names the broker to a worker process, in Celery's spelling."""

TUNED = "BENCHMARK_TUNED"
"""Environment variable: set, stock Celery acknowledges late and prefetches one message."""


def address() -> str:
    """Return the broker's URL; raises KeyError outside a benchmark's worker."""
    return os.environ[ADDRESS]
