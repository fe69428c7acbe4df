"""Celery's own integration tests on agentq's transport and backend."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.process import ROOT, clean_environment


def run_suite(*arguments: str, timeout: float) -> None:
    command = [sys.executable, "-m", "tests.celery_suite", "-q", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]


def test_a_part_of_celerys_own_suite_passes() -> None:
    run_suite("--quick", timeout=240)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_celerys_own_suite_passes() -> None:
    run_suite(timeout=3500)
