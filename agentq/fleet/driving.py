"""A driver as the controller calls it: no silence of a platform, and no mistake in somebody's driver, stops it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import TypeVar

from agentq.core.errors import DriverFailed, Superseded
from agentq.core.policy import decide_restart_wait
from agentq.fleet.drivers import Driver, Observed

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Driving:
    """Every call of the driver ends, or raises DriverFailed or Superseded.

    A look that fails is repeated ever more seldom: a platform whose rate limit is used up would else never recover.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._failures = 0
        self._failed: DriverFailed | None = None
        self._look_at = float("-inf")

    def observe(self, pools: Sequence[str]) -> Mapping[str, Observed]:
        """What there is; of a pool left out nothing is known. Raises the last failure until its pause is over."""
        if self._failed is not None and monotonic() < self._look_at:
            raise self._failed
        try:
            found = self._call(pools[0], lambda: self.driver.observe(pools))
            if not isinstance(found, Mapping) or not all(isinstance(each, Observed) for each in found.values()):
                raise self._failure(pools[0], "observe() has to return an Observed for each pool, by the pool's name")
        except DriverFailed as error:
            self._failures += 1
            self._failed = error
            self._look_at = monotonic() + decide_restart_wait(self._failures).total_seconds()
            raise
        self._failures, self._failed = 0, None
        return found

    def apply(self, pool: str, instances: int, *, fence: int) -> None:
        """As the driver's own."""
        self._call(pool, lambda: self.driver.apply(pool, instances, fence=fence))

    def drain(self, pool: str, names: Sequence[str], *, fence: int) -> None:
        """As the driver's own."""
        self._call(pool, lambda: self.driver.drain(pool, names, fence=fence))

    def _call(self, pool: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except (DriverFailed, Superseded):
            raise
        except Exception as error:
            logger.exception("driver_broken pool=%s driver=%s", pool, self.driver.name)
            raise self._failure(pool, _place_of(error)) from error

    def _failure(self, pool: str, reason: str) -> DriverFailed:
        return DriverFailed(driver=self.driver.name, pool=pool, reason=reason)


def _place_of(error: Exception) -> str:
    # Not its message: what a client's library says may hold a key, and decisions are kept and served.
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"it raised {type(error).__name__} at {Path(last.filename).name}:{last.lineno}; the log has the rest"
