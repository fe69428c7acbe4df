"""Loads to try a pool with: when which step arrives, how long it takes, and what it asks for when it ends.

Each is made by a seed. Services are lognormal, as times of model calls and tools are: most are short, some are long.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import cos, exp, isfinite, log, pi, sqrt
from pathlib import Path
from random import Random
from typing import Any, Final

from agentq.core.errors import InvalidFile

SERVICE_S: Final = 2.0
"""Mean of a step."""

VARIATION: Final = 1.0
"""Squared coefficient of variation of the service times."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A step that comes from outside.

    Attributes:
        at: seconds from the trace's beginning.
        service: seconds that it runs.
        children: what it asks for when it ends; they arrive together.
    """

    at: float
    service: float
    children: tuple["Arrival", ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """A load over some time, in order of arrival."""

    name: str
    seconds: float
    arrivals: tuple[Arrival, ...]

    @property
    def steps(self) -> int:
        """All steps, those that others ask for too."""
        return sum(1 for arrival in self.arrivals for _ in _and_below(arrival))

    @property
    def work(self) -> float:
        """Seconds of service in all."""
        return sum(each.service for arrival in self.arrivals for each in _and_below(arrival))


def _and_below(arrival: Arrival) -> Iterator[Arrival]:
    yield arrival
    for child in arrival.children:
        yield from _and_below(child)


def diurnal(seed: int, *, seconds: float = 7200) -> Trace:
    """A day in two hours: from a tenth of the peak at night to the peak, with a weather of its own."""
    random = Random(f"diurnal{seed}")
    weather = _weather(random, seconds, calm_s=600, strength=0.15)
    return _poisson(
        "diurnal", random, seconds, most=22, rate=lambda t: (5.5 - 4.5 * cos(2 * pi * t / seconds)) * weather(t)
    )


def bursty(seed: int, *, seconds: float = 7200) -> Trace:
    """A quiet load that is three to five times as much for a minute or two, every few minutes."""
    random = Random(f"bursty{seed}")
    ends, levels, at = [], [], 0.0
    while at < seconds:
        calm = random.expovariate(1 / 180)
        burst = random.uniform(45, 120)
        ends += [at + calm, at + calm + burst]
        levels += [3.0, random.uniform(9, 15)]
        at += calm + burst
    return _poisson("bursty", random, seconds, most=15, rate=_steps(ends, levels))


def flash(seed: int, *, seconds: float = 3600) -> Trace:
    """A small load, and once a crowd: twelve times as many within twenty seconds, gone after ten minutes."""
    random = Random(f"flash{seed}")
    begins = random.uniform(600, seconds - 1200)

    def rate(t: float) -> float:
        if t < begins:
            return 2.0
        return 2.0 + 22.0 * min(1.0, (t - begins) / 20) * exp(-max(0.0, t - begins - 20) / 150)

    return _poisson("flash", random, seconds, most=24, rate=rate)


def cascade(seed: int, *, seconds: float = 3600) -> Trace:
    """Agents: a run plans for some seconds, then asks for five steps at once, some of which ask for five more."""
    random = Random(f"cascade{seed}")
    arrivals, at = [], 0.0
    while True:
        at += random.expovariate(1 / 25)
        if at >= seconds:
            break
        # Runs come in small groups: an application starts several for one request.
        arrivals += [_run(random, at) for _ in range(random.choice((1, 1, 2, 4)))]
    return Trace("cascade", seconds, tuple(arrivals))


def sparse(seed: int, *, seconds: float = 7200) -> Trace:
    """Nothing for minutes, then a batch: what a pool that sleeps at zero is for."""
    random = Random(f"sparse{seed}")
    arrivals, at = [], random.uniform(60, 300)
    while at < seconds:
        size = random.randint(20, 120)
        for _ in range(size):
            arrivals.append(Arrival(at + random.uniform(0, 20), service(random)))
        at += random.uniform(240, 900)
    arrivals = sorted((each for each in arrivals if each.at < seconds), key=lambda each: each.at)
    return Trace("sparse", seconds, tuple(arrivals))


TRACES: Final[dict[str, Callable[[int], Trace]]] = {
    "diurnal": diurnal,
    "bursty": bursty,
    "flash": flash,
    "cascade": cascade,
    "sparse": sparse,
}
"""The shipped loads, by name."""


LONGEST_S: Final = 60 * 86_400.0
"""A load is simulated second by second; a longer one is milliseconds that were taken for seconds."""

LONGEST_STEP_S: Final = 7 * 86_400.0


def load_trace(path: Path) -> Trace:
    """A recorded load: a JSON object a line, with `at` and `service` in seconds, and perhaps `children` of the same.

    Raises InvalidFile with the line that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile(file=str(path), reason=str(error)) from error
    arrivals = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            arrivals.append(_read(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidFile(
                file=str(path), line=number, reason=f'no step ({error}); one is {{"at": 1.5, "service": 0.2}}'
            ) from error
    if not arrivals:
        raise InvalidFile(file=str(path), reason="it holds no step")
    arrivals.sort(key=lambda each: each.at)
    begin = arrivals[0].at
    moved = tuple(Arrival(each.at - begin, each.service, each.children) for each in arrivals)
    if moved[-1].at > LONGEST_S:
        days = moved[-1].at / 86_400
        reason = f"its steps come over {days:,.0f} days, and {LONGEST_S / 86_400:g} are the most; times are in seconds"
        raise InvalidFile(file=str(path), reason=reason)
    return Trace(path.stem, moved[-1].at + moved[-1].service, moved)


def service(random: Random, mean: float = SERVICE_S, variation: float = VARIATION) -> float:
    """Seconds that one step takes."""
    spread = sqrt(log(1 + variation))
    return random.lognormvariate(log(mean) - spread * spread / 2, spread)


def _read(given: Any) -> Arrival:
    at, seconds = float(given.get("at", 0.0)), float(given["service"])
    if not (isfinite(at) and isfinite(seconds)) or at < 0 or seconds <= 0:
        raise ValueError(f"at is {at:g} and service {seconds:g}, but a step lasts for some time, and time begins at 0")
    if seconds > LONGEST_STEP_S:
        raise ValueError(f"service is {seconds:g} s, and {LONGEST_STEP_S / 86_400:g} days are the most")
    return Arrival(at, seconds, tuple(_read(child) for child in given.get("children", ())))


def _run(random: Random, at: float) -> Arrival:
    def leaf() -> Arrival:
        deeper = tuple(Arrival(0.0, service(random)) for _ in range(5)) if random.random() < 0.3 else ()
        return Arrival(0.0, service(random), deeper)

    return Arrival(at, service(random, 6.0), tuple(leaf() for _ in range(5)))


def _poisson(name: str, random: Random, seconds: float, *, most: float, rate: Callable[[float], float]) -> Trace:
    """Random arrivals at a rate that changes, by thinning those of the highest rate."""
    arrivals: list[Arrival] = []
    at = 0.0
    while True:
        at += random.expovariate(most)
        if at >= seconds:
            return Trace(name, seconds, tuple(arrivals))
        if random.random() * most < rate(at):
            arrivals.append(Arrival(at, service(random)))


def _weather(random: Random, seconds: float, *, calm_s: float, strength: float) -> Callable[[float], float]:
    """A factor around 1 that drifts: an Ornstein-Uhlenbeck process in steps of ten seconds."""
    values, value, keep = [], 0.0, exp(-10 / calm_s)
    for _ in range(int(seconds / 10) + 2):
        value = value * keep + random.gauss(0, strength * sqrt(1 - keep * keep))
        values.append(exp(value))
    return lambda t: values[int(t / 10)]


def _steps(ends: list[float], levels: list[float]) -> Callable[[float], float]:
    at = 0

    def rate(t: float) -> float:
        nonlocal at
        while at < len(ends) - 1 and t >= ends[at]:
            at += 1
        return levels[at]

    return rate
