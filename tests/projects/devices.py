"""Steps that say where they run and which device they see, for two kinds of GPU and one pool without."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from billiard import current_process
from celery import signals

from agentq import AgentQ, Needs, Run

app = AgentQ("devices")

POOLS = """
[pools.cpu]
concurrency = 2
[pools.big]
tags = { gpu = "a100", vram_gb = 80 }
[pools.small]
tags = { gpu = "l4", vram_gb = 24 }
"""

_seen_first: str | None = None


@signals.worker_process_init.connect
def _see(**_kwargs: Any) -> None:
    global _seen_first
    _seen_first = os.environ.get("CUDA_VISIBLE_DEVICES")


def place(number: int) -> dict[str, Any]:
    """Where this runs, as a library that uses CUDA would see it."""
    time.sleep(0.002)
    with Path(os.environ["DEVICES_NOTES"]).open("ab") as notes:
        notes.write(f"{os.getpid()}\n".encode())
    return {
        "number": number,
        "pid": os.getpid(),
        "main": os.getppid(),
        "slot": getattr(current_process(), "index", None),
        "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "first": _seen_first,
    }


@app.step(pool="cpu")
def anywhere(number: int) -> dict[str, Any]:
    return place(number)


@app.step(needs=Needs(gpu="a100", vram_gb=40))
def on_big(number: int) -> dict[str, Any]:
    return place(number)


@app.step(needs=Needs(gpu="l4"))
def on_small(number: int) -> dict[str, Any]:
    return place(number)


@app.agent(pool="cpu", version="1")
async def spread(run: Run, count: int) -> list[dict[str, Any]]:
    """Calls steps of all pools, a third each; one of the CPU's pool asks for a device at its call."""
    asked = [on_big, on_small, anywhere.using(needs=Needs(gpu="l4"))]
    return list(await run.gather(*[run.call(asked[number % 3], number) for number in range(count)]))
