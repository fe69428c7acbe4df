"""Who sizes the pool in a simulation: the law of production, its rivals, and one that knows the future.

Each rival follows the published rule of what it stands for, with that rule's own periods; the parameters are those
that its users turn.
"""

from collections import deque
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Any, Final

from agentq.core.rates import Bunches, Lulls, Mean, Rate
from agentq.core.scaling import (
    CALM_S,
    QUANTILE,
    QUICK_S,
    WINDOWS,
    Asked,
    Objective,
    PoolLoad,
    decide_size,
    decide_window,
    patience_of,
    window_of,
)
from agentq.core.seasons import Record, decide_forecast
from agentq.fleet.simulator.traces import Arrival
from agentq.fleet.simulator.world import Pool

MOST: Final = 200
"""Workers, for all alike: no contest is decided by a cap."""


@dataclass
class Law:
    """The law of production, fed with what the sensors of production would say."""

    objective: Objective
    every: float = 1.0
    is_foreseeing: bool = True
    """Whether it reckons with what running agents will ask for next."""
    record: Record | None = None
    """What the weeks before had, where that counts; None: it does not."""
    begins_s: float = 0.0
    """When the trace begins, in Unix time: only for the record."""
    service_s: float = 0.0
    """Mean seconds of a step, as known before the trace begins; 0 for nothing."""
    _seen: tuple[float, int] = (0.0, 0)
    _quick: Rate = field(default_factory=lambda: Rate(QUICK_S))
    _calm: Rate = field(default_factory=lambda: Rate(CALM_S))
    _bunches: Bunches = field(default_factory=Bunches)
    _service: Mean = field(default_factory=Mean)
    _branching: dict[int, Mean] = field(default_factory=dict)
    _until: dict[int, Mean] = field(default_factory=dict)
    _open: dict[int, int] = field(default_factory=dict)
    _past: deque[tuple[float, int]] = field(default_factory=deque)
    _lulls: Lulls = field(default_factory=lambda: Lulls(most_s=0.0))
    _is_listening: bool = False

    def __post_init__(self) -> None:
        if self.service_s > 0:
            self._service.see_many(10, self.service_s, self.service_s**2)

    def decide(self, pool: Pool, now: float) -> int:
        """By `decide_size`, as the controller does."""
        self._listen(pool)
        then, count = self._seen
        if now > then:
            self._quick.see(pool.arrived - count, now - then)
            self._calm.see(pool.arrived - count, now - then)
            self._bunches.see(pool.arrived - count, now - then)
            self._seen = (now, pool.arrived)
        load = self._load(pool, now)
        while self._past and now - self._past[0][0] > window_of(load, self.objective):
            self._past.popleft()
        size = decide_size(load, self.objective, [Asked(now - at, workers) for at, workers in self._past])
        self._past.append((now, size.asked))
        self._lulls.see(now, size.asked)
        return ceil(max(0, size.workers - pool.fixed_slots) / pool.kind.slots)

    def _load(self, pool: Pool, now: float) -> PoolLoad:
        # Counted in slots, not in workers: the fixed ones may have another number of them.
        slots = pool.kind.slots
        expected, within = self._expectation(pool) if self.is_foreseeing else (0.0, 0.0)
        ahead = self.begins_s + now + pool.startup_s
        forecast = None if self.record is None else decide_forecast(self.record, ahead)
        return PoolLoad(
            forecast_rate=None if forecast is None else forecast.rate,
            forecast_counts=forecast is not None,
            waiting=len(pool.waiting),
            oldest_wait_s=pool.oldest_wait,
            running=pool.busy,
            quick_rate=self._quick.value,
            calm_rate=self._calm.value,
            bunch_slots=round(self._bunches.slots(self._service.value, patience_of(self.objective), QUANTILE), 1),
            service_s=self._service.value,
            variation=self._service.variation,
            expected=expected,
            expected_in_s=within,
            startup_s=pool.startup_s,
            ready=pool.ready * slots + pool.fixed_slots,
            starting=pool.starting * slots,
            starting_s=pool.starting_s,
            window_s=decide_window(self._lulls.seconds, pool.startup_s),
            idle_s=0.0 if pool.waiting or pool.busy else now - pool.last_busy,
        )

    def _listen(self, pool: Pool) -> None:
        if not self._is_listening:
            self._is_listening = True
            self._lulls.most_s = pool.startup_s * WINDOWS[-1]
            pool.on_start, pool.on_end = self._started, self._ended

    # A step's kind is how deep it stands: production goes by its name, which a trace does not have.

    def _started(self, step: Arrival, now: float) -> None:
        kind = _depth(step)
        self._open[kind] = self._open.get(kind, 0) + 1

    def _ended(self, step: Arrival, now: float) -> None:
        kind = _depth(step)
        # A fixed worker may have begun one before the first look.
        self._open[kind] = max(0, self._open.get(kind, 0) - 1)
        self._service.see(step.service)
        self._branching.setdefault(kind, Mean()).see(float(len(step.children)))
        self._until.setdefault(kind, Mean()).see(step.service)

    def _expectation(self, pool: Pool) -> tuple[float, float]:
        total, seconds = 0.0, 0.0
        for kind, running in self._open.items():
            if running and kind in self._branching:
                asked = running * self._branching[kind].value
                total += asked
                seconds += asked * self._until[kind].value
        return total, seconds / total if total else 0.0


