"""What parked runs cost the others: latency of a no-op step on an idle system, and while runs are parked.

    python -m benchmarks.parked_latency --parked 100 --rounds 5

Both are measured in turn, round by round, on one server and one worker; the ratio of the medians is what counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentq import AgentQ, Run
from agentq.store.embedded import ensure_server
from benchmarks.place import state_folder

STATE = state_folder()

app = AgentQ("benchmarks.parked_latency")


@app.step
def nothing() -> None:
    """The step that is measured."""


@app.agent
async def waits(run: Run) -> None:
    """The run that is parked."""
    await run.wait_for("go")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parked", type=int, default=100, help="runs that wait meanwhile (default 100)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="steps measured a round and state")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    with worker() as process:
        for _ in range(50):
            nothing.delay().get(timeout=30)
        idle, busy = [], []
        for number in range(arguments.rounds):
            idle.append(median_ms(arguments.steps))
            handles = [waits.start() for _ in range(arguments.parked)]
            while any(handle.status() != "parked" for handle in handles):
                time.sleep(0.2)
            children, threads = held_by(process.pid)
            busy.append(median_ms(arguments.steps))
            for handle in handles:
                handle.signal("go")
            for handle in handles:
                handle.get(timeout=60)
            print(f"round {number + 1}: idle {idle[-1]:.2f} ms, {arguments.parked} parked {busy[-1]:.2f} ms")
    ratio = statistics.median(busy) / statistics.median(idle)
    figures = {
        "parked": arguments.parked,
        "idle_ms": statistics.median(idle),
        "parked_ms": statistics.median(busy),
        "ratio": ratio,
        "worker_children": children,
        "worker_threads": threads,
    }
    print(f"ratio of the medians {ratio:.2f}; the worker has {children} children and {threads} threads meanwhile")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


@contextmanager
def worker(module: str = "benchmarks.parked_latency") -> Iterator[subprocess.Popen[bytes]]:
    """A worker of two children that serves a module's app on a private server, until the block ends."""
    ensure_server(STATE)
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        f"{module}:app",
        "worker",
        "-c",
        "2",
        "-l",
        "ERROR",
    ]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def median_ms(steps: int) -> float:
    """The median latency from ``delay`` to the result, in ms."""
    taken = []
    for _ in range(steps):
        began = time.perf_counter()
        nothing.delay().get(timeout=30)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def held_by(pid: int) -> tuple[int, int]:
    """The number of children of a process, and of its threads (Linux)."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return len(children), len(list(Path(f"/proc/{pid}/task").iterdir()))


if __name__ == "__main__":
    # Run by its module name, so that the tasks are named as the worker names them.
    from benchmarks.parked_latency import main as named_main

    named_main()
