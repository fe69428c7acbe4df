"""What is measured: each measure takes one reading of one contender at a time, so that rounds can be interleaved."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from celery import exceptions

from benchmarks.contenders import ASIDE, BACKLOG, Contender, drain_floor
from benchmarks.floor import QUEUE
from benchmarks.processes import compiled, resident_bytes, wait_for


@dataclass(frozen=True)
class Above:
    """A figure of which only this is known: its reading was ended when it had come so far."""

    value: float


Reading = dict[str, float | Above]
"""Figures of one reading, by name."""

LIMIT_S = 120.0
"""So long one reading of a contender may take, unless its measure says otherwise."""


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: key in a reading.
        title: what it is, with its unit.
        higher_is_better: False for times and bytes.
        targets: by contender, the ratio to stock that is aimed at.
        at_most: the figure itself that is aimed at, where no ratio is.
    """

    name: str
    title: str
    higher_is_better: bool = False
    targets: Mapping[str, float] = field(default_factory=dict)
    at_most: float | None = None


@dataclass(frozen=True)
class Measure:
    """One measurement.

    Attributes:
        name: as on the command line.
        what: one sentence.
        figures: what a reading holds.
        read: takes one reading; the worker's process id is 0 where none runs.
        contenders: names of those that take part.
        alone: no other worker runs meanwhile; the reading starts its own where it needs one.
        most_rounds: so many are enough for what takes long, or hardly changes.
        limit_s: so long a reading may wait; a contender that takes longer is not read again.
    """

    name: str
    what: str
    figures: tuple[Figure, ...]
    read: Callable[[Contender, int], Reading]
    contenders: tuple[str, ...]
    alone: bool = False
    most_rounds: int = 1_000
    limit_s: float = LIMIT_S


NO_OPS = 2_000

BACKLOG_SIZE = 4_000


def _filled(contender: Contender, _pid: int) -> Reading:
    """Fill the queue, then let the worker begin; timed from the first result on.

    A worker that is told of a new queue waits on its old ones for up to a second more, stock Celery's and ours.
    """
    size = contender.sized(BACKLOG_SIZE)
    if not contender.is_celery:
        began = time.perf_counter()
        contender.submit_batch(size * 5, queue=QUEUE)
        drain_floor(contender, size * 5)
        return {"rate": size * 5 / (time.perf_counter() - began)}
    ids = contender.submit("nothing", [()] * size, queue=BACKLOG)
    with contender.consuming(BACKLOG):
        contender.await_results(ids[:1], pause=0.001)
        began = time.perf_counter()
        contender.await_results(ids)
        return {"rate": size / (time.perf_counter() - began)}


def _producing(contender: Contender, _pid: int) -> Reading:
    size = contender.sized(NO_OPS)
    began = time.perf_counter()
    if contender.is_celery:
        contender.await_results(contender.submit("nothing", [()] * size))
    else:
        contender.submit_singly(size, queue=QUEUE)
        drain_floor(contender, size)
    return {"rate": size / (time.perf_counter() - began)}


