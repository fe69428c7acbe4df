"""A beat process starts steps and agents by its schedule."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.kit.process import ManagedProcess, clean_environment
from tests.kit.sample import Library, wait_for_lines
from tests.kit.waiting import wait_until


def test_beat_starts_steps_and_agents(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "beat.txt"
    env = {
        "AGENTQ_REDIS_URL": library.server.celery_url,
        "EXISTING_URL": library.server.celery_url,
        "BEAT_FILE": str(seen),
    }
    argv = [sys.executable, "-m", "celery", "-A", f"tests.projects.{library.kind}", "beat", "-l", "INFO"]
    argv += ["-s", str(tmp_path / "schedule"), "--pidfile", str(tmp_path / "pid")]
    beat = ManagedProcess(argv, log=tmp_path / "beat.log", env=clean_environment(env))
    beat.start()
    try:
        assert set(wait_for_lines(seen, 3)[:3]) == {"ticked"}
        agents = [agent for agent in library.app.tasks if agent == "library.double_agent"]
        assert agents
        wait_until(
            lambda: "library.double_agent" in library.worker.log() and "succeeded" in library.worker.log(),
            description="an agent that beat started has succeeded",
        )
    finally:
        beat.terminate()
