"""What is measured: each measure takes one reading of one contender at a time, so that rounds can be interleaved."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from benchmarks.contenders import Contender, drain_floor
from benchmarks.processes import resident_bytes, wait_for

Reading = dict[str, float]
"""Figures of one reading, by name."""

Needs = Literal["consuming", "held", "none"]


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: key in a reading.
        title: what it is, with its unit.
        higher_is_better: False for times and bytes.
        target: the ratio to stock that is aimed at; None where there is none.
    """

    name: str
    title: str
    higher_is_better: bool = False
    target: float | None = None


@dataclass(frozen=True)
class Measure:
    """One measurement.

    Attributes:
        name: as on the command line.
        what: one sentence.
        figures: what a reading holds.
        read: takes one reading; the worker's process id is 0 where none runs.
        worker: ``consuming`` from the start, ``held`` back until told, or ``none``.
        contenders: names of those that take part; empty for all.
    """

    name: str
    what: str
    figures: tuple[Figure, ...]
    read: Callable[[Contender, int], Reading]
    worker: Needs = "consuming"
    contenders: tuple[str, ...] = ()


@contextmanager
def ready(measure: Measure, contender: Contender) -> Iterator[int]:
    """What a reading needs is there until the block ends: a warm worker, or nothing."""
    with ExitStack() as stack:
        pid = 0
        if measure.worker != "none":
            pid = stack.enter_context(
                contender.worker(consuming=measure.worker == "consuming" or not contender.is_celery)
            )
        if measure.worker == "consuming":
            for _ in range(20):
                contender.round_trip()
        yield pid


NO_OPS = 3_000


def _filled(contender: Contender, _pid: int) -> Reading:
    """Fill the queue, then let the worker begin."""
    if not contender.is_celery:
        with_backlog = NO_OPS * 3
        began = time.perf_counter()
        contender.submit_batch(with_backlog)
        drain_floor(contender, with_backlog)
        return {"rate": with_backlog / (time.perf_counter() - began)}
    ids = contender.submit("nothing", [()] * NO_OPS)
    with contender.worker(consuming=False):
        # The worker warms its children on a few before the backlog is opened.
        began = time.perf_counter()
        contender.consume()
        contender.await_results(ids)
        return {"rate": NO_OPS / (time.perf_counter() - began)}


def _producing(contender: Contender, _pid: int) -> Reading:
    began = time.perf_counter()
    if contender.is_celery:
        contender.await_results(contender.submit("nothing", [()] * NO_OPS))
    else:
        for number in range(NO_OPS):
            contender.client.lpush("floor", f"{number}|0")
        drain_floor(contender, NO_OPS)
    return {"rate": NO_OPS / (time.perf_counter() - began)}


def _latency(contender: Contender, _pid: int) -> Reading:
    taken = []
    for _ in range(300):
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
        began = time.perf_counter()
        contender.runs_of_twenty(how, 50)
        return {"runs": 50 / (time.perf_counter() - began)}

    return read


def _fan_out(size: int) -> Callable[[Contender, int], Reading]:
    def read(contender: Contender, _pid: int) -> Reading:
        began = time.perf_counter()
        contender.fan_out(size)
        taken = time.perf_counter() - began
        contender.flush_results()
        return {"seconds": taken}

    return read


def _producer(contender: Contender, _pid: int) -> Reading:
    began = time.perf_counter()
    contender.submit_batch(1_000)
    batch = time.perf_counter() - began
    began = time.perf_counter()
    if contender.is_celery:
        contender.submit("nothing", [()] * 1_000)
    else:
        for number in range(1_000):
            contender.client.lpush("floor", f"{number}|0")
    single = time.perf_counter() - began
    contender.flush()
    return {"batch": 1_000 / batch, "single": 1_000 / single}


def _asleep(contender: Contender, _pid: int) -> Reading:
    began = time.perf_counter()
    contender.await_results(contender.submit("pause", [(1.0,)] * 1_000))
    return {"seconds": time.perf_counter() - began}


PARKED = 1_000


def _parked(contender: Contender, _pid: int) -> Reading:
    waiting = contender.app.agents["waiting"]
    before = int(contender.client.info("memory")["used_memory"])
    handles = [waiting.start() for _ in range(PARKED)]
    wait_for(lambda: all(handle.status() == "parked" for handle in handles[-50:]), "the last runs to park", pause=0.2)
    wait_for(lambda: all(handle.status() == "parked" for handle in handles), "all runs to park", pause=0.5)
    size = (int(contender.client.info("memory")["used_memory"]) - before) / PARKED
    taken = []
    for handle in handles[:50]:
        began = time.perf_counter()
        handle.signal("go", "on")
        handle.get(timeout=60)
        taken.append((time.perf_counter() - began) * 1000)
    for handle in handles[50:]:
        handle.signal("go", "on")
    for handle in handles[50:]:
        handle.get(timeout=60)
    contender.flush_results()
    return {"bytes": size, "wake": statistics.median(taken)}