def _depth(step: Arrival) -> int:
    # What may still lie below tells agents from tools, as names would.
    return 0 if not step.children else 1 + max(_depth(child) for child in step.children)


@dataclass
class Fixed:
    """So many workers, always."""

    workers: int
    every: float = 1.0
    """A pool that nobody needs any more is given up then, as those of all others are."""

    def decide(self, pool: Pool, now: float) -> int:
        """Always the same."""
        return self.workers


@dataclass
class CeleryAutoscaler:
    """Celery's own: as many processes as requests that the worker holds, up to `most`; one less after a pause.

    https://docs.celeryq.dev/en/stable/userguide/workers.html#autoscaling: it sees what is reserved, which with the
    prefetch multiplier of 1 that goes with late acknowledgement is at most `most`.
    """

    most: int
    keepalive: float = 30.0
    every: float = 1.0
    _last_up: float = -inf

    def decide(self, pool: Pool, now: float) -> int:
        """The reserved requests, within the limits."""
        reserved = min(pool.busy + len(pool.waiting), self.most)
        size = pool.size
        if reserved > size:
            self._last_up = now
            return reserved
        if reserved < size and now - self._last_up > self.keepalive:
            return max(reserved, 1)
        return max(size, 1)


@dataclass
class CpuTarget:
    """Kubernetes' HPA on the share of busy workers, every 15 s, with its tolerance and its window for shrinking.

    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
    """

    target: float = 0.7
    window: float = 300.0
    every: float = 15.0
    _past: deque[tuple[float, int]] = field(default_factory=deque)

    def decide(self, pool: Pool, now: float) -> int:
        """The size at which the busy share would meet the target."""
        ready = max(pool.ready, 1)
        share = pool.busy / ready / self.target
        wanted = pool.size if abs(share - 1) <= 0.1 else ceil(ready * share)
        # At most twice as many, or four more, in fifteen seconds.
        wanted = min(max(1, wanted), max(2 * pool.size, pool.size + 4), MOST)
        return _stabilised(self._past, now, wanted, self.window)


@dataclass
class QueueDepth:
    """KEDA's scaler on the length of a list: waiting ÷ threshold, asked for by an HPA, and a pause before zero.

    https://keda.sh/docs/latest/scalers/redis-lists/
    """

    threshold: float = 5.0
    window: float = 300.0
    cooldown: float = 300.0
    every: float = 15.0
    _past: deque[tuple[float, int]] = field(default_factory=deque)
    _active: float = -inf

    def decide(self, pool: Pool, now: float) -> int:
        """Enough for so many waiting each."""
        if pool.waiting:
            self._active = now
        if not pool.waiting and now - self._active > self.cooldown:
            return 0
        wanted = min(max(1, ceil(len(pool.waiting) / self.threshold)), max(2 * pool.size, pool.size + 4), MOST)
        return _stabilised(self._past, now, wanted, self.window)


