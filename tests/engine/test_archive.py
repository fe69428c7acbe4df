"""Runs whose keys have ended, as applications and people read them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentq.core.errors import RunFailed, RunNotFound, UsageError
from agentq.engine import archivist
from agentq.engine.handle import Handle
from agentq.store import Store
from tests.kit.process import clean_environment
from tests.kit.projects import load_app
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess
from tests.store.bench import Bench

PROJECT = "tests.projects.past"
RETENTION_S = 2


@dataclass(frozen=True)
class Place:
    """A server, a worker with an archive, and the variables that say so."""

    server: PrivateServer
    worker: WorkerProcess
    env: dict[str, str]
    app: Any


@pytest.fixture(scope="module")
def place(
    module_server: PrivateServer,
    make_module_worker: Callable[..., WorkerProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    file = tmp_path_factory.mktemp("archive") / "archive.db"
    env = {"AGENTQ_ARCHIVE": f"sqlite:///{file}", "AGENTQ_RESULT_RETENTION": f"{RETENTION_S}s"}
    worker = make_module_worker(PROJECT, url=module_server.celery_url, env=env).launch()
    app = load_app(PROJECT, url=module_server.celery_url, **env)
    yield Place(module_server, worker, env, app)
    app.store.close()


def wait_until_gone(place: Place, run_id: str) -> None:
    keys, client = place.app.store.keys, place.server.client
    wait_until(
        lambda: not client.exists(keys.step(run_id, run_id)) and not client.exists(keys.events(run_id)),
        description="the keys of the run have ended",
        report=place.worker.log,
        timeout=60,
    )


def test_a_run_is_read_when_its_keys_have_ended(place: Place) -> None:
    agent = place.app.agents["doubled"]
    handle = agent.using(key="k1", tenant="acme").start(3)
    assert handle.get(timeout=60) == [0, 2, 4]
    steps, events, usage = handle.steps(), list(handle.events()), handle.usage()
    summary = handle.summary()
    wait_until_gone(place, handle.id)
    for again in (handle, place.app.runs.get(handle.id)):
        assert again.get(timeout=60) == [0, 2, 4]
        assert again.steps() == steps
        assert list(again.events()) == events
        assert list(again.events(after=events[-3].offset)) == events[-2:]
        assert again.usage() == usage
        assert again.summary() == summary
    assert [run.run_id for run in place.app.runs.list(agent="doubled", limit=5)] == [handle.id]
    # The key ended with the retention, as it does without an archive.
    assert agent.using(key="k1", tenant="acme").start(3).id != handle.id


def test_a_failed_run_fails_from_the_archive_too_and_the_command_shows_it(place: Place) -> None:
    handle = place.app.agents["doubled"].start(-1)
    with pytest.raises(RunFailed) as live:
        handle.get(timeout=60)
    wait_until_gone(place, handle.id)
    with pytest.raises(RunFailed, match="below zero") as archived:
        place.app.runs.get(handle.id).get(timeout=60)
    assert str(archived.value) == str(live.value)
    env = clean_environment({**place.env, "AGENTQ_REDIS_URL": place.server.celery_url})
    argv = [sys.executable, "-m", "agentq.cli", "-A", f"{PROJECT}:app", "runs", "show", handle.id, "--json"]
    said = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert json.loads(said.stdout)["status"] == "failed"


def test_an_archived_run_is_retried(place: Place, tmp_path: Path) -> None:
    (tmp_path / "broken-z").touch()
    handle = place.app.agents["large"].start(str(tmp_path / "done"), "t" * 90_000)
    with pytest.raises(RunFailed):
        handle.get(timeout=60)
    wait_until_gone(place, handle.id)
    (tmp_path / "broken-z").unlink()
    again = handle.retry()
    assert again.get(timeout=60) == [90_000, 90_000, 100_000]
    assert handle.retry().id == again.id
    wait_until_gone(place, again.id)
    assert handle.retry().id == again.id, "both stand in the archive alone"
    assert not handle.cancel()
    with pytest.raises(UsageError, match="has ended: it takes no signal"):
        handle.signal("go")
    assert (tmp_path / "done").read_text().split() == ["repeat", "z", "z"]


def test_nobody_waits_for_a_run_that_is_not_known(place: Place) -> None:
    began = time.monotonic()
    with pytest.raises(RunNotFound):
        place.app.runs.get("00000000-0000-4000-8000-000000000000")
    with pytest.raises(RunNotFound):
        Handle(place.app.store, "nobody", root="nobody").get()
    assert time.monotonic() - began < 20, "it would be for ever"


def test_an_archivist_waits_for_its_archive_and_passes_over_what_it_cannot_copy(
    server: PrivateServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archivist.Archivist, "pause_s", 0.05)
    (tmp_path / "place").touch()
    bench = Bench(server, archive_url=f"sqlite:///{tmp_path}/place/archive.db")
    bench.worker("w1")
    for run in ("broken", "whole"):
        bench.finish(bench.run_agent(run))
    members = bench.keys.members("broken")
    bench.client.set(members, "not a list")
    seen = archivist.Archivist(Store(server.url, archive_url=bench.store.archive_url))
    seen.start()
    wait_until(lambda: "archive_waits" in caplog.text, description="it says that the archive is away")
    assert bench.store.awaiting_archive()[0] == 2
    (tmp_path / "place").unlink()
    # The next who looks, when the claim of the first one has ended.
    bench.client.zadd(bench.keys.of("ended"), {"broken": 1, "whole": 1})
    wait_until(lambda: bench.client.ttl(bench.keys.log("whole", "whole")) > 0, description="the other is archived")
    assert "archive_failed run=broken" in caplog.text
    assert bench.client.ttl(bench.keys.log("broken", "broken")) == -1
    bench.client.delete(members)
    bench.client.zadd(bench.keys.of("ended"), {"broken": 1})
    wait_until(lambda: bench.store.awaiting_archive()[0] == 0, description="both are archived")
    seen.stop()
    bench.drain()
    bench.store.close()
