"""Servers behind Sentinels, behind TLS, and with a user of few rights."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError

from agentq import AgentQ
from agentq.core.pools import load_pools
from tests.kit.guarded import GuardedServer, TlsServer
from tests.kit.process import ROOT
from tests.kit.projects import close_apps, load_module
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

FLOWS = "tests.projects.leaving.durable"
TIMEOUT = 60.0


@pytest.fixture
def begin(tmp_path: Path, make_worker: Callable[..., WorkerProcess]) -> Iterator[Callable[[str], Any]]:
    """Start a worker at a URL and return the app's module."""
    urls = []

    def start(url: str) -> Any:
        env = {"LEAVING_FILE": str(tmp_path / "notes")}
        make_worker(FLOWS, url=url, env=env).launch()
        urls.append(url)
        return load_module(FLOWS, url=url, **env)

    yield start
    for url in urls:
        close_apps(url)


def sends(module: Any) -> bool:
    """Whether a step can be sent; in the middle of a failover a producer hears that there is no master."""
    try:
        return bool(module.double.delay(1).get(timeout=TIMEOUT) == 2)
    except OperationalError:
        return False


def passes(module: Any) -> None:
    """Run a step, a plain task and an agent that asks, and look at the worker by remote control."""
    assert module.double.delay(2).get(timeout=TIMEOUT) == 4
    assert module.plain_double.delay(3).get(timeout=TIMEOUT) == 6
    asking = module.ask_first.start(4)
    question = wait_until(lambda: module.app.asks.list(run_id=asking.id), description="the run has asked")[0]
    module.app.asks.answer(question.ask_id, True)
    assert asking.get(timeout=TIMEOUT) == 8
    wait_until(lambda: answers(module), description="the worker answers")


def answers(module: Any) -> bool:
    """Whether the worker answers; Celery's client asks once, and may do so over a connection to a lost master."""
    try:
        return bool(module.app.control.inspect(timeout=TIMEOUT, limit=1).ping())
    except redis.ConnectionError:
        return False


def test_behind_sentinels_also_after_the_master_is_lost(begin: Callable[[str], Any]) -> None:
    guarded = GuardedServer()
    guarded.start()
    try:
        module = begin(guarded.url)
        passes(module)
        guarded.lose_master()
        wait_until(lambda: sends(module), description="the Sentinel names the new master")
        passes(module)
    finally:
        guarded.stop()


def rights() -> str:
    """Return the rights that the documentation tells an operator to give, for the queues that the workers serve."""
    page = (ROOT / "docs/operations.md").read_text()
    found = re.search(r"ACL SETUSER agentq on >PASSWORD (.*?)```", page, re.DOTALL)
    assert found is not None
    # A plain worker serves the pools of this repository's own pools file, too.
    queues = ("leaving", *load_pools(ROOT / "config" / "pools.toml"))
    each = " ".join(f"~{queue} ~{queue}?*" for queue in queues)
    return found[1].replace("\\\n", " ").replace("~QUEUE ~QUEUE?*", each)


def sends_by_celerys_own_settings(server: TlsServer) -> None:
    """From an app whose URL says nothing of TLS, as one that has used Celery for long."""
    url = f"redis://{server.user}localhost:{server.port}/0"
    app = AgentQ("elder", broker=url, backend=url, set_as_current=False)
    app.conf.task_default_queue = "leaving"
    app.conf.broker_use_ssl = app.conf.redis_backend_use_ssl = {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        **{option: str(server.folder / name) for option, name in TlsServer.FILES.items()},
    }
    try:
        assert app.send_task("leaving.double", (5,)).get(timeout=TIMEOUT) == 10
        assert app.store.now_ms() > 0
    finally:
        app.store.close()
        app.close()


def test_behind_tls_as_a_user_with_the_documented_rights(begin: Callable[[str], Any]) -> None:
    server = TlsServer()
    server.start()
    try:
        server.add_user(rights())
        try:
            passes(begin(server.celery_url))
            sends_by_celerys_own_settings(server)
        finally:
            assert server.refusals() == []
    finally:
        server.stop()
