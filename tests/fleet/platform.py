"""A platform without processes, whose workers are lines in the store: for controllers, not for drivers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentq.core.errors import DriverFailed, Superseded
from agentq.fleet.drivers import Instance, Observed
from tests.store.bench import LEASE_MS, Bench


@dataclass
class Platform:
    """Has instances by pool; `chooses` as drivers have it."""

    bench: Bench
    chooses: bool = True
    acts: bool = True
    name: str = "platform"
    instances: dict[str, list[str]] = field(default_factory=dict)
    fences: dict[str, int] = field(default_factory=dict)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    broken: str | None = None
    lists: bool = True
    _made: int = 0

    def observe(self, pools: Sequence[str]) -> Mapping[str, Observed]:
        """What there is."""
        if self.broken is not None:
            raise DriverFailed(driver=self.name, pool=pools[0], reason=self.broken)
        return {
            pool: Observed(
                wanted=len(self.instances.get(pool, ())),
                instances=tuple(Instance(name, 1.0) for name in self.instances.get(pool, ())) if self.lists else None,
            )
            for pool in pools
        }

    def apply(self, pool: str, instances: int, *, fence: int) -> None:
        """So many are there, none of them up."""
        self._check(pool, fence)
        self.calls.append(("apply", pool, instances))
        there = self.instances.setdefault(pool, [])
        while len(there) < instances:
            self._made += 1
            there.append(f"{pool}-{self._made}")
        for name in there[instances:]:
            self.end(pool, name)

    def drain(self, pool: str, names: Sequence[str], *, fence: int) -> None:
        """These are gone."""
        self._check(pool, fence)
        self.calls.append(("drain", pool, tuple(names)))
        for name in names:
            self.end(pool, name)

    def close(self, *, keep: bool) -> None:
        """Remember it."""
        self.calls.append(("close", keep))

    def _check(self, pool: str, fence: int) -> None:
        if self.broken is not None:
            raise DriverFailed(driver=self.name, pool=pool, reason=self.broken)
        if fence < self.fences.get(pool, 0):
            raise Superseded(pool=pool, fence=fence, newest=self.fences[pool])
        self.fences[pool] = fence

    # -- what workers would do

    def come_up(self, pool: str = "q") -> None:
        """Enroll a worker for each instance that has none."""
        up = {card.label for card in self.bench.store.workers()}
        for name in self.instances.get(pool, ()):
            if name not in up:
                assert self.bench.store.enroll(
                    name, label=name, queues=(pool,), concurrency=1, lease_ms=LEASE_MS, details={"instance": name}
                )

    def hear(self) -> None:
        """Every worker hears whether it is drained."""
        drained = self.bench.store.drains()
        for card in self.bench.store.workers():
            report = {"why": "drained"} if f"worker|{card.id}" in drained else {}
            self.bench.client.hset(self.bench.keys.worker(card.id), "report", json.dumps(report))

    def end(self, pool: str, name: str) -> None:
        """An instance is gone, and its worker."""
        if name in self.instances.get(pool, ()):
            self.instances[pool].remove(name)
        self.bench.store.leave(name)
