"""Workers that `agentq run` starts for itself when nobody serves what the agent needs."""

from __future__ import annotations

import threading
from collections import deque
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from agentq.cli.catalogue import pools_of, unserved
from agentq.cli.errors import CommandRefused
from agentq.cli.processes import Company, Member
from agentq.cli.workers import child_environment, plan_workers, worker_argv

if TYPE_CHECKING:
    from agentq.cli.session import Session

GRACE = timedelta(seconds=5)
"""The run has ended: what a worker still does is nothing of it that counts."""
TAIL_LINES = 12
"""Lines of a worker's output kept, to be told when it dies at the start."""


class OwnWorkers:
    """The workers of one command, stopped at its end."""

    def __init__(self, session: Session, *, wanted: bool) -> None:
        self._session = session
        self._wanted = wanted
        self._company: Company | None = None
        self._tails: dict[str, deque[str]] = {}
        self._notes: list[str] = []
        self._lock = threading.Lock()

    def __enter__(self) -> OwnWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._company is not None:
            self._company.stop(grace=GRACE)

    def start_missing(self, agent: str) -> None:
        """Each pool that the agent may need is served, by workers of somebody else or by ours."""
        app = self._session.app
        lacking = unserved(app, pools_of(app, agent))
        if not lacking:
            return
        words = ", ".join(lacking)
        if not self._wanted:
            self._notes.append(
                f"No worker serves {words}; the run waits for one: "
                + "; ".join(f"agentq worker --pool {name}" for name in lacking)
            )
            return
        plans = plan_workers(app.pools, lacking, together=True)
        env, spec = child_environment(self._session.source), self._session.celery_spec
        members = [Member(plan.name, partial(worker_argv, plan, spec, log_level="WARNING"), env) for plan in plans]
        self._tails = {member.name: deque(maxlen=TAIL_LINES) for member in members}
        self._company = Company(members, write_line=self._keep)
        self._company.start()
        number = "one worker" if len(members) == 1 else f"{len(members)} workers"
        self._notes.append(f"No worker serves {words}: started {number} for this run.")

    def tend(self) -> list[str]:
        """What has to be said since the last call; refused with its words if a worker died."""
        if self._company is not None:
            for member in self._company.tend():
                tail = "\n".join(f"  {line}" for line in self._tails[member.name])
                raise CommandRefused(f"The worker for {member.name} that this command started has died:\n{tail}")
        notes, self._notes = self._notes, []
        return notes

    def _keep(self, name: str, line: str) -> None:
        with self._lock:
            self._tails[name].append(line)
