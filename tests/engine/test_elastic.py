"""A worker whose pool grows and shrinks by what waits: nothing that runs is ended, and nothing runs twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit.projects import load_app
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.elastic"
MOST = 4


@pytest.fixture(params=["fused", "stock", "rabbitmq"])
def mode(request: pytest.FixtureRequest) -> dict[str, str]:
    """Fused and split: how the waiting steps are counted differs, and what a broker hands out at once."""
    if request.param == "rabbitmq":
        return {"AGENTQ_BROKER_URL": request.getfixturevalue("rabbitmq").url}
    return {} if request.param == "fused" else {"AGENTQ_TRANSPORT": "stock"}


def starts(folder: Path) -> dict[str, list[int]]:
    """Which processes have begun each step."""
    found: dict[str, list[int]] = {}
    path = folder / "starts"
    for line in path.read_text().splitlines() if path.exists() else ():
        name, _, pid = line.partition(" ")
        found.setdefault(name, []).append(int(pid))
    return found


def test_a_pool_grows_under_a_queue_and_shrinks_around_what_runs(
    clean_server: PrivateServer, make_worker: Callable[..., WorkerProcess], tmp_path: Path, mode: dict[str, str]
) -> None:
    env = {"AUTOSCALE_KEEPALIVE": "1", **mode}
    worker = make_worker(
        PROJECT, url=clean_server.celery_url, concurrency=1, env=env, options=[f"--autoscale={MOST},1"]
    ).launch()
    app: Any = load_app(PROJECT, url=clean_server.celery_url, **mode)
    waits = app.celery.tasks["tests.projects.elastic.waits"]
    try:
        assert len(worker.whole_pool()) == 1
        results = {name: waits.delay(str(tmp_path), name) for name in "abcdefgh"}
        wait_until(lambda: len(starts(tmp_path)) == MOST, description="as many run as there may be", report=worker.log)
        running = {name: pids[0] for name, pids in starts(tmp_path).items()}
        assert len(set(running.values())) == MOST, "each in a process of its own"
        assert [card.concurrency for card in app.store.workers()] == [MOST]
        last = max(running, key=lambda name: running[name])
        for name in set(results) - {last}:
            (tmp_path / name).touch()
        for name in set(results) - {last}:
            assert results[name].get(timeout=60) == name
        wait_until(
            lambda: worker.pool_children() == [running[last]],
            description="the pool has shrunk to the child that runs",
            report=worker.log,
        )
        (tmp_path / last).touch()
        assert results[last].get(timeout=60) == last
        assert {name: len(pids) for name, pids in starts(tmp_path).items()} == dict.fromkeys(results, 1)
        again = [waits.delay(str(tmp_path), name) for name in "stuvw"]
        for name in "stuvw":
            (tmp_path / name).touch()
        assert [result.get(timeout=60) for result in again] == list("stuvw")
    finally:
        app.store.close()
