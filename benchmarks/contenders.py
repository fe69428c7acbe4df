"""Who is measured: stock Celery, stock Celery tuned, agentq, and the bare floor, each in a database of one server."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import redis
from celery import chain, chord, group

from benchmarks.apps import ADDRESS, TUNED, durable, stock
from benchmarks.floor import ASLEEP, DONE, QUEUE
from benchmarks.processes import await_line, celery_worker, ended_afterwards, wait_for

Kind = Literal["stock", "tuned", "durable", "floor"]

PROCESSES = 2
"""Worker processes of a contender, unless a measure says otherwise."""

BACKLOG = "backlog"
"""The queue that is filled before a worker is told of it."""

ASIDE = "aside"
"""A queue that nobody serves: what a producer sends stays there, and is counted or measured there."""


@dataclass
class Contender:
    """One that is measured.

    Attributes:
        name: on the command line.
        column: as the tables show it.
        kind: which app it runs.
        place: the server's address in redis-py's spelling, without a database.
        database: its own database of the server.
        folder: for the logs of its workers.
        pool: Celery's pool.
        concurrency: processes or threads of the pool.
        scale: by which the sizes of what is measured are multiplied.
        limit_s: so long one reading may take; what it waits for then is a TimeoutError.
    """

    name: str
    kind: Kind
    place: str
    database: int
    folder: Path
    pool: str = "prefork"
    concurrency: int = PROCESSES
    column: str = ""
    scale: float = 1.0
    limit_s: float = 300.0
    _until: float = field(default=float("inf"), repr=False)
    _app: Any = field(default=None, repr=False)
    _client: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.column = self.column or self.name

    def begin(self, limit_s: float) -> None:
        """Have a reading begin, which may take ``limit_s``."""
        self.limit_s, self._until = limit_s, time.monotonic() + limit_s

    @property
    def left_s(self) -> float:
        """How long the reading may still wait."""
        return max(0.1, self._until - time.monotonic()) if self._until != float("inf") else self.limit_s

    def sized(self, size: int) -> int:
        """Return how many of something are measured where ``size`` is the usual number."""
        return max(2, int(size * self.scale))

    @property
    def url(self) -> str:
        """The database, as redis-py spells it."""
        return f"{self.place}?db={self.database}"

    @property
    def celery_url(self) -> str:
        """The database, as Celery spells it."""
        return self.url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")

    @property
    def is_celery(self) -> bool:
        """All but the floor run Celery workers."""
        return self.kind != "floor"

    @property
    def client(self) -> Any:
        """A plain client of the contender's database."""
        if self._client is None:
            self._client = redis.Redis.from_url(self.url, socket_timeout=None)
        return self._client

    @property
    def app(self) -> Any:
        """The contender's app in this process, from which it is driven."""
        if self._app is None:
            if self.kind == "durable":
                self._app = durable.make(self.celery_url)
            else:
                self._app = stock.make(self.celery_url, tuned=self.kind == "tuned")
            self._app.finalize()
        return self._app

    def task(self, name: str) -> Any:
        """The task or step of this name."""
        return self.app.tasks[name]

    def clean(self) -> None:
        """Delete what runs and queues have left, so that rounds do not add up; workers keep their records."""
        left = [key for key in self.client.scan_iter(count=10_000) if _is_left(key)]
        for at in range(0, len(left), 1_000):
            self.client.unlink(*left[at : at + 1_000])

    @contextlib.contextmanager
    def worker(self) -> Iterator[int]:
        """A worker until the block ends, on the default queue; yields its process id."""
        log = self.folder / f"{self.name.replace(' ', '-')}-{time.monotonic_ns()}.log"
        if not self.is_celery:
            yield from self._floor_workers(log)
            return
        app = f"benchmarks.apps.{'durable' if self.kind == 'durable' else 'stock'}:app"
        environment = {ADDRESS: self.celery_url, "C_FORCE_ROOT": "1"}
        if self.kind == "tuned":
            environment[TUNED] = "1"
        argv = celery_worker(app, pool=self.pool, concurrency=self.concurrency, queues="celery")
        with ended_afterwards(argv, log=log, environment=environment) as process:
            await_line(log, " ready.", process)
            yield process.pid

    def _floor_workers(self, log: Path) -> Iterator[int]:
        argv = [sys.executable, "-m", "benchmarks.floor", self.url]
        wide = ["async"] if self.concurrency > PROCESSES else []
        with contextlib.ExitStack() as stack:
            for _ in range(1 if wide else self.concurrency):
                process = stack.enter_context(ended_afterwards([*argv, *wide], log=log, environment={}))
            yield process.pid

    @contextlib.contextmanager
    def consuming(self, queue: str) -> Iterator[None]:
        """Until the block ends the worker serves this queue too, from the moment that the block begins."""
        self.app.control.add_consumer(queue, reply=True, timeout=10, limit=1)
        try:
            yield
        finally:
            self.app.control.cancel_consumer(queue, reply=True, timeout=10, limit=1)

    # What is done with it. Each returns when the work is done, and checks that it was.

    def submit(self, name: str, arguments: Sequence[Any], *, queue: str | None = None) -> list[str]:
        """One task per argument is queued, one call each; returns the ids."""
        task, options = self.task(name), {"queue": queue} if queue else {}
        return [task.apply_async(argument, **options).id for argument in arguments]

    def await_results(self, ids: Sequence[str], *, pause: float = 0.02) -> None:
        """Return when each id has a result. Looks at the server alone, every ``pause`` seconds: it disturbs nobody."""
        keys = [f"celery-task-meta-{name}" for name in ids]

        def all_there() -> bool:
            # From the last one: while it is missing one command is enough.
            if not self.client.exists(keys[-1]):
                return False
            found = sum(self.client.exists(*keys[at : at + 1000]) for at in range(0, len(keys), 1000))
            return bool(found == len(keys))

        wait_for(all_there, f"{len(ids)} results of {self.name}", pause=pause, timeout=self.left_s)

    def round_trip(self) -> None:
        """One no-op, from submission to its result."""
        if self.kind == "floor":
            self.client.lpush(QUEUE, "one|0")
            self.client.brpop(DONE)
        else:
            self.task("nothing").delay().get(timeout=self.left_s)

    def runs_of_twenty(self, how: Literal["dispatched", "local"], number: int) -> None:
        """``number`` runs of 20 steps in sequence, all at once: chains, or agents with dispatched or local steps."""
        if self.kind == "floor":
            self._floor_runs(how, number)
            return
        if self.kind == "durable":
            handles = [self.app.agents[how].start() for _ in range(number)]
            results = [handle.get(timeout=self.left_s) for handle in handles]
        else:
            increment = self.task("increment")
            links = [increment.s(0)] + [increment.s() for _ in range(durable.STEPS_OF_A_RUN - 1)]
            chains = [chain(*links).apply_async() for _ in range(number)]
            results = [last.get(timeout=self.left_s) for last in chains]
        _expect(results, [durable.STEPS_OF_A_RUN] * number)

    def _floor_runs(self, how: str, number: int) -> None:
        client = self.client
        if how == "local":
            # The least that a journal can do: each step's result is written before the next begins.
            for run in range(number):
                for step in range(durable.STEPS_OF_A_RUN):
                    client.rpush(f"floor:log:{run}", step)
                client.delete(f"floor:log:{run}")
            return
        for run in range(number):
            client.lpush(QUEUE, f"run{run}|{durable.STEPS_OF_A_RUN - 1}")
        for _ in range(number):
            client.brpop(DONE)

    def fan_out(self, size: int) -> None:
        """``size`` tasks at once, and their sum, which is checked."""
        if self.kind == "floor":
            pipe = self.client.pipeline(transaction=False)
            for number in range(size):
                pipe.lpush(QUEUE, f"{number}|0")
            pipe.execute()
            for _ in range(size):
                self.client.brpop(DONE)
            return
        if self.kind == "durable":
            result = self.app.agents["fan"].start(size).get(timeout=self.left_s)
        else:
            header = group(self.task("identity").s(number) for number in range(size))
            # Left to follow the parents, the wait looks at all of them at each one's end: quadratic, and no part of
            # what the workers do.
            result = chord(header)(self.task("total").s()).get(timeout=self.left_s, follow_parents=False)
        _expect(result, sum(range(size)))

    def submit_batch(self, size: int, *, queue: str) -> None:
        """``size`` no-ops in one batch, as each does it best: a group."""
        if self.kind == "floor":
            pipe = self.client.pipeline(transaction=False)
            for number in range(size):
                pipe.lpush(queue, f"{number}|0")
            pipe.execute()
            return
        nothing = self.task("nothing")
        group(nothing.s().set(queue=queue) for _ in range(size)).apply_async()

    def submit_singly(self, size: int, *, queue: str) -> None:
        """``size`` no-ops, one call each."""
        if self.is_celery:
            self.submit("nothing", [()] * size, queue=queue)
            return
        for number in range(size):
            self.client.lpush(queue, f"{number}|0")

    def body_message(self, size: int) -> int:
        """The bytes of the message that starts a chord's body, after ``size`` parts with a result of 1 KB each."""
        header = group(self.task("payload").s(number) for number in range(size))
        chord(header)(self.task("length").s().set(queue=ASIDE))
        lanes = [ASIDE] + [f"{ASIDE}\x06\x16{priority}" for priority in (3, 6, 9)]
        wait_for(
            lambda: any(self.client.llen(lane) for lane in lanes),
            f"the body of {self.name}",
            pause=0.05,
            timeout=self.left_s,
        )
        return max(len(message) for lane in lanes for message in self.client.lrange(lane, 0, -1))

    def asleep(self, size: int) -> None:
        """``size`` tasks that wait for a second each, at once: sent as one group, so that the last one is in time."""
        if self.is_celery:
            pause = self.task("pause")
            sent = group(pause.s(1.0) for _ in range(size)).apply_async()
            self.await_results([each.id for each in sent.results])
            return
        pipe = self.client.pipeline(transaction=False)
        for number in range(size):
            pipe.lpush(ASLEEP, f"{number}|0")
        pipe.execute()
        drain_floor(self, size)


def _is_left(key: bytes) -> bool:
    names = (b"celery-task-meta-", b"floor:", BACKLOG.encode(), ASIDE.encode(), b"celery-taskset-meta-")
    return b"{" in key or key.startswith(names)


def drain_floor(contender: Contender, size: int) -> None:
    """Wait until ``size`` messages of the floor have ended."""
    for _ in range(size):
        contender.client.brpop(DONE)


def _expect(found: Any, wanted: Any) -> None:
    if found != wanted:
        raise AssertionError(f"A contender computed {found!r} instead of {wanted!r}: its figure would mean nothing.")
