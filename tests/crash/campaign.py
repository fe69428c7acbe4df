"""Rounds of runs of every shape under seeded faults; each round ends when its runs have ended as undisturbed ones do.

A round's choices follow from the seed and its number, so that it can be done again by itself; when exactly a fault
meets its victim is the machine's.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from agentq.core.errors import Unavailable
from tests.crash.faults import Fault, Striker, plan
from tests.crash.shapes import EXPECTED, TIMEOUT, Started, start_all
from tests.crash.witness import Inspector, Witness, problems_of
from tests.kit.broker import PrivateBroker
from tests.kit.field import Fleet
from tests.kit.mode import settings_of
from tests.kit.proxy import Proxy
from tests.kit.relay import Relay
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

logger = logging.getLogger(__name__)

PROJECT = "tests.projects.storm"
WORKERS = 3
SHOWN = 12
"""Problems of one round that are told: a tree that did not end leaves hundreds of keys."""

SERVING = 2
"""Workers that serve at least while a fault strikes, so that there is somebody to go on."""


@dataclass
class Report:
    """What a campaign has done.

    Attributes:
        done: by fault, how often it struck.
        missed: by fault, how often its point was not met in time, so that it struck at random.
        problems: what was wrong, with the round in front.
        runs: how many runs ended, by shape.
        most: by what is limited, how much of it went on at once when somebody looked.
        pardoned: how many steps were condemned, since faults killed them too often in a row, and delivered again.
        told: what the histories of the runs have of stops, hedges and kept answers, by kind.
    """

    mode: str
    seed: int
    done: Counter[Fault] = field(default_factory=Counter)
    missed: Counter[Fault] = field(default_factory=Counter)
    failed: Counter[Fault] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)
    pardoned: int = 0
    most: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def table(self) -> str:
        """Return the report as a table for people."""
        rows: list[tuple[str, ...]] = [("fault", "where", "struck", "point missed", "in bad rounds")]
        for fault in sorted(self.done, key=lambda one: (one.kind, one.place)):
            counts = (self.done[fault], self.missed[fault], self.failed[fault])
            rows.append((fault.kind, fault.place, *(str(count) for count in counts)))
        rows.append(("all", "", *(str(each.total()) for each in (self.done, self.missed, self.failed))))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        shapes = ", ".join(f"{number} {shape}" for shape, number in sorted(self.runs.items()))
        ends = f"{self.runs.total()} runs ended as undisturbed ones ({shapes})"
        head = f"mode {self.mode}, seed {self.seed}: {self.done.total()} faults in {self.seconds:.0f} s"
        if self.pardoned:
            ends += f"\n{self.pardoned} steps were condemned and delivered again"
        if self.most:
            ends += "\nseen at the most: " + ", ".join(f"{name} {number}" for name, number in sorted(self.most.items()))
        if self.told:
            ends += "\ntold by the runs: " + ", ".join(f"{number} {kind}" for kind, number in sorted(self.told.items()))
        wrong = [f"PROBLEM {problem}" for problem in self.problems] or ["no problem"]
        return "\n".join([head, "", *lines, "", ends, *wrong])


class Campaign:
    """A server, a proxy in front of it, and workers behind that.

    Args:
        make: makes workers as the fixtures do.
        mode: one of ``tests.kit.mode.MODES``.
        seed: from which all choices follow.
        broker: the one of split mode.
        say: hears of each round.
    """

    def __init__(
        self,
        make: Callable[..., WorkerProcess],
        *,
        mode: str,
        seed: int,
        broker: PrivateBroker | None = None,
        say: Callable[[str], None] = logger.info,
    ) -> None:
        self.report = Report(mode=mode, seed=seed)
        self._broker = broker if mode == "split" else None
        self._relay = Relay(self._broker.port) if self._broker is not None else None
        self._env = settings_of(mode, broker)
        if self._relay is not None:
            self._env["AGENTQ_BROKER_URL"] = f"amqp://guest:guest@127.0.0.1:{self._relay.port}//"
        self._make = make
        self._say = say
        self._app: Any = None
        self._calm: dict[str, tuple[Any, Any]] = {}
        self._inspector = Inspector()

    def run(self, faults: int, *, first: Sequence[Fault] = (), per_round: int = 8, only: int | None = None) -> Report:
        """Do so many faults, begun with ``first``, or one round of them alone, and report."""
        begin = time.monotonic()
        planned = [*first, *plan(faults - len(first), random.Random(self.report.seed), self.report.mode)]
        with self._field() as (fleet, proxy, witness):
            self._measure(fleet)
            known = {name for _, name in proxy.counts}
            assert known >= {"take", "commit", "send", "park"}, f"the workers' scripts are others than these: {known}"
            for number, at in enumerate(range(0, len(planned), per_round)):
                if only is None or number == only:
                    self._round(number, planned[at : at + per_round], fleet, proxy, witness)
        self.report.most = self._inspector.most
        self.report.seconds = time.monotonic() - begin
        return self.report

    @contextmanager
    def _field(self) -> Iterator[tuple[Fleet, Proxy, Witness]]:
        # A commit that the server has confirmed must outlive its death, or nothing could be counted.
        server = PrivateServer(fsync="always")
        server.start()
        proxy = fleet = None
        if self._relay is not None:
            self._relay.start()
        try:
            path = Path(server.folder) / "p"
            fleet = Fleet(server, self._make, module=PROJECT, url=f"redis+socket://{path}", env=self._env)
            proxy = Proxy(server.socket, path, fleet.flows.app.store.scripts.hashes)
            witness = Witness()
            proxy.on_reply = witness
            proxy.start()
            self._app = fleet.flows.app
            self._app.set_current()
            yield fleet, proxy, witness
        finally:
            for worker in fleet.workers if fleet is not None else ():
                worker.kill_tree()
            if proxy is not None:
                proxy.close()
            if self._relay is not None:
                self._relay.close()
            server.stop()

    def _measure(self, fleet: Fleet) -> None:
        """See what the runs come to when nothing disturbs them."""
        fleet.ensure(WORKERS)
        started = start_all(fleet.flows)
        for one in started:
            self._drive(started)
            self._calm[one.shape] = self._end(one, started)
            assert self._calm[one.shape][0] == EXPECTED[one.shape], f"{one.shape} came to {self._calm[one.shape]}"
        self._clear(fleet)
        self._say(f"undisturbed: {', '.join(self._calm)}")

    def _round(self, number: int, faults: list[Fault], fleet: Fleet, proxy: Proxy, witness: Witness) -> None:
        begin = time.monotonic()
        rng = random.Random(f"{self.report.seed}:{number}")
        striker = Striker(fleet, proxy, rng, broker=self._broker, relay=self._relay)
        self._top_up(fleet, striker)
        started = start_all(fleet.flows)
        outlook = []
        for fault in faults:
            self._top_up(fleet, striker)
            if all(one.has_ended() for one in started):
                started += start_all(fleet.flows)
            self._pass(rng.uniform(0.0, 0.6), started, striker)
            met = striker.strike(fault, partial(self._pass, started=started, striker=striker))
            self.report.done[fault] += 1
            self.report.missed[fault] += fault.point is not None and not met
            outlook.append(f"{fault}{'' if met or fault.point is None else ' (not met)'}")
        problems = self._conclude(started, fleet, striker, witness)
        for fault in faults:
            self.report.failed[fault] += bool(problems)
        shown = problems[:SHOWN] + ([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])
        self.report.problems += [f"in round {number}: {problem}" for problem in shown]
        verdict = "well" if not problems else f"{len(problems)} PROBLEMS: {problems[:3]}"
        self._say(f"round {number} in {time.monotonic() - begin:.0f} s: {'; '.join(outlook)}: {verdict}")

    def _conclude(self, started: list[Started], fleet: Fleet, striker: Striker, witness: Witness) -> list[str]:
        """Wait for all ends, and return what is wrong with them and with what they left."""
        self._top_up(fleet, striker)
        problems = []
        for one in started:
            try:
                outcome, shape = self._end(one, started, striker)
            except AssertionError as error:
                problems.append(f"{one.shape} {one.handle.id} did not end: {error}")
                continue
            self.report.runs[one.shape] += 1
            self.report.told.update(one.told())
            if (outcome, shape) != self._calm[one.shape]:
                problems.append(f"{one.shape} {one.handle.id} came to {outcome!r} by {shape}")
        striker.resume(all_of_them=True)
        app, client = self._app, fleet.server.client
        # Stale attempts and dead workers' names take their time to go.
        with suppress(AssertionError):
            wait_until(lambda: not problems_of(app, client), description="all is in order", timeout=30)
        problems += problems_of(app, client)
        problems += witness.problems() + self._inspector.problems()
        problems += [f"process {each} outlives its worker" for each in striker.survivors()]
        self._clear(fleet)
        return problems

    def _end(self, one: Started, started: list[Started], striker: Striker | None = None) -> tuple[Any, Any]:
        wait_until(
            partial(self._see, one, started, striker),
            description=f"the end of {one.shape}",
            timeout=TIMEOUT,
            interval=0.1,
        )
        return one.end()

    def _see(self, one: Started, started: list[Started], striker: Striker | None) -> bool:
        self._drive(started, striker)
        self._pardon()
        return one.has_ended()

    def _pardon(self) -> None:
        """Do as a person who knows that the steps were not to blame."""
        with suppress(Unavailable):
            for letter in self._app.store.letters():
                self.report.pardoned += self._app.store.replay(letter.letter_id) == "replayed"

    def _drive(self, started: list[Started], striker: Striker | None = None) -> None:
        if striker is not None:
            striker.resume()
        # A server that is away is another round's: what people say is said again under the same id.
        with suppress(Unavailable):
            self._inspector.look(self._app.store)
            for one in started:
                one.nudge()

    def _pass(self, seconds: float, started: list[Started], striker: Striker) -> None:
        """Let the runs go on for a while; a fault at random must come at a random time."""
        if striker.fleet.server.running:
            self._drive(started, striker)
        time.sleep(seconds)

    def _top_up(self, fleet: Fleet, striker: Striker) -> None:
        striker.resume()
        fleet.workers = [worker for worker in fleet.workers if worker.running]
        while striker.serving() < WORKERS:
            fleet.start()
        wait_until(
            lambda: sum(worker.running and worker.ready_line in worker.log() for worker in fleet.workers) >= SERVING,
            description=f"{SERVING} workers serve",
        )

    def _clear(self, fleet: Fleet) -> None:
        """Forget trees that have ended, so that the next look at the server is a short one."""
        client = fleet.server.client
        for key in list(client.scan_iter(count=1000)):
            if client.pttl(key) > 0 and (b"{" in key or key.startswith(b"celery-task-meta-")):
                client.delete(key)
