"""The simulated pool: a queue, workers that start and drain, and what they cost. Whoever sizes it is a Policy."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import Any, Final, Protocol

from agentq.fleet.simulator.traces import Arrival, Trace

OBJECTIVE_S: Final = 5.0
"""Within which a step is to start."""

STARTUP_S: Final = 15.0
"""Mean time from the order of a worker to its first step: a container with its image at hand."""

DRAIN_MOST_S: Final = 86_400.0
"""After the trace's end, until the last step is done."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a worker is: how many steps it runs at once, how long it takes to start, and what it costs.

    Attributes:
        cost: of one second of it, in any unit.
    """

    slots: int = 1
    startup_s: float = STARTUP_S
    cost: float = 1.0


class Policy(Protocol):
    """Sizes the pool."""

    every: float
    """Seconds between two decisions."""

    def decide(self, pool: "Pool", now: float) -> int:
        """How many workers there should be, the starting ones counted."""


@dataclass(slots=True)
class Outcome:
    """What became of a trace.

    Attributes:
        worker_s: seconds of workers paid, from the order to the end.
        spent: the same by what each kind of worker costs.
        in_time: steps that began within the objective.
        waits: seconds that each step waited, in order of their starts.
        largest: most workers at once.
        changes: how often workers were ordered or sent away.
    """

    worker_s: float = 0.0
    spent: float = 0.0
    steps: int = 0
    in_time: int = 0
    waits: list[float] = field(default_factory=list)
    largest: int = 0
    changes: int = 0

    @property
    def share(self) -> float:
        """Share of the steps that began within the objective."""
        return self.in_time / self.steps if self.steps else 1.0

    @property
    def p95(self) -> float:
        """Seconds of waiting that 95 of 100 steps do not exceed."""
        return sorted(self.waits)[int(len(self.waits) * 0.95)] if self.waits else 0.0


@dataclass(slots=True, eq=False)
class Worker:
    """One worker; `is_fixed` is one that nobody sends away."""

    ordered: float
    kind: Kind
    is_fixed: bool = False
    is_ready: bool = False
    busy: int = 0
    is_leaving: bool = False


class Pool:
    """A queue and its workers, as a policy may see them. It sizes those of `kind`; the fixed ones are always there.

    Attributes:
        waiting: (arrival time, step), oldest first.
        arrived, ended: counts since the beginning.
        services: seconds of each ended step.
        fixed_slots: of the workers that are always there.
    """

    def __init__(
        self,
        trace: Trace,
        *,
        seed: int,
        objective_s: float = OBJECTIVE_S,
        startup_s: float = STARTUP_S,
        kind: Kind | None = None,
        fixed: Sequence[Kind] = (),
    ) -> None:
        self.kind = Kind(startup_s=startup_s) if kind is None else kind
        self.objective_s, self.startup_s = objective_s, self.kind.startup_s
        self.fixed_slots = sum(each.slots for each in fixed)
        self.waiting: deque[tuple[float, Arrival]] = deque()
        self.workers: list[Worker] = []
        self.arrived = 0
        self.begun = 0
        self.ended = 0
        self.busy = 0
        self.last_busy = 0.0
        self.on_start: Callable[[Arrival, float], None] | None = None
        self.on_end: Callable[[Arrival, float], None] | None = None
        self.outcome = Outcome()
        self._random = Random(f"startup{seed}")
        self._idle: list[Worker] = []
        self._events: list[tuple[float, int, Callable[..., None], Any]] = []
        self._count = 0
        self._trace = trace
        self._next = 0
        self.now = 0.0
        for each in fixed:
            self._ready(self._add(Worker(ordered=0.0, kind=each, is_fixed=True)))

    @property
    def ready(self) -> int:
        """Workers that take steps."""
        return sum(1 for worker in self.workers if worker.is_ready and not worker.is_leaving and not worker.is_fixed)

    @property
    def starting(self) -> int:
        """Workers that were ordered and do not take steps yet."""
        return sum(1 for worker in self.workers if not worker.is_ready)

    @property
    def starting_s(self) -> float:
        """Mean seconds since these were ordered."""
        ages = [self.now - worker.ordered for worker in self.workers if not worker.is_ready]
        return sum(ages) / len(ages) if ages else 0.0

    @property
    def size(self) -> int:
        """Workers that take steps or soon will, the fixed ones left out."""
        return sum(1 for worker in self.workers if not worker.is_leaving and not worker.is_fixed)

    @property
    def oldest_wait(self) -> float:
        """Seconds that the oldest waiting step has waited."""
        return self.now - self.waiting[0][0] if self.waiting else 0.0

    def run(self, policy: Policy) -> Outcome:
        """The outcome of the whole trace, to the end of its last step."""
        self._plan_arrival()
        self._at(0.0, self._look, policy)
        while self._events:
            self.now, _, happen, what = heappop(self._events)
            happen(what)
        return self.outcome

    def resize(self, wanted: int) -> None:
        """Order workers, or send some away: those that start, then the idle, then the busy once they are free."""
        now, size = self.now, self.size
        if wanted == size:
            return
        self.outcome.changes += 1
        for _ in range(size, wanted):
            self.order(self.startup_s * self._random.uniform(0.8, 1.2))
        for worker in sorted(self.workers, key=lambda each: (each.is_ready, each.busy, -each.ordered)):
            if size <= wanted:
                break
            if not worker.is_leaving and not worker.is_fixed:
                self._dismiss(worker, now)
                size -= 1

    def order(self, startup_s: float) -> Worker:
        """One more worker, ready after so many seconds and paid from now on."""
        worker = self._add(Worker(ordered=self.now, kind=self.kind))
        self._at(self.now + startup_s, self._ready, worker)
        return worker

    def dismiss_idle(self, worker: Worker) -> None:
        """Send this one away, which must be idle."""
        self._dismiss(worker, self.now)

    def idle(self) -> list[Worker]:
        """Those that could begin a step at once, the longest idle first; one with several free slots several times."""
        return list(self._idle)

    def is_over(self) -> bool:
        """Whether nothing arrives, waits or runs any more."""
        return self._next >= len(self._trace.arrivals) and not self.waiting and not self.busy

    def later(self, at: float, what: Callable[[Any], None], argument: Any = None) -> None:
        """Call `what` at that time."""
        self._at(at, what, argument)

    def _at(self, when: float, happen: Callable[..., None], what: Any = None) -> None:
        self._count += 1
        heappush(self._events, (when, self._count, happen, what))

    def _plan_arrival(self) -> None:
        if self._next < len(self._trace.arrivals):
            arrival = self._trace.arrivals[self._next]
            self._next += 1
            self._at(arrival.at, self._arrive_from_outside, arrival)

    def _arrive_from_outside(self, arrival: Arrival) -> None:
        self._arrive(arrival)
        self._plan_arrival()

    def _arrive(self, arrival: Arrival) -> None:
        self.arrived += 1
        self.last_busy = self.now
        self.waiting.append((self.now, arrival))
        self._match()

    def _match(self) -> None:
        while self.waiting and self._idle:
            worker = self._idle.pop()
            arrived, step = self.waiting.popleft()
            wait = self.now - arrived
            outcome = self.outcome
            outcome.steps += 1
            outcome.in_time += wait <= self.objective_s
            outcome.waits.append(wait)
            worker.busy += 1
            self.busy += 1
            self.begun += 1
            if self.on_start is not None:
                self.on_start(step, self.now)
            self._at(self.now + step.service, self._end, (worker, step))

    def _end(self, done: tuple[Worker, Arrival]) -> None:
        worker, step = done
        self.busy -= 1
        self.ended += 1
        self.last_busy = self.now
        worker.busy -= 1
        if self.on_end is not None:
            self.on_end(step, self.now)
        for child in step.children:
            self._arrive(child)
        if not worker.is_leaving:
            self._idle.append(worker)
            self._match()
        elif not worker.busy:
            self._gone(worker)

    def _add(self, worker: Worker) -> Worker:
        self.workers.append(worker)
        self.outcome.largest = max(self.outcome.largest, len(self.workers))
        return worker

    def _ready(self, worker: Worker) -> None:
        if worker not in self.workers:
            return
        worker.is_ready = True
        self._idle += [worker] * worker.kind.slots
        self._match()

    def _dismiss(self, worker: Worker, now: float) -> None:
        worker.is_leaving = True
        if worker.is_ready:
            self._idle = [each for each in self._idle if each is not worker]
        if not worker.busy:
            self._gone(worker)

    def _gone(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self.outcome.worker_s += self.now - worker.ordered
        self.outcome.spent += (self.now - worker.ordered) * worker.kind.cost

    def _look(self, policy: Policy) -> None:
        if self.is_over() or self.now > self._trace.seconds + DRAIN_MOST_S:
            for worker in list(self.workers):
                self._dismiss(worker, self.now)
            return
        self.resize(max(0, policy.decide(self, self.now)))
        self._at(self.now + policy.every, self._look, policy)