@dataclass
class BacklogPerWorker:
    """AWS' target tracking on the backlog of a worker, every minute, with cool-downs.

    https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-using-sqs-queue.html
    """

    target: float = 2.5
    shrink_after: float = 300.0
    every: float = 60.0
    _below: float | None = None

    def decide(self, pool: Pool, now: float) -> int:
        """The size at which each worker's share of the queue would meet the target."""
        backlog = len(pool.waiting) + pool.busy
        wanted = min(max(1, ceil(backlog / self.target)), MOST)
        if wanted >= pool.size:
            self._below = None
            return wanted
        if self._below is None:
            self._below = now
        return wanted if now - self._below >= self.shrink_after else pool.size


@dataclass
class ConcurrencyTarget:
    """Knative's KPA: mean concurrency over a stable window, and over a tenth of it in panic.

    https://knative.dev/docs/serving/autoscaling/kpa-specific/
    """

    target: float = 0.7
    window: float = 60.0
    panic_threshold: float = 2.0
    grace: float = 30.0
    every: float = 2.0
    _readings: deque[tuple[float, int]] = field(default_factory=deque)
    _panic_until: float = -inf
    _panic_size: int = 0
    _zero_since: float | None = None

    def decide(self, pool: Pool, now: float) -> int:
        """By the stable mean, or in panic by the quick one, which never lowers."""
        self._readings.append((now, pool.busy + len(pool.waiting)))
        while now - self._readings[0][0] > self.window:
            self._readings.popleft()
        stable = ceil(self._mean(now, self.window) / self.target)
        quick = ceil(self._mean(now, self.window / 10) / self.target)
        if quick >= self.panic_threshold * max(pool.ready, 1):
            if now >= self._panic_until:
                self._panic_size = pool.size
            self._panic_until = now + self.window
        if now < self._panic_until:
            self._panic_size = max(self._panic_size, quick)
            return min(self._panic_size, MOST)
        if stable == 0:
            self._zero_since = now if self._zero_since is None else self._zero_since
            return 0 if now - self._zero_since >= self.grace else max(1, min(pool.size, 1))
        self._zero_since = None
        return min(stable, MOST)

    def _mean(self, now: float, seconds: float) -> float:
        recent = [count for at, count in self._readings if now - at <= seconds]
        return sum(recent) / len(recent)


@dataclass
class Clairvoyant:
    """Knows every arrival, and orders a worker so early that it is ready when a step's patience ends.

    A worker that is idle stays if it will be needed again before another could be started for less. It is what a
    perfect forecast could reach with the same start-up time, no proof of the least cost.
    """

    every: float = 0.25

    def decide(self, pool: Pool, now: float) -> int:
        """Start what the oldest step's patience asks for, with its start-up time paid; end what has idled too long."""
        for arrived, _ in list(pool.waiting):
            if now - arrived < pool.objective_s - self.every:
                break
            worker = pool.order(0.0)
            # It was ordered a start-up time ago.
            worker.ordered -= pool.startup_s
        for worker in pool.idle():
            since = self._idle_since.setdefault(id(worker), now)
            if now - since >= pool.startup_s:
                pool.dismiss_idle(worker)
        idle = {id(worker) for worker in pool.idle()}
        self._idle_since = {key: since for key, since in self._idle_since.items() if key in idle}
        return pool.size

    _idle_since: dict[int, float] = field(default_factory=dict)


def _stabilised(past: deque[tuple[float, int]], now: float, wanted: int, window: float) -> int:
    past.append((now, wanted))
    while now - past[0][0] > window:
        past.popleft()
    return max(number for _, number in past)


def describe(policy: Any) -> str:
    """A policy's name and the parameters that its users turn."""
    shown = {
        name: value
        for name, value in vars(policy).items()
        if not name.startswith("_") and name not in ("every", "objective")
    }
    return f"{type(policy).__name__}({', '.join(f'{name}={value:g}' for name, value in shown.items())})"
