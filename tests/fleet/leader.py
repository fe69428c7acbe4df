"""A controller as a program: `python -m tests.fleet.leader URL FOLDER`. Its workers are processes that only sleep."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from agentq.core.pools import PoolSpec
from agentq.fleet.controller import Controller, Terms
from agentq.fleet.drivers import Setup
from agentq.fleet.drivers.local import Local
from agentq.store import Store

LEASE_S = 1.0


def main(url: str, folder: str) -> None:
    """Go round for ever."""
    pools = {"q": PoolSpec(name="q", min=2, max=4)}
    store = Store(url)
    controller = Controller(
        store,
        Local(Setup(lambda: pools, store, _command, Path(folder))),
        Terms(pools=lambda: pools, lease_s=LEASE_S),
    )
    controller.leading.label = str(os.getpid())
    while True:
        controller.round()
        time.sleep(0.1)


def _command(pool: str, instance: str) -> tuple[list[str], Mapping[str, str]]:
    return [sys.executable, "-S", "-c", "import time; time.sleep(600)"], dict(os.environ)


if __name__ == "__main__":
    main(*sys.argv[1:])
