"""What waiting runs cost the server, and whether a wake takes longer among many of them.

    python -m benchmarks.parked_runs --runs 100000

Starts so many runs that wait for a signal, on a private server with its default settings and one worker of two
children. Prints the server's memory for each of them (record, message, log, history and all), the median time from a
signal to the end of its run among ten and among all of them, and whether each run ends when all are woken.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

# A turn that lingers holds its slot; here nothing comes while it would.
os.environ.setdefault("AGENTQ_LINGER", "0")

from agentq import AgentQ, Run
from agentq.core.ids import new_run_id
from agentq.engine import capture
from agentq.engine.handle import Handle
from agentq.store.embedded import ensure_server
from agentq.store.refs import Holder
from benchmarks.parked_latency import STATE, worker

app = AgentQ("benchmarks.parked_runs")


@app.agent
async def waits(run: Run) -> str:
    """The run that is parked."""
    return str(await run.wait_for("go"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000, help="runs that wait (default 100000)")
    parser.add_argument("--samples", type=int, default=100, help="wakes measured among ten and among all (default 100)")
    parser.add_argument(
        "--quick", action="store_true", help="start and park them here, by what the client and a turn call"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    ensure_server(STATE)
    figures = measure(arguments.runs, arguments.samples, quick=arguments.quick)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


def measure(runs: int, samples: int, *, quick: bool) -> dict[str, float]:
    """The figures; raises AssertionError when a run is lost."""
    client = app.store.client
    with nullcontext() if quick else worker("benchmarks.parked_runs"):
        # The scripts themselves take two MB, which are not the runs'.
        parked(1, here=quick)
        before = memory(client)
        began = time.monotonic()
        handles = parked(runs, here=quick)
        each = (memory(client) - before) / runs
        print(f"{runs} runs parked after {time.monotonic() - began:.0f} s: {each:.0f} bytes of the server each")
    with worker("benchmarks.parked_runs"):
        wake_ms()
        many = statistics.median(wake_ms() for _ in range(samples))
        print(f"a wake among all {many:.2f} ms")
        began = time.monotonic()
        for number, handle in enumerate(handles):
            handle.signal("go", number)
        for number, handle in enumerate(handles):
            assert handle.get(timeout=3600) == str(number), handle
        print(f"all woken and ended after {time.monotonic() - began:.0f} s")
        parked(10)
        few = statistics.median(wake_ms() for _ in range(samples))
    return {"runs": runs, "bytes_each": each, "wake_among_ten_ms": few, "wake_among_all_ms": many, "ratio": many / few}


def parked(runs: int, *, here: bool = False) -> Sequence[Any]:
    """Handles of so many runs that wait."""
    if here:
        handles = started(runs)
        park_here()
    else:
        handles = [waits.start() for _ in range(runs)]
    for handle in handles:
        wait_until_parked(handle)
    return handles


def started(runs: int) -> list[Any]:
    """Handles of so many runs that were started by copies of one message, a chunk at a time."""
    with capture.capturing() as caught:
        waits.apply_async()
    (first,) = caught.offers
    ids = [new_run_id() for _ in range(runs)]
    for at in range(0, runs, 500):
        app.store.offer(
            [
                replace(first, root=run, id=run, message=first.message.replace(first.id, run))
                for run in ids[at : at + 500]
            ]
        )
    return [Handle(app.store, run, root=run) for run in ids]


def park_here() -> None:
    """Everything that is queued has been taken and parked."""
    store = app.store
    name, label = store.new_token(), f"celery@{os.uname().nodename}"
    store.enroll(name, label=label, queues=("celery",), concurrency=1, lease_ms=3_600_000)
    while taken := store.take(name, store.new_token(), slots=100, label=label, queues=["celery"]).taken:
        for each in taken:
            root, run, _ = json.loads(each.message)["agentq"].split("|")
            store.park(Holder(root, run, name, each.take), seen=1, due_ms=None, waits=["go"])
    store.leave(name)


def wait_until_parked(handle: Any) -> None:
    """Return when the run waits."""
    while app.store.record(handle.id, handle.id)["s"] != "p":
        time.sleep(0.005)


def wake_ms() -> float:
    """How long one more run takes from its signal to its result, in ms."""
    handle = waits.start()
    wait_until_parked(handle)
    began = time.perf_counter()
    handle.signal("go", "on")
    handle.get(timeout=60)
    return (time.perf_counter() - began) * 1000


def memory(client: Any) -> int:
    """The bytes that the server uses."""
    return int(client.info("memory")["used_memory"])


if __name__ == "__main__":
    # Run by its module name, so that the tasks are named as the worker names them.
    from benchmarks.parked_runs import main as named_main

    named_main()
