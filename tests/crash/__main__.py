"""The long form of the crash suite: ``./dev crash``."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.crash.campaign import Campaign
from tests.kit.broker import PrivateBroker
from tests.kit.mode import MODES
from tests.kit.process import OWN, SCRUBBED
from tests.kit.worker import WorkerProcess


@contextmanager
def broker_of(mode: str) -> Iterator[PrivateBroker | None]:
    """A broker of the campaign's own, where the mode has one."""
    if mode != "split":
        yield None
        return
    broker = PrivateBroker()
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def main() -> int:
    """Run a campaign as the command line says, and print its table; returns 1 when something was wrong."""
    parser = argparse.ArgumentParser(prog="./dev crash", description="Kill what can be killed, and look what becomes.")
    parser.add_argument("--mode", choices=MODES, default="fused")
    parser.add_argument("--faults", type=int, default=100, metavar="N", help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="repeats the choices of that seed")
    parser.add_argument("--pool", choices=("prefork", "threads"), default="prefork", help="of the workers")
    parser.add_argument("--round", type=int, default=None, metavar="R", help="one round of the seed alone")
    chosen = parser.parse_args()
    # As in the tests: workers and this process must be of one mind, and the shell has no say.
    for name in [name for name in os.environ if name.startswith(SCRUBBED)]:
        del os.environ[name]
    os.environ.update(OWN)
    # Else it would leave servers and workers running, which are ended on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(2**32)
    folder = Path(tempfile.mkdtemp(prefix="aqt-crash-"))

    def make(app: str, **options: Any) -> WorkerProcess:
        return WorkerProcess(app, folder=folder, pool=chosen.pool, **options)

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    say(f"mode {chosen.mode}, pool {chosen.pool}, seed {seed}; the workers' logs: {folder}")
    with broker_of(chosen.mode) as broker:
        campaign = Campaign(make, mode=chosen.mode, seed=seed, broker=broker, say=say)
        report = campaign.run(chosen.faults, only=chosen.round)
    sys.stdout.write(report.table() + "\n")
    if not report.problems:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
