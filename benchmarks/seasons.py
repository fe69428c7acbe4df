"""What the weeks before are worth: `python -m benchmarks.seasons [WEEKS [LOAD…]]`.

Three loads of several weeks: offices that begin at nine, a smooth day and night, and days that are like no other. Each
goes through the backtest that `agentq autoscale backtest` makes, and its verdict is printed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from math import cos, exp, pi
from random import Random

from agentq.core.scaling import Objective
from agentq.fleet.backtest import backtest
from agentq.fleet.simulator.traces import service

MONDAY_S = 4 * 86_400.0 + 2900 * 7 * 86_400.0
OBJECTIVE = Objective(most=200, slo_wait=timedelta(seconds=5), best_effort=True)
STARTUP_S = 60.0
"""A machine that has to be fetched first: where starts are quick there is little to foresee."""


MOST = 1.5
"""Steps a second, of every load."""


def offices(random: Random) -> Callable[[float], float]:
    """On working days from nine to five twenty times what the night has, at once; each day has its own size."""
    sizes = [random.uniform(0.8, 1.2) for _ in range(70)]

    def rate(at: float) -> float:
        day, hour = int(at // 86_400), at % 86_400 / 3600
        return 0.05 + (1.0 * sizes[day] if day % 7 < 5 and 9 <= hour < 17 else 0.0)

    return rate


def swell(random: Random) -> Callable[[float], float]:
    """Day and night, without an edge."""
    sizes = [random.uniform(0.8, 1.2) for _ in range(70)]
    return lambda at: 0.05 + sizes[int(at // 86_400)] * (0.3 - 0.3 * cos(2 * pi * at / 86_400))


def whims(random: Random) -> Callable[[float], float]:
    """Each day has its rushes when it likes."""
    rushes = [day * 86_400 + random.uniform(0, 80_000) for day in range(70) for _ in range(3)]
    return lambda at: 0.1 + sum(1.0 * exp(-(at - rush) / 3000) for rush in rushes if 0 <= at - rush < 15_000)


def steps(shape: Callable[[Random], Callable[[float], float]], weeks: int, seed: int) -> list[tuple[float, float]]:
    """Random arrivals at the load's rate, each a Unix time and the seconds that it takes."""
    random = Random(f"{shape.__name__}{seed}")
    found: list[tuple[float, float]] = []
    rate, at = shape(random), 0.0
    while True:
        at += random.expovariate(MOST)
        if at >= weeks * 7 * 86_400:
            return found
        if random.random() * MOST < rate(at):
            found.append((MONDAY_S + at, service(random)))


def main(weeks: int = 4, *names: str) -> None:
    """Try and print."""
    for shape in (offices, swell, whims):
        if names and shape.__name__ not in names:
            continue
        found = backtest(
            steps(shape, weeks, 1), OBJECTIVE, startup_s=STARTUP_S, begins_s=MONDAY_S, processes=os.cpu_count() or 1
        ).verdict
        told = {"load": shape.__name__, **found.model_dump(exclude={"at_ms"}), "verdict": found.words}
        print(json.dumps({name: round(each, 4) if isinstance(each, float) else each for name, each in told.items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4, *sys.argv[2:])
