"""Workers that `agentq run` starts for itself when nobody serves what the agent needs."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from agentq.cli.catalogue import unserved
from agentq.cli.errors import CommandRefused
from agentq.cli.processes import Company, Member
from agentq.cli.workers import (
    WorkerPlan,
    child_environment,
    new_label,
    plan_workers,
    servable,
    with_devices,
    worker_argv,
)

if TYPE_CHECKING:
    from agentq.cli.session import Session

GRACE = timedelta(seconds=10)
"""How long a worker may finish what it does for other runs when ours has ended."""
TAIL_LINES = 12
"""Lines of a worker's output kept, to be told when it dies again and again."""
DEATHS_AT_MOST = 3
"""After so many deaths in a row a worker is not started again: something is wrong with the application."""
LOOK_SECONDS = 1.0


class OwnWorkers:
    """The workers of one command: started where nobody serves, started again when they die, stopped at its end."""

    def __init__(self, session: Session, *, wanted: bool) -> None:
        from agentq.core.policy import decide_restart_wait

        self._session = session
        self._wanted = wanted
        self._company = Company([], write_line=self._keep, decide_wait=decide_restart_wait)
        self._tails: dict[str, deque[str]] = {}
        self._labels: list[str] = []
        self._covered: set[str] = set()
        self._first: str | None = None
        self._notes: list[str] = []
        self._lock = threading.Lock()
        self._looked = 0.0

    def __enter__(self) -> OwnWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def start_missing(self, agent: str) -> None:
        """The agent's own pool is served, by workers of somebody else or by ours.

        Ours serve every pool that is like it and that nobody serves. The others follow when messages wait in them.
        """
        app = self._session.app
        first = app.agents.pool_of(agent)
        if agent in app.celery.tasks:
            self._first = first
            self._start_for(first)
        elif unserved(app, [first]):
            self._notes.append(f"No worker serves {first}, and the agent's code is not here: the run waits for one.")

    def tend(self) -> list[str]:
        """What has to be said since the last call; refused with its words if a worker keeps dying."""
        for member in self._company.tend():
            if member.deaths >= DEATHS_AT_MOST:
                tail = "\n".join(f"  {line}" for line in self._tails[member.name])
                raise CommandRefused(f"The worker for {member.name} dies again and again:\n{tail}")
            # The company's own words about the end are the last of its lines.
            self._notes.append(f"The worker for {member.name} {self._tails[member.name][-1]}.")
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            self._start_wanted()
        notes, self._notes = self._notes, []
        return notes

    def _start_wanted(self) -> None:
        # The agent's own pool also while nothing waits in it: without a worker nobody looks at the clock for a
        # run that sleeps, and those of another command may have ended with it.
        app = self._session.app
        wanted = [name for name in app.pools if name == self._first or any(app.store.waiting(name).values())]
        for name in wanted:
            self._start_for(name)

    def _start_for(self, pool: str) -> None:
        """Workers for the pool and for those like it are started, unless somebody serves it."""
        if pool in self._covered:
            return
        app = self._session.app
        lacking = [name for name in unserved(app, app.pools) if name not in self._covered]
        if pool in lacking:
            lacking, words = servable(app, lacking)
            if pool not in lacking:
                self._covered.add(pool)
                self._notes += [each for each in words if f"pool {pool}:" in each]
                return
            plans = plan_workers(with_devices(app, lacking), lacking, together=True)
            self._start([plan for plan in plans if pool in plan.pools])

    def _start(self, plans: Sequence[WorkerPlan]) -> None:
        pools = [name for plan in plans for name in plan.pools]
        self._covered.update(pools)
        words = ", ".join(pools)
        if not self._wanted:
            commands = "; ".join(f"agentq worker --pool {name}" for name in pools)
            self._notes.append(f"No worker serves {words}; the run waits for one: {commands}")
            return
        env = child_environment(self._session.source)
        self._tails |= {plan.name: deque(maxlen=TAIL_LINES) for plan in plans}
        self._company.add([Member(plan.name, partial(self._argv, plan), env) for plan in plans])
        number = "one worker" if len(plans) == 1 else f"{len(plans)} workers"
        self._notes.append(f"No worker serves {words}: started {number} for this run.")

    def _argv(self, plan: WorkerPlan) -> list[str]:
        self._labels.append(f"own-{uuid.uuid4().hex[:6]}" if len(plan.pools) > 1 else new_label(plan))
        return worker_argv(plan, self._session.celery_spec, label=self._labels[-1], log_level="WARNING")

    def _keep(self, name: str, line: str) -> None:
        with self._lock:
            self._tails[name].append(line)

    def _stop(self) -> None:
        """No worker of ours runs, and none is listed any more.

        One that does nothing is killed, because a pool's own farewell takes seconds; its leave is ours to say
        then, as it is known to be dead. Else the next command would take its lease for a worker that serves.
        """
        from agentq.core.errors import Unavailable

        cards = []
        with suppress(Unavailable):
            cards = [card for card in self._session.app.store.workers() if _label(card.label) in self._labels]
        busy = any(card.held for card in cards)
        self._company.stop(grace=GRACE if busy else timedelta(0))
        with suppress(Unavailable):
            for card in cards:
                self._session.app.store.leave(card.id)


def _label(name: str) -> str:
    return name.partition("@")[0]
