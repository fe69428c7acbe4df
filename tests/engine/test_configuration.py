"""When an app's configuration is read, and by whom."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agentq import AgentQ
from agentq import app as assembly
from agentq.store.embedded import ServerAddress


def test_threads_that_come_while_the_server_starts_wait_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    starting = threading.Event()
    url = f"redis+socket://{tmp_path}/sock"

    def ensure_server(_state_dir: Path) -> ServerAddress:
        starting.set()
        time.sleep(0.3)
        return assembly.address_of(url)

    monkeypatch.setattr(assembly, "ensure_server", ensure_server)
    for name in ("AGENTQ_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    app = AgentQ("cold", set_as_current=False)

    def transport() -> Any:
        return app.connection_for_write().transport_cls

    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(transport)
        assert starting.wait(10)
        found = [each.result(10) for each in [first, *(threads.submit(transport) for _ in range(3))]]
    assert found == ["redis"] * 4
    assert str(app.conf.broker_url) == url
    app.close()
