"""The long form of the crash suite: ``./dev crash``."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.crash.campaign import Campaign
from tests.kit.mode import MODES
from tests.kit.worker import WorkerProcess


def main() -> int:
    """Run a campaign as the command line says, and print its table; returns 1 when something was wrong."""
    parser = argparse.ArgumentParser(prog="./dev crash", description="Kill what can be killed, and look what becomes.")
    parser.add_argument("--mode", choices=MODES, default="fused")
    parser.add_argument("--faults", type=int, default=100, metavar="N", help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="repeats the choices of that seed")
    parser.add_argument("--round", type=int, default=None, metavar="R", help="one round of the seed alone")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(2**32)
    folder = Path(tempfile.mkdtemp(prefix="aqt-crash-"))

    def make(app: str, **options: Any) -> WorkerProcess:
        return WorkerProcess(app, folder=folder, **options)

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")

    say(f"mode {chosen.mode}, seed {seed}; the workers' logs: {folder}")
    report = Campaign(make, mode=chosen.mode, seed=seed, say=say).run(chosen.faults, only=chosen.round)
    sys.stdout.write(report.table() + "\n")
    if not report.problems:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
