"""Whether the simulator tells the truth: `python -m benchmarks.truth [SECONDS]`.

Three loads of sleeping steps, each run twice: by real workers that a controller starts and drains on this machine, and
in the simulator, with the start-up time that was measured. Prints cost and waits of both side by side.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from math import pi, sin
from pathlib import Path
from typing import Any

from agentq.core.pools import PoolSpec
from agentq.fleet.control import objective_of
from agentq.fleet.controller import ROUND_S, Controller, Terms
from agentq.fleet.drivers import Setup
from agentq.fleet.drivers.local import Local
from agentq.fleet.simulator.policies import Law
from agentq.fleet.simulator.traces import Arrival, Trace
from agentq.fleet.simulator.world import Pool
from agentq.store import Store
from agentq.store.embedded import ensure_server

OBJECTIVE_S = 8.0
SPEC = PoolSpec(
    name="naps",
    kind="solo",
    min=0,
    max=6,
    slo_wait=timedelta(seconds=OBJECTIVE_S),
    idle_to_zero=timedelta(seconds=20),
    best_effort=True,
)


def traces(seconds: float) -> list[Trace]:
    """A swell, crowds with calm between, and steps that ask for steps."""
    chance = random.Random(7)

    def service() -> float:
        return chance.uniform(0.5, 1.5)

    swell, at = [], 0.0
    while at < seconds:
        at += chance.expovariate(max(0.1, 1.5 * sin(pi * at / seconds)))
        swell.append(Arrival(at, service()))
    crowds = [
        Arrival(start + chance.uniform(0, 2), service())
        for start in range(0, int(seconds), max(int(seconds / 3), 1))
        for _ in range(25)
    ]
    cascade = [
        Arrival(start, service(), tuple(Arrival(0.0, service()) for _ in range(5)))
        for start in (chance.uniform(0, seconds) for _ in range(int(seconds / 12)))
    ]
    named = {"swell": swell, "crowds": crowds, "cascade": cascade}
    return [Trace(name, seconds, tuple(sorted(each, key=lambda one: one.at))) for name, each in named.items()]


class Watched(Local):
    """The driver, with an account of what its workers cost, from their order to their end."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.worker_s = 0.0

    def _forget(self, child: Any) -> None:
        if child.key in self._children:
            self.worker_s += child.age_s
        super()._forget(child)


def real(trace: Trace, folder: Path, store_url: str) -> dict[str, float]:
    """The trace by real workers."""
    os.environ.update(AGENTQ_REDIS_URL=store_url, AGENTQ_ARCHIVE="off", NAPS=str(folder / f"{trace.name}.notes"))
    from benchmarks.apps import naps

    store = Store(store_url)
    argv = [sys.executable, "-m", "celery", "--quiet", "-A", "benchmarks.apps.naps", "worker", "-l", "ERROR"]
    argv += ["-P", "solo", "-Q", "naps", "--without-gossip", "--without-mingle"]

    def command(pool: str, instance: str) -> tuple[list[str], Mapping[str, str]]:
        return [*argv, "-n", f"{instance.rpartition('/')[2]}@%h"], {**os.environ, "AGENTQ_INSTANCE": instance}

    driver = Watched(Setup(lambda: {"naps": SPEC}, store, command, folder / trace.name))
    controller = Controller(store, driver, Terms(pools=lambda: {"naps": SPEC}))
    over = threading.Event()
    sender = threading.Thread(target=_send, args=(trace, naps, over))
    controller.round()
    sender.start()
    while not (over.is_set() and len(_waits(folder, trace)) >= trace.steps):
        began = time.monotonic()
        controller.round()
        time.sleep(max(0.0, ROUND_S - (time.monotonic() - began)))
    startup = controller.controls["naps"].startup_s
    while driver._children:
        controller.round()
        time.sleep(ROUND_S)
    controller.close(keep=False)
    waits = sorted(_waits(folder, trace))
    return _told(driver.worker_s / trace.work, waits) | {"startup_s": round(startup, 1)}


def simulated(trace: Trace, startup_s: float) -> dict[str, float]:
    """The trace in the simulator, by the same law."""
    pool = Pool(trace, seed=1, objective_s=OBJECTIVE_S, startup_s=startup_s)
    outcome = pool.run(Law(objective_of(SPEC, 1)))
    return _told(outcome.worker_s / trace.work, sorted(outcome.waits))


def main(seconds: float = 120.0) -> None:
    """Run all and print."""
    with tempfile.TemporaryDirectory() as folder:
        address = ensure_server(Path(folder) / "server")
        try:
            for trace in traces(seconds):
                found = real(trace, Path(folder), address.celery_url)
                told = simulated(trace, found["startup_s"])
                print(
                    json.dumps({"trace": trace.name, "steps": trace.steps, "real": found, "simulated": told}),
                    flush=True,
                )
                Store(address.url).client.flushall()
        finally:
            Store(address.url).client.shutdown(nosave=True)


def _send(trace: Trace, naps: Any, over: threading.Event) -> None:
    began = time.time()
    for arrival in trace.arrivals:
        time.sleep(max(0.0, began + arrival.at - time.time()))
        naps.nap.delay(time.time(), arrival.service, [child.service for child in arrival.children])
    over.set()


def _waits(folder: Path, trace: Trace) -> list[float]:
    path = folder / f"{trace.name}.notes"
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def _told(cost: float, waits: list[float]) -> dict[str, float]:
    return {
        "cost": round(cost, 2),
        "in_time": round(sum(wait <= OBJECTIVE_S for wait in waits) / max(len(waits), 1), 3),
        "p50_s": round(waits[len(waits) // 2], 1),
        "p95_s": round(waits[int(len(waits) * 0.95)], 1),
    }


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
