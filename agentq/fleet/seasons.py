"""The hours of the pools that a controller leads: what they have is kept, and what the weeks before had is looked up.

Two rare calls of the store: one every few minutes for all pools, and one for each pool when an hour begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from agentq.core.seasons import VERDICT_DAYS, Forecast, Record, Verdict, decide_forecast, hour_of
from agentq.fleet.control import PoolControl
from agentq.store import Store
from agentq.store.seasons import HourSums

WRITE_S: Final = 300.0
"""A controller that is killed takes so much of an hour with it."""

MISSED_MS: Final = 30_000
"""Looks that lie further apart have missed what came between."""

TOLD_MS: Final = 30_000
"""Of an hour that is much: a forecast is not made anew each second."""

_DAY_MS: Final = 86_400_000


@dataclass
class PoolSeason:
    """One pool's hours under one fence."""

    fence: int
    record: Record = field(default_factory=dict)
    verdict: Verdict | None = None
    hour: tuple[int, int] | None = None
    """Week, and hour of the week, that is being counted."""
    arrivals: int = 0
    busy_s: float = 0.0
    seen_ms: int = 0
    at_ms: int = 0
    """Of the last look."""
    is_written: bool = True
    told: tuple[int, Forecast | None] = (-1, None)
    """The last forecast, and for which half minute it was."""

    def forecast(self, at_ms: float) -> Forecast | None:
        """What the weeks before had at that moment, the same for half a minute."""
        moment = int(at_ms // TOLD_MS)
        if self.told[0] != moment:
            self.told = (moment, decide_forecast(self.record, at_ms / 1000))
        return self.told[1]

    def see(self, now_ms: int, control: PoolControl) -> None:
        """Count what has come since the last look; a gap of an outage was not seen."""
        passed = now_ms - self.at_ms if self.at_ms else 0
        self.at_ms = now_ms
        if 0 < passed < MISSED_MS:
            self.seen_ms += passed
            self.arrivals += control.sensor.arrived
            self.busy_s += control.sensor.arrived * control.sensor.service.value
            # An hour in which nothing comes is written as well: it is as much a habit.
            self.is_written = False

    def sums(self, pool: str) -> HourSums | None:
        """What is to be written of the hour that is counted."""
        if self.hour is None or self.is_written:
            return None
        return HourSums(pool, self.fence, *self.hour, self.arrivals, int(self.busy_s * 1000), self.seen_ms)


class Seasons:
    """All pools that a controller leads."""

    def __init__(self, store: Store, controller: str) -> None:
        self._store = store
        self._controller = controller
        self._pools: dict[str, PoolSeason] = {}
        self._write_at = 0.0

    def tend(self, now_ms: int, led: Sequence[PoolControl], *, keeps: bool) -> None:
        """Take in what the pools had since the last look; `keeps`: and write it when its time has come."""
        names = {control.spec.name for control in led}
        for name in [name for name in self._pools if name not in names]:
            del self._pools[name]
        begun = [control for control in led if self._begins(control, hour_of(now_ms / 1000))]
        over = [
            sums for control in begun if (sums := self._pools[control.spec.name].sums(control.spec.name)) is not None
        ]
        for name, (record, verdict) in self._store.seasons([control.spec.name for control in begun]).items():
            season = self._pools[name]
            self._pools[name] = PoolSeason(season.fence, record, verdict, hour_of(now_ms / 1000), at_ms=season.at_ms)
        for control in led:
            self._pools[control.spec.name].see(now_ms, control)
        if not keeps:
            return
        self._store.keep_hours(self._controller, over)
        if now_ms / 1000 >= self._write_at or now_ms / 1000 < self._write_at - 2 * WRITE_S:
            self._write_at = now_ms / 1000 + WRITE_S
            waiting = [(name, season.sums(name)) for name, season in self._pools.items()]
            self._store.keep_hours(self._controller, [sums for _, sums in waiting if sums is not None])
            for name, _ in waiting:
                self._pools[name].is_written = True

    def forecast(self, control: PoolControl, at_ms: float) -> tuple[Forecast | None, bool]:
        """What the weeks before had at that moment, and whether it counts."""
        season = self._pools.get(control.spec.name)
        if season is None:
            return None, False
        verdict = season.verdict
        is_better = verdict is not None and verdict.is_better and at_ms - verdict.at_ms < VERDICT_DAYS * _DAY_MS
        return season.forecast(at_ms), is_better and control.spec.forecast == "count"

    def _begins(self, control: PoolControl, hour: tuple[int, int]) -> bool:
        """Whether the pool is new here, or another hour has begun."""
        season = self._pools.get(control.spec.name)
        if season is None or season.fence != control.fence:
            season = self._pools[control.spec.name] = PoolSeason(control.fence)
        return season.hour != hour
