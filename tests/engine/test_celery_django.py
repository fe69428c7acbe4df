"""A Django project: autodiscovery, settings by namespace, runs that start when the transaction commits."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentq import AgentQ
from tests.kit.process import ROOT, clean_environment
from tests.kit.projects import close_app, environment
from tests.kit.sample import TIMEOUT
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess


class Shop:
    """The Django project in processes of its own: Django is configured once in a process's life."""

    def __init__(self, server: PrivateServer, folder: Path) -> None:
        self.env = {
            "SHOP_DATABASE": str(folder / "shop.sqlite3"),
            "DJANGO_SETTINGS_MODULE": "tests.projects.shop.settings",
            "AGENTQ_REDIS_URL": server.celery_url,
        }

    def manage(self, *args: str) -> str:
        """Run a management command and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "django", *args],
            env=clean_environment(self.env),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def states(self) -> dict[int, str]:
        """Return the state of each order in the database."""
        with closing(sqlite3.connect(self.env["SHOP_DATABASE"])) as database:
            return dict(database.execute("select id, state from orders_order"))


@pytest.fixture
def shop(server: PrivateServer, start_worker: Callable[..., WorkerProcess], tmp_path: Path) -> Shop:
    """The project with its table and a plain worker."""
    shop = Shop(server, tmp_path)
    shop.manage("migrate", "--run-syncdb", "--verbosity", "0")
    start_worker("tests.projects.shop", url=server.celery_url, env=shop.env)
    return shop


def runs(server: PrivateServer) -> list[Any]:
    """Return all runs, as an application beside the project sees them."""
    with environment(AGENTQ_REDIS_URL=server.celery_url):
        app = AgentQ("beside")
        found = list(app.runs.list())
    close_app(app)
    return found


def test_a_run_starts_when_its_transaction_commits(shop: Shop, server: PrivateServer) -> None:
    placed = json.loads(shop.manage("place", "apples"))
    expected = {placed["order"]: "shipped", placed["extra"]: "packed"}
    wait_until(lambda: shop.states() == expected, description="the order is shipped, the extra one packed")
    wait_until(
        lambda: [run.status for run in runs(server) if run.agent.endswith("fulfil")] == ["succeeded"],
        description="the run has succeeded",
    )


def test_nothing_starts_when_the_transaction_rolls_back(shop: Shop, server: PrivateServer) -> None:
    shop.manage("place", "pears", "--rollback")
    assert shop.states() == {}
    assert runs(server) == []
    assert not list(server.client.scan_iter(match="*:step:*"))
