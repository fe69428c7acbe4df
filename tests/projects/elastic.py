"""Steps that run until they are let go, each by itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

from agentq import AgentQ
from tests.kit.notes import note

app = AgentQ("elastic")


@app.step
def waits(folder: str, name: str) -> str:
    """Run until there is a file of that name; leave a line at the beginning."""
    note(f"{folder}/starts", f"{name} {os.getpid()}")
    while not Path(folder, name).exists():
        time.sleep(0.02)
    return name


@app.step
def short(number: int) -> int:
    return number
