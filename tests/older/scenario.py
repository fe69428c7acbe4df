"""What is run there: ``python -m tests.older.scenario MODE FOLDER``, with the older releases on the path."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group

from tests.kit.leaks import check_leaks
from tests.kit.mode import settings_of
from tests.kit.projects import load_module
from tests.kit.sample import wait_for_lines
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess
from tests.older.fetching import OLDEST

FLOWS = "tests.projects.flows"
TIMEOUT = 40.0


def main(mode: str, folder: Path) -> None:
    """Raise an AssertionError where something does not come to what it should."""
    assert {name: version(name) for name in OLDEST} == OLDEST
    env = settings_of(mode)
    server = PrivateServer()
    server.start()
    workers: list[WorkerProcess] = []

    def start() -> None:
        worker = WorkerProcess(FLOWS, folder=folder, url=server.celery_url, env=env)
        worker.start()
        workers.append(worker)

    try:
        start()
        flows = load_module(FLOWS, url=server.celery_url, **env)
        workers[0].wait_ready()
        see_steps(flows, folder)
        see_agents(flows)
        see_a_kill(flows, folder, workers, start)
        assert flows.app.control.inspect(timeout=TIMEOUT, limit=1).ping()
        assert flows.app.mode == ("split" if mode == "stock" else mode)
        check_leaks(server.client)
    finally:
        for worker in workers:
            worker.kill_tree()
        server.stop()


def see_steps(flows: Any, folder: Path) -> None:
    """Steps alone and in each kind of canvas, one that fails, a plain task."""
    assert flows.double.delay(2).get(timeout=TIMEOUT) == 4
    assert chain(flows.add.s(1, 2), flows.double.s(), flows.double_async.s()).apply_async().get(timeout=TIMEOUT) == 12
    assert chord([flows.double.s(n) for n in range(5)], flows.total.s()).apply_async().get(timeout=TIMEOUT) == 20
    assert group(flows.double.s(n) for n in range(5)).apply_async().get(timeout=TIMEOUT) == [0, 2, 4, 6, 8]
    assert flows.flaky.delay(str(folder / "tries"), 2).get(timeout=TIMEOUT) == 3
    with pytest.raises(ValueError, match="no good"):
        flows.broken.delay("no good").get(timeout=TIMEOUT)
    flows.plain_note.delay("itself", str(folder / "noted"))
    assert wait_for_lines(folder / "noted", 1) == ["plain itself"]


def see_agents(flows: Any) -> None:
    """A fan-out, a sleep, a question."""
    assert flows.fan.start(10).get(timeout=TIMEOUT) == 90
    assert flows.nap.start(0.3).get(timeout=TIMEOUT) >= 0.3
    handle = flows.approve.start(600.0)
    ask = wait_until(lambda: flows.app.asks.list(run_id=handle.id), description="the question is asked")[0]
    assert flows.app.asks.answer(ask.ask_id, True)
    assert handle.get(timeout=TIMEOUT) is True


def see_a_kill(flows: Any, folder: Path, workers: list[WorkerProcess], start: Any) -> None:
    """The whole worker, in the middle of a fan-out."""
    handle = flows.slow_fan.start(str(folder / "started"), 12, 0.2)
    wait_for_lines(folder / "started", 3)
    start()
    workers[0].kill_tree()
    assert handle.get(timeout=TIMEOUT) == list(range(1, 13))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
