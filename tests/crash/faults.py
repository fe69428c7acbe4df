"""Kinds of faults and the points at which they strike; a plan of them follows from its seed alone."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import psutil

from tests.kit.broker import PrivateBroker
from tests.kit.field import Fleet
from tests.kit.process import wait_for_ends
from tests.kit.proxy import Call, Moment, Proxy, Verdict
from tests.kit.relay import Relay
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

logger = logging.getLogger(__name__)

STOP_S = 8.0
"""Longer than a lease and the time in which another worker notices."""

PATIENCE_S = 12.0
"""For a point to be met; then the fault strikes wherever its victim stands."""

POINTS = {
    "take": ("take",),
    "commit": ("commit",),
    "send": ("send", "journal"),
    "park": ("park",),
    "release": ("leave", "settle"),
}
"""The points' names and the scripts that are called there."""

KILLS = ("child", "main", "keeper", "tree", "all but keeper", "stop", "stop main", "server")
BROKERS = ("broker", "cut broker")
"""Where RabbitMQ stands beside the server."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and where; ``point`` is None for a random moment.

    "child", "main", "keeper", "tree" and "all but keeper" are SIGKILLs of these processes of one worker; "stop" and
    "stop main" are SIGSTOP for eight seconds; "server" is a SIGKILL of the server, which comes back; "cut" is the loss
    of a connection before a call, "no reply" the loss of the reply. "broker" is a SIGKILL of RabbitMQ, which comes
    back, "cut broker" the loss of a worker's connections to it.
    """

    kind: str
    point: str | None = None
    moment: Moment = "before"

    def __str__(self) -> str:
        return f"{self.kind}, {self.place}"

    @property
    def place(self) -> str:
        """Where it strikes, for people."""
        return "at random" if self.point is None else f"{self.moment} {self.point}"


def every_fault(mode: str) -> list[Fault]:
    """Return all kinds at all points that a mode has."""
    moments: tuple[Moment, ...] = ("before", "after")
    kinds = (*KILLS, *BROKERS) if mode == "split" else KILLS
    found = [Fault(kind, point, moment) for kind in kinds for point in POINTS for moment in moments]
    found += [Fault(kind) for kind in (*kinds, "cut")]
    found += [Fault("cut", point) for point in POINTS]
    return found + [Fault("no reply", point, "after") for point in POINTS]


def plan(number: int, rng: random.Random, mode: str) -> list[Fault]:
    """Return so many faults of a mode in random order, each as often as the others as far as the number allows."""
    every = every_fault(mode)
    chosen: list[Fault] = []
    while len(chosen) < number:
        chosen += rng.sample(every, k=len(every))
    return chosen[:number]


