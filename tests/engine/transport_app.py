"""A Celery app on the fused transport, with bare tasks: these tests need no step of the real kind."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

from agentq.engine.bootsteps import attach
from agentq.engine.connection import fuse
from agentq.engine.worker_terms import Terms
from agentq.store import Store


def make_app(url: str, **conf: Any) -> Celery:
    """Return an app whose broker, results and store are one server."""
    app = Celery("transport", broker=url, backend=url)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_enable_prefetch_count_reduction=False,
        worker_prefetch_multiplier=1,
        result_extended=True,
        **conf,
    )
    store = Store(url)
    fuse(app, lambda: store)
    attach(
        app,
        Terms(
            open_store=lambda: store,
            open_brief_store=lambda: Store(url),
            lease_s=1.5,
            renew_s=0.3,
            tick_s=0.2,
            reconcile_s=0.3,
            announcements=lambda: {"echo": {"kind": "step"}},
        ),
    )
    return app


app = make_app(os.environ.get("AGENTQ_REDIS_URL", "redis://localhost/0"))


@app.task(name="echo")
def echo(value: Any) -> Any:
    return value


@app.task(name="note")
def note(path: str, line: str, seconds: float = 0.0) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"start {line} {os.getpid()}\n")
    time.sleep(seconds)
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"end {line}\n")


@app.task(name="note_late", acks_late=True)
def note_late(path: str, line: str, seconds: float = 0.0) -> None:
    note(path, line, seconds)
