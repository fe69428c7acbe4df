"""Steps that sleep, in a pool that a controller sizes; each leaves a line when it begins and one when it ends."""

from __future__ import annotations

import json
import os
import time

from agentq import AgentQ
from tests.kit.notes import note

app = AgentQ("naps")
# What scales it, where a command is to do that.
app.declare_pool("naps", kind="threads", concurrency=1, **json.loads(os.environ.get("NAPS_POOL", "{}")))


@app.step(pool="naps")
def nap(number: int, seconds: float) -> int:
    """Sleep, and tell it in the file that NAPS names."""
    note(os.environ["NAPS"], number, "begins", f"{time.time():.3f}")
    time.sleep(seconds)
    note(os.environ["NAPS"], number, "ends", f"{time.time():.3f}")
    return number
