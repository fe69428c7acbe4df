"""Who waits for whom: priorities, starvation and tenants under load, beside stock Celery on the same load.

    python -m benchmarks.fairness --backlog 1000 --tenant-backlog 2000
    python -m benchmarks.fairness --broker amqp://guest:guest@localhost//

Eight worker processes (four workers of two) do steps of 0.1 s. Three loads, each by itself:

- inversion: behind a backlog of low steps, one high one every 0.2 s;
- starvation: twenty low steps, queued at once, behind a backlog of high ones;
- fairness: behind one tenant's backlog, four others that queue one step every 0.2 s each.

Slots waited: how many other steps began between a step's queueing and its own beginning, by this machine's clock.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from rich.console import Console
from rich.table import Table

from agentq.store.embedded import ensure_server
from benchmarks.apps import ADDRESS, TUNED, crowd
from benchmarks.processes import await_line, ended_afterwards, wait_for

WORKERS, PROCESSES = 4, 2
SECONDS = 0.1
"""Of one step: long enough that sending them is no matter."""

NUMBERS = {"redis": {"high": 3, "normal": 6, "low": 9}, "amqp": {"high": 6, "normal": 3, "low": 0}}
"""Stock Celery's numbers of these priorities: Redis and RabbitMQ count in opposite directions."""


@dataclass(frozen=True)
class Begun:
    """One step that has begun; times are seconds of this machine's clock."""

    lane: str
    tenant: str
    queued: float
    began: float


@dataclass(frozen=True)
class Row:
    """What the steps of one lane or tenant waited in one load."""

    load: str
    who: str
    contender: str
    steps: int
    median_slots: float
    p95_slots: float
    p95_ms: float


class Site:
    """One contender with its workers, in a database of the server."""

    def __init__(self, name: str, place: str, database: int, broker: str | None, folder: Path) -> None:
        self.name = name
        self.ours = name.startswith("agentq")
        self.broker = broker
        self.journal = folder / f"{database}.journal"
        url = f"{place.replace('unix://', 'redis+socket://')}?virtual_host={database}"
        self.environment = {
            ADDRESS: url,
            crowd.JOURNAL: str(self.journal),
            "C_FORCE_ROOT": "1",
            "AGENTQ_STATE_DIR": str(folder / "state"),
            "AGENTQ_ARCHIVE": "off",
            **({crowd.BROKER: broker} if broker else {}),
            **({crowd.OURS: "1"} if self.ours else {}),
            **({TUNED: "1"} if name == "stock tuned" else {}),
        }
        self.folder = folder
        self.client = redis.Redis.from_url(f"{place}?db={database}")
        with self._environment():
            self.app = importlib.reload(crowd).app

    @contextmanager
    def _environment(self) -> Iterator[None]:
        named = (ADDRESS, TUNED, crowd.BROKER, crowd.OURS)
        before = {name: os.environ.pop(name, None) for name in named}
        os.environ.update({name: value for name, value in self.environment.items() if name in named})
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    @contextmanager
    def workers(self) -> Iterator[None]:
        """Eight processes until the block ends."""
        with ExitStack() as stack:
            started = []
            for number in range(WORKERS):
                log = self.folder / f"{self.journal.stem}-{number}.log"
                argv = [sys.executable, "-m", "celery", "-A", "benchmarks.apps.crowd:app", "worker", "-l", "INFO"]
                argv += ["-P", "prefork", "-c", str(PROCESSES), "--without-gossip", "--without-mingle"]
                argv += ["-n", f"crowd{os.getpid()}-{self.journal.stem}-{number}@%h", "-Q", "idle"]
                process = stack.enter_context(ended_afterwards(argv, log=log, environment=self.environment))
                started.append((log, process))
            for log, process in started:
                await_line(log, " ready.", process)
            yield

    def consume(self, *, begin: bool) -> None:
        """Have the workers begin to take steps, or stop: what a load waits behind lies there first."""
        act = self.app.control.add_consumer if begin else self.app.control.cancel_consumer
        replies = act("celery", reply=True, timeout=30, limit=WORKERS)
        if len(replies) < WORKERS:
            raise RuntimeError(f"Only {len(replies)} of {WORKERS} workers have heard: {replies}")

    def queue(self, lane: str, tenant: str, count: int = 1) -> None:
        """Queue steps, one call each."""
        task = self.app.tasks["work"]
        if self.ours:
            task = task.using(priority=lane, tenant=tenant)
        numbers = NUMBERS["amqp" if self.broker else "redis"]
        options = {} if self.ours else {"priority": numbers[lane]}
        for _ in range(count):
            task.apply_async((lane, tenant, time.time(), SECONDS), **options)

    def begun(self) -> list[Begun]:
        """Return the steps that have begun so far."""
        if not self.journal.exists():
            return []
        return [Begun(*json.loads(line)) for line in self.journal.read_text().splitlines()]

    def await_begun(self, count: int) -> None:
        """Return when so many steps have begun."""
        wait_for(lambda: len(self.begun()) >= count, f"{count} steps of {self.name}", timeout=1800, pause=0.5)


