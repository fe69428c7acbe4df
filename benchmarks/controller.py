"""What a controller costs by itself: `python -m benchmarks.controller [POOLS] [WORKERS] [SECONDS]`.

A server of its own, workers that are only registered, a load that changes in every pool all the time, and a driver that
starts nothing. Prints the controller's share of a core, its commands a second, and the server's share.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentq.core.pools import PoolSpec
from agentq.fleet.controller import ROUND_S, Controller, Terms
from agentq.fleet.drivers import Instance, Observed
from agentq.store import Store
from agentq.store.embedded import ensure_server
from agentq.store.refs import Offer

LEASE_MS = 3_600_000


class Still:
    """A platform that has what it has."""

    name, chooses, acts = "still", True, True

    def __init__(self, instances: Mapping[str, Sequence[str]]) -> None:
        self._observed = {
            pool: Observed(len(names), tuple(Instance(name, 100.0) for name in names))
            for pool, names in instances.items()
        }

    def observe(self, pools: Sequence[str]) -> Mapping[str, Observed]:
        """What it has."""
        return {pool: self._observed[pool] for pool in pools}

    def apply(self, pool: str, instances: int, *, fence: int) -> None:
        """Do nothing."""

    def drain(self, pool: str, names: Sequence[str], *, fence: int) -> None:
        """Do nothing."""

    def close(self, *, keep: bool) -> None:
        """Do nothing."""


class Counting(Store):
    """Counts what it sends."""

    sent = 0

    def guarded(self, call: Any) -> Any:
        """Call, and count it."""
        Counting.sent += 1
        return super().guarded(call)


def main(pools: int = 50, workers: int = 1000, seconds: int = 60) -> None:
    """Measure and print."""
    chance = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        store = Counting(ensure_server(Path(folder)).url)
        try:
            names = [f"pool{number}" for number in range(pools)]
            instances: dict[str, list[str]] = {name: [] for name in names}
            for number in range(workers):
                pool, label = names[number % pools], f"w{number}"
                details = {"instance": label, "pid": number, "host": "h", "agents": {}}
                store.enroll(label, label=label, queues=(pool,), concurrency=4, lease_ms=LEASE_MS, details=details)
                instances[pool].append(label)
            specs = {name: PoolSpec(name=name, min=1, max=100) for name in names}
            controller = Controller(store, Still(instances), Terms(pools=lambda: specs))
            print(json.dumps(_measure(controller, store, names, seconds, chance)))
        finally:
            store.client.shutdown(nosave=True)


def _measure(
    controller: Controller, store: Counting, names: Sequence[str], seconds: int, chance: random.Random
) -> dict[str, float]:
    for _ in range(3):
        controller.round()
    spent = served = commands = rounds = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name in names:
            # The load's own work is not the controller's.
            store.offer([_step(name) for _ in range(chance.randrange(3))])
            sums = "|".join(map(str, (_attempts(rounds), _attempts(rounds) * 900, _attempts(rounds) * 900**2, 0, 0, 9)))
            store.client.hset(store.keys.of("pace", name), "read", sums)
        began, before, server = time.process_time(), Counting.sent, _server_s(store)
        started = time.monotonic()
        controller.round()
        spent += time.process_time() - began
        commands += Counting.sent - before
        served += _server_s(store) - server
        rounds += 1
        time.sleep(max(0.0, ROUND_S - (time.monotonic() - started)))
    lasted = rounds * ROUND_S
    return {
        "core_share": round(spent / lasted, 4),
        "commands_per_second": round(commands / lasted, 2),
        "server_share": round(served / lasted, 4),
        "rounds": rounds,
    }


def _attempts(rounds: float) -> int:
    return 100 + int(rounds) * 7


def _server_s(store: Store) -> float:
    found = store.client.info("cpu")
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


def _step(queue: str) -> Offer:
    identity = uuid.uuid4().hex
    return Offer(root=identity, id=identity, queue=queue, lane=6, name="read", message='{"body": ""}')


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
