"""A step that uses CUDA by torch, and says on which device it was."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from agentq import AgentQ, Needs

app = AgentQ("hardware")

POOLS = """
[pools.cuda]
tags = { gpu = "any" }
"""


@app.step(needs=Needs(gpu="any"))
def multiply(number: int) -> dict[str, Any]:
    """Computes on the one device that this process sees."""
    torch: Any = import_module("torch")
    matrix = torch.full((64, 64), float(number), device="cuda:0")
    return {
        "number": number,
        "pid": os.getpid(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "count": torch.cuda.device_count(),
        "uuid": str(getattr(torch.cuda.get_device_properties(0), "uuid", "")),
        "sum": float((matrix @ matrix).sum().item()),
    }