def _latency(contender: Contender, _pid: int) -> Reading:
    taken = []
    for _ in range(contender.sized(300)):
        began = time.perf_counter()
        contender.round_trip()
        taken.append((time.perf_counter() - began) * 1000)
    taken.sort()
    return {"p50": taken[len(taken) // 2], "p99": taken[int(len(taken) * 0.99)]}


def _one_run(how: Literal["dispatched", "local"]) -> Callable[[Contender, int], Reading]:
    def read(contender: Contender, _pid: int) -> Reading:
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            contender.runs_of_twenty(how, 1)
            taken.append((time.perf_counter() - began) * 1000 / 20)
        return {"step": statistics.median(taken)}

    return read


def _fifty_runs(how: Literal["dispatched", "local"]) -> Callable[[Contender, int], Reading]:
    def read(contender: Contender, _pid: int) -> Reading:
        runs = contender.sized(50)
        began = time.perf_counter()
        contender.runs_of_twenty(how, runs)
        return {"runs": runs / (time.perf_counter() - began)}

    return read


def _timed(call: Callable[[], None]) -> float | Above:
    """Return how many seconds a call takes; what is known of them where the reading's limit ends it."""
    began = time.perf_counter()
    try:
        call()
    except (TimeoutError, exceptions.TimeoutError):
        return Above(time.perf_counter() - began)
    return time.perf_counter() - began


def _fan_out(contender: Contender, _pid: int) -> Reading:
    thousand = _timed(lambda: contender.fan_out(contender.sized(1_000)))
    if isinstance(thousand, Above):
        # Ten times as many take no less.
        return {"thousand": thousand, "ten": thousand}
    contender.clean()
    ten = _timed(lambda: contender.fan_out(contender.sized(10_000)))
    growth = Above(ten.value / thousand) if isinstance(ten, Above) else ten / thousand
    return {"thousand": thousand, "ten": ten, "growth": growth}


def _body(contender: Contender, _pid: int) -> Reading:
    return {"bytes": contender.body_message(contender.sized(10_000))}


def _producer(contender: Contender, _pid: int) -> Reading:
    size = contender.sized(1_000)
    began = time.perf_counter()
    contender.submit_batch(size, queue=ASIDE)
    batch = time.perf_counter() - began
    began = time.perf_counter()
    contender.submit_singly(size, queue=ASIDE)
    return {"batch": size / batch, "single": size / (time.perf_counter() - began)}


def _asleep(contender: Contender, _pid: int) -> Reading:
    return {"seconds": _timed(lambda: contender.asleep(contender.sized(1_000)))}


PARKED = 500


def _parked(contender: Contender, _pid: int) -> Reading:
    waiting = contender.app.agents["waiting"]
    before = int(contender.client.info("memory")["used_memory"])
    handles = [waiting.start() for _ in range(contender.sized(PARKED))]
    wait_for(lambda: all(handle.status() == "parked" for handle in handles[-50:]), "the last runs to park", pause=0.2)
    wait_for(lambda: all(handle.status() == "parked" for handle in handles), "all runs to park", pause=0.5)
    size = (int(contender.client.info("memory")["used_memory"]) - before) / len(handles)
    taken = []
    for handle in handles[:50]:
        began = time.perf_counter()
        handle.signal("go", "on")
        handle.get(timeout=contender.left_s)
        taken.append((time.perf_counter() - began) * 1000)
    for handle in handles[50:]:
        handle.signal("go", "on")
    for handle in handles[50:]:
        handle.get(timeout=contender.left_s)
    return {"bytes": size, "wake": statistics.median(taken)}


def _traffic(contender: Contender, _pid: int) -> Reading:
    """Commands that reach the server, and reads of its sockets, for each no-op of a filled queue."""
    size = contender.sized(500 if contender.is_celery else 5_000)
    queue = BACKLOG if contender.is_celery else QUEUE
    with contender.worker():
        if contender.is_celery:
            ids = contender.submit("nothing", [()] * size, queue=queue)
        before = contender.client.info("stats")
        if contender.is_celery:
            with contender.consuming(queue):
                contender.await_results(ids)
        else:
            contender.submit_batch(size, queue=queue)
            drain_floor(contender, size)
        after = contender.client.info("stats")
    return {
        "commands": (after["total_commands_processed"] - before["total_commands_processed"]) / size,
        "reads": (after["total_reads_processed"] - before["total_reads_processed"]) / size,
    }


def _process(contender: Contender, _pid: int) -> Reading:
    """Start a worker, have it run something, and look at its memory."""
    with contender.worker():
        time.sleep(0.1)  # Its modules are compiled now.
    began = time.perf_counter()
    with contender.worker() as pid:
        if not contender.is_celery:
            # It says nothing: it is ready when it has served.
            contender.round_trip()
        ready_after = time.perf_counter() - began
        for _ in range(20):
            contender.round_trip()
        # The floor's processes have no parent in common, and are all alike.
        size = resident_bytes(pid) * (1 if contender.is_celery else contender.concurrency)
    package = {"durable": "agentq", "floor": "redis"}.get(contender.kind, "celery")
    timed = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {package}"], check=True, env=compiled(contender.folder))
        timed.append(time.perf_counter() - began)
    return {"worker": ready_after, "import": statistics.median(timed), "megabytes": size / 1e6}


CELERIES = ("stock", "tuned", "agentq")
ALL = (*CELERIES, "floor")

MEASURES: tuple[Measure, ...] = (
    Measure(
        "process",
        "From the command to a worker of two children, or threads, that is ready; its memory (PSS); a fresh import.",
        (
            Figure("worker", "worker ready after, s"),
            Figure("megabytes", "idle worker, MB"),
            Figure("import", "import, s"),
        ),
        _process,
        contenders=(*CELERIES, "agentq threads", "floor"),
        alone=True,
        most_rounds=3,
    ),
    Measure(
        "traffic",
        "What a no-op step costs the server, the worker's lease and events included.",
        (
            Figure("commands", "commands per step, those within scripts too"),
            Figure("reads", "reads of the server's sockets per step"),
        ),
        _traffic,
        contenders=ALL,
        alone=True,
        most_rounds=1,
    ),
    Measure(
        "throughput",
        "No-op steps per second; the queue is filled first.",
        (
            Figure(
                "rate",
                "no-op steps/s, queue filled first",
                higher_is_better=True,
                targets={"agentq": 2.5, "agentq threads": 3.0},
            ),
        ),
        _filled,
        contenders=(*CELERIES, "agentq threads", "floor"),
    ),
    Measure(
        "producing",
        "No-op steps per second while one producer sends them one by one.",
        (Figure("rate", "no-op steps/s while producing", higher_is_better=True),),
        _producing,
        contenders=(*CELERIES, "agentq threads", "floor"),
    ),
    Measure(
        "latency",
        "From submission to the result of a no-op, one at a time.",
        (
            Figure("p50", "submit to result, p50, ms", targets={"agentq": 0.6}),
            Figure("p99", "submit to result, p99, ms"),
        ),
        _latency,
        contenders=(*CELERIES, "agentq threads", "floor"),
    ),
    Measure(
        "run-dispatched",
        "One run of 20 steps in sequence, each sent to a worker; a chain in stock Celery.",
        (Figure("step", "20 dispatched steps, one run, ms per step", targets={"agentq": 0.7}),),
        _one_run("dispatched"),
        contenders=ALL,
    ),
    Measure(
        "run-local",
        "One run of 20 journaled calls in place; a chain in stock Celery.",
        (Figure("step", "20 local steps, one run, ms per step", targets={"agentq": 0.2}),),
        _one_run("local"),
        contenders=ALL,
    ),
    Measure(
        "runs-dispatched",
        "50 runs of 20 dispatched steps at once.",
        (Figure("runs", "50 runs of 20 dispatched steps, runs/s", higher_is_better=True),),
        _fifty_runs("dispatched"),
        contenders=ALL,
        most_rounds=3,
    ),
    Measure(
        "runs-local",
        "50 runs of 20 local steps at once; chains in stock Celery.",
        (Figure("runs", "50 runs of 20 local steps, runs/s", higher_is_better=True, targets={"agentq": 8.0}),),
        _fifty_runs("local"),
        contenders=ALL,
    ),
    Measure(
        "producer",
        "How fast one producer queues 1,000 no-ops: in one batch (a group), and one by one.",
        (
            Figure("batch", "producer, batch of 1,000, steps/s", higher_is_better=True, targets={"agentq": 3.0}),
            Figure("single", "producer, one by one, steps/s", higher_is_better=True),
        ),
        _producer,
        contenders=ALL,
    ),
    Measure(
        "async",
        "1,000 steps that wait for a second, one group, one worker process; stock Celery with as many threads.",
        (Figure("seconds", "1,000 waits of 1 s, one process, s", at_most=3.0),),
        _asleep,
        contenders=("stock wide", "agentq wide", "floor wide"),
        most_rounds=3,
    ),
    Measure(
        "fan-out",
        "A fan-out of 1,000 and of 10,000, and a join that sums; a chord in stock Celery.",
        (
            Figure("thousand", "fan-out of 1,000 and join, s"),
            Figure("ten", "fan-out of 10,000 and join, s", targets={"agentq": 0.2}),
            Figure("growth", "time for 10,000 over time for 1,000", at_most=10.5),
        ),
        _fan_out,
        contenders=(*CELERIES, "agentq threads", "floor"),
        most_rounds=3,
        limit_s=90.0,
    ),
    Measure(
        "body",
        "The message that starts the body of a chord of 10,000 results of 1 KB.",
        (Figure("bytes", "message that starts the body, bytes", at_most=2048.0),),
        _body,
        contenders=("stock", "agentq"),
        most_rounds=1,
    ),
    Measure(
        "parked",
        f"{PARKED:,} runs that wait for a signal.",
        (
            Figure("bytes", "a parked run, bytes of the server"),
            Figure("wake", "signal to the end of a parked run, p50, ms"),
        ),
        _parked,
        contenders=("agentq",),
        most_rounds=3,
    ),
)
