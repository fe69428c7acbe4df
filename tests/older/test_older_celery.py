"""agentq on the oldest Celery and kombu that it says it serves on, fused and over kombu's own transport."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentq.engine.versions import TRIED_KOMBU
from tests.kit.process import ROOT, clean_environment
from tests.older.fetching import OLDEST, fetched


@pytest.mark.parametrize("mode", ["fused", "stock"])
def test_the_oldest_celery_and_kombu_serve(mode: str, tmp_path: Path) -> None:
    path = os.pathsep.join([str(fetched()), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.older.scenario", mode, str(tmp_path)],
        cwd=ROOT,
        env={**clean_environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]


def test_they_are_what_the_fused_transport_trusts() -> None:
    major, minor = OLDEST["kombu"].split(".")[:2]
    assert min(TRIED_KOMBU) == (int(major), int(minor))