def inversion(site: Site, backlog: int) -> list[Begun]:
    """Queue low steps, then a high one every fifth of a second."""
    site.queue("low", "one", backlog)
    site.consume(begin=True)
    site.await_begun(3 * WORKERS * PROCESSES)
    for _ in range(20):
        time.sleep(0.2)
        site.queue("high", "one")
    site.await_begun(backlog + 20)
    return site.begun()


def starvation(site: Site, backlog: int) -> list[Begun]:
    """Queue high steps, then twenty low ones behind them."""
    site.queue("high", "one", backlog)
    site.consume(begin=True)
    site.await_begun(3 * WORKERS * PROCESSES)
    site.queue("low", "one", 20)
    site.await_begun(backlog + 20)
    return site.begun()


def fairness(site: Site, backlog: int) -> list[Begun]:
    """Queue one tenant's steps, then those of four others one by one."""
    site.queue("normal", "big", backlog)
    site.consume(begin=True)
    site.await_begun(3 * WORKERS * PROCESSES)
    for _ in range(10):
        time.sleep(0.2)
        for tenant in ("a", "b", "c", "d"):
            site.queue("normal", tenant)
    site.await_begun(backlog + 40)
    return site.begun()


def rows_of(load: str, site: Site, begun: Sequence[Begun]) -> list[Row]:
    """Return what was waited, by tenant in the load of tenants, else by lane."""
    began = sorted(each.began for each in begun)

    def who(each: Begun) -> str:
        if load == "fairness":
            return "tenant with the backlog" if each.tenant == "big" else "four other tenants"
        return each.lane

    rows = []
    for name in sorted({who(each) for each in begun}):
        mine = [each for each in begun if who(each) == name]
        slots = [bisect_left(began, each.began) - bisect_right(began, each.queued) for each in mine]
        waits = [1000 * (each.began - each.queued) for each in mine]
        p95 = [statistics.quantiles(found, n=20, method="inclusive")[-1] for found in (slots, waits)]
        rows.append(Row(load, name, site.name, len(mine), statistics.median(slots), *p95))
    return rows


def measure(site: Site, backlog: int, tenant_backlog: int) -> list[Row]:
    """Return the rows of all loads."""
    rows = []
    with site.workers():
        # Each process has done something once before it counts.
        site.queue("normal", "warm", 4 * WORKERS * PROCESSES)
        site.consume(begin=True)
        site.await_begun(4 * WORKERS * PROCESSES)
        for load, act, count in (
            ("inversion", inversion, backlog),
            ("starvation", starvation, backlog),
            ("fairness", fairness, tenant_backlog),
        ):
            site.consume(begin=False)
            site.journal.unlink(missing_ok=True)
            rows += rows_of(load, site, act(site, count))
            time.sleep(2 * SECONDS)
    site.client.flushdb()
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backlog", type=int, default=1000, help="steps in the loads of lanes (default 1000)")
    parser.add_argument("--tenant-backlog", type=int, default=2000, help="steps of the one tenant (default 2000)")
    parser.add_argument("--broker", help="RabbitMQ's address; without one Redis is the broker")
    parser.add_argument("--only", action="append", help="a contender; all without it")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    console, rows = Console(), []
    names = [name for name in ("stock", "stock tuned", "agentq") if name in (arguments.only or [name])]
    with tempfile.TemporaryDirectory(prefix="agentq-bench-") as folder:
        place = ensure_server(Path(folder) / "server").url
        for database, name in enumerate(names):
            console.print(f"{name}: {arguments.backlog} and {arguments.tenant_backlog} steps", style="dim")
            site = Site(name, place, database, arguments.broker, Path(folder))
            rows += measure(site, arguments.backlog, arguments.tenant_backlog)
    console.print(table_of(rows, broker="RabbitMQ" if arguments.broker else "Redis"))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps([vars(row) for row in rows], indent=2) + "\n")


def table_of(rows: Sequence[Row], *, broker: str) -> Table:
    """Return the rows as a table, those of one load and kind together."""
    title = f"{broker}, {WORKERS * PROCESSES} processes, steps of {1000 * SECONDS:.0f} ms"
    table = Table("load", "steps of", "contender", "steps", "slots waited", "p95", "p95 ms", title=title)
    for row in sorted(rows, key=lambda row: (row.load, row.who)):
        figures = (f"{row.median_slots:.0f}", f"{row.p95_slots:.0f}", f"{row.p95_ms:.0f}")
        table.add_row(row.load, row.who, row.contender, str(row.steps), *figures)
    return table


if __name__ == "__main__":
    main()