def _traffic(contender: Contender, _pid: int) -> Reading:
    """Commands that reach the server, and reads of its sockets, for each no-op of a filled queue."""
    size = 500
    ids = contender.submit("nothing", [()] * size)
    with contender.worker(consuming=False):
        before = contender.client.info("stats")
        contender.consume()
        contender.await_results(ids)
        after = contender.client.info("stats")
    return {
        "commands": (after["total_commands_processed"] - before["total_commands_processed"]) / size,
        "reads": (after["total_reads_processed"] - before["total_reads_processed"]) / size,
    }


def _memory(contender: Contender, pid: int) -> Reading:
    return {"megabytes": resident_bytes(pid) / 1e6}


def _start(contender: Contender, _pid: int) -> Reading:
    began = time.perf_counter()
    with contender.worker():
        ready_after = time.perf_counter() - began
    package = "agentq" if contender.kind == "durable" else "celery"
    timed = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {package}"], check=True)
        timed.append(time.perf_counter() - began)
    return {"worker": ready_after, "import": statistics.median(timed)}


CELERIES = ("stock", "tuned", "agentq")

MEASURES: tuple[Measure, ...] = (
    Measure(
        "throughput",
        "No-op steps per second; the queue is filled first.",
        (Figure("rate", "no-op steps/s, queue filled first", higher_is_better=True, target=2.5),),
        _filled,
        worker="none",
        contenders=(*CELERIES, "agentq threads"),
    ),
    Measure(
        "producing",
        "No-op steps per second while one producer sends them.",
        (Figure("rate", "no-op steps/s while producing", higher_is_better=True),),
        _producing,
        contenders=(*CELERIES, "agentq threads", "floor"),
    ),
    Measure(
        "latency",
        "From submission to the result of a no-op, one at a time.",
        (
            Figure("p50", "submit to result, p50, ms", target=0.6),
            Figure("p99", "submit to result, p99, ms"),
        ),
        _latency,
    ),
    Measure(
        "run-dispatched",
        "One run of 20 steps in sequence, each sent to a worker; a chain in stock Celery.",
        (Figure("step", "20 dispatched steps, one run, ms per step", target=0.7),),
        _one_run("dispatched"),
    ),
    Measure(
        "run-local",
        "One run of 20 journaled calls in place; a chain in stock Celery.",
        (Figure("step", "20 local steps, one run, ms per step", target=0.2),),
        _one_run("local"),
    ),
    Measure(
        "runs-dispatched",
        "50 runs of 20 dispatched steps at once.",
        (Figure("runs", "50 runs of 20 dispatched steps, runs/s", higher_is_better=True),),
        _fifty_runs("dispatched"),
    ),
    Measure(
        "runs-local",
        "50 runs of 20 local steps at once; chains in stock Celery.",
        (Figure("runs", "50 runs of 20 local steps, runs/s", higher_is_better=True, target=8.0),),
        _fifty_runs("local"),
    ),
    Measure(
        "fan-out-1000",
        "A fan-out of 1,000 and a join that sums; a chord in stock Celery.",
        (Figure("seconds", "fan-out of 1,000 and join, s"),),
        _fan_out(1_000),
    ),
    Measure(
        "fan-out-10000",
        "A fan-out of 10,000 and a join that sums; a chord in stock Celery.",
        (Figure("seconds", "fan-out of 10,000 and join, s", target=0.2),),
        _fan_out(10_000),
    ),
    Measure(
        "producer",
        "How fast one producer queues 1,000 no-ops: in one batch (a group), and one by one.",
        (
            Figure("batch", "producer, batch of 1,000, steps/s", higher_is_better=True, target=3.0),
            Figure("single", "producer, one by one, steps/s", higher_is_better=True),
        ),
        _producer,
        worker="none",
    ),
    Measure(
        "async",
        "1,000 steps that wait for a second, on one worker process; stock Celery with as many threads.",
        (Figure("seconds", "1,000 waits of 1 s, one process, s"),),
        _asleep,
        contenders=("stock wide", "agentq wide"),
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
    ),
    Measure(
        "traffic",
        "What a no-op step costs the server, the worker's lease and events included.",
        (
            Figure("commands", "commands per step, those within scripts too"),
            Figure("reads", "socket reads of the server per step"),
        ),
        _traffic,
        worker="none",
        contenders=CELERIES,
    ),
    Measure(
        "memory",
        "Memory of an idle worker with two children (PSS).",
        (Figure("megabytes", "idle worker, MB"),),
        _memory,
        contenders=("stock", "agentq"),
    ),
    Measure(
        "start",
        "From the command to a worker that is ready; and a fresh import.",
        (Figure("worker", "worker ready after, s"), Figure("import", "import, s")),
        _start,
        worker="none",
        contenders=("stock", "agentq"),
    ),
)