class Striker:
    """Does faults to a fleet behind a proxy; what it has stopped, it lets go on after its time.

    ``broker`` and ``relay``: RabbitMQ, and the way of the workers to it, in split mode.
    """

    def __init__(
        self,
        fleet: Fleet,
        proxy: Proxy,
        rng: random.Random,
        *,
        broker: PrivateBroker | None = None,
        relay: Relay | None = None,
    ) -> None:
        self.fleet = fleet
        self.proxy = proxy
        self.rng = rng
        self.broker = broker
        self.relay = relay
        self.orphans: list[psutil.Process] = []
        self._stopped: list[tuple[float, WorkerProcess]] = []

    def strike(self, fault: Fault, wait: Callable[[float], None]) -> bool:
        """Do a fault; returns whether its point was met. ``wait`` passes some seconds of the runs' time."""
        met = False
        if fault.point is not None:
            met = self._at_point(fault, wait)
        if not met:
            self._act(fault.kind, self.choose(), None)
        self._restore()
        return met

    def choose(self) -> WorkerProcess:
        """Return a worker that serves, not a stopped one if there is another."""
        stopped = [worker for _, worker in self._stopped]

        def serving() -> list[WorkerProcess]:
            return [worker for worker in self.fleet.workers if worker.running and worker.ready_line in worker.log()]

        # The last one may have been killed, and the next not be there yet.
        fit = wait_until(lambda: serving() or None, description="a worker serves")
        return self.rng.choice([worker for worker in fit if worker not in stopped] or fit)

    def resume(self, *, all_of_them: bool = False) -> None:
        """Let those go on whose time is up."""
        now = time.monotonic()
        for until, worker in list(self._stopped):
            if all_of_them or now >= until:
                self._stopped.remove((until, worker))
                # Its main process may have been killed meanwhile: who stands still beside it could never notice.
                with suppress(ProcessLookupError):
                    worker.resume()

    def survivors(self) -> list[int]:
        """Return the ids of processes that live on without their main process, after a moment to end in."""
        return [each.pid for each in wait_for_ends(self.orphans, timeout=5)]

    def serving(self) -> int:
        """Return how many workers run that are not stopped."""
        stopped = [worker for _, worker in self._stopped]
        return sum(worker.running and worker not in stopped for worker in self.fleet.workers)

    def _at_point(self, fault: Fault, wait: Callable[[float], None]) -> bool:
        assert fault.point is not None
        leaving = self.choose() if fault.point == "release" else None

        def fits(call: Call) -> bool:
            owner = self._owner(call.pid)
            return owner is not None and (leaving is None or owner is leaving)

        trap = self.proxy.trap(POINTS[fault.point], fault.moment, partial(self._spring, fault), fits)
        if leaving is not None:
            leaving.send(signal.SIGTERM)
        end = time.monotonic() + PATIENCE_S
        while not trap.done.is_set() and time.monotonic() < end:
            wait(0.02)
        if self.proxy.disarm(trap):
            return False
        assert trap.done.wait(60)
        return True

    def _spring(self, fault: Fault, call: Call) -> Verdict:
        worker = self._owner(call.pid)
        assert worker is not None
        if fault.kind not in ("cut", "no reply"):
            self._act(fault.kind, worker, call.pid)
        # A killed caller's call has left it all the same; a lost reply is what "after" and a cut make.
        return "cut" if fault.kind in ("cut", "no reply") else "pass"

    def _act(self, kind: str, worker: WorkerProcess, pid: int | None) -> None:
        children, keepers = parts_of(worker)
        logger.info("fault: %s of %s (pid %s at the point)", kind, worker.name, pid)
        if kind == "child":
            victims = [pid] if pid in children else children[:1]
        elif kind == "main":
            victims = [worker.pid]
        elif kind == "keeper":
            victims = keepers
        elif kind == "tree":
            victims = [worker.pid, *children, *keepers]
        elif kind == "all but keeper":
            victims = [worker.pid, *children]
        elif kind in ("stop", "stop main"):
            self._stopped.append((time.monotonic() + STOP_S, worker))
            _send(signal.SIGSTOP, [worker.pid] if kind == "stop main" else [worker.pid, *children, *keepers])
            return
        elif kind == "server":
            self.fleet.server.kill()
            return
        elif kind == "broker":
            assert self.broker is not None
            self.broker.kill_tree()
            return
        elif kind == "cut broker":
            assert self.relay is not None
            self.relay.cut({worker.pid, *children, *keepers})
            return
        else:
            self.proxy.cut({worker.pid, *children, *keepers})
            return
        if worker.pid in victims:
            self.orphans += [psutil.Process(each) for each in (*children, *keepers) if psutil.pid_exists(each)]
        _send(signal.SIGKILL, victims)

    def _restore(self) -> None:
        """Bring a killed server or broker back, and put new workers into the places of those that ended."""
        if not self.fleet.server.running:
            self.fleet.server.start()
        if self.broker is not None and not self.broker.running:
            self.broker.start()
        self.fleet.workers = [worker for worker in self.fleet.workers if worker.running]

    def _owner(self, pid: int) -> WorkerProcess | None:
        """Return the worker to whose tree a process belongs."""
        with suppress(ProcessLookupError):
            session = os.getsid(pid)
            for worker in self.fleet.workers:
                if worker.running and worker.pid == session:
                    return worker
        return None


def parts_of(worker: WorkerProcess) -> tuple[list[int], list[int]]:
    """Return the ids of a worker's children that run steps, and of its keeper."""
    children: list[int] = []
    keepers: list[int] = []
    for process in worker.tree()[1:]:
        with suppress(psutil.NoSuchProcess):
            (keepers if "keeper" in " ".join(process.cmdline()) else children).append(process.pid)
    return children, keepers


def _send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
