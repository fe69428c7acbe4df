"""Steps that sleep and ask for others; each tells how long it has waited."""

from __future__ import annotations

import os
import time
from pathlib import Path

from agentq import AgentQ

app = AgentQ("naps")
app.declare_pool("naps", kind="solo")


@app.step(pool="naps")
def nap(sent: float, seconds: float, children: list[float]) -> None:
    """Sleep, then ask for the children."""
    with Path(os.environ["NAPS"]).open("a", encoding="utf-8") as notes:
        notes.write(f"{time.time() - sent:.3f}\n")
    time.sleep(seconds)
    for child in children:
        nap.delay(time.time(), child, [])
