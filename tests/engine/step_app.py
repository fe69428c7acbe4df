"""A Celery app with real steps and nothing above the engine: for faults that the whole would only hide."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from celery import Celery

from agentq.engine.assembly import bind_app
from agentq.engine.binding import Binding
from agentq.engine.declare import Declarations
from agentq.engine.worker_terms import Terms
from agentq.store import Store


class StepApp(Declarations):
    """The decorators over one Celery app."""

    def __init__(self, url: str) -> None:
        store = Store(url)
        self.store = store
        self.celery = Celery("steps", broker=url)
        bind_app(
            self.celery,
            Binding(open_store=lambda: store),
            Terms(
                open_store=lambda: store,
                open_brief_store=lambda: Store(url),
                lease_s=1.5,
                renew_s=0.3,
                tick_s=0.2,
            ),
            open_store=lambda: store,
            celery_url=lambda: url,
        )

    def _make_task(self, **settings: Any) -> Any:
        return self.celery.task(**settings)


def _note(path: str, line: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)


def tell(path: str, line: str, seconds: float = 0.0) -> str:
    _note(path, line)
    time.sleep(seconds)
    return line


def tell_and_wait(path: str, line: str, gate: str) -> str:
    """Go on until a file is there."""
    _note(path, line)
    while not os.path.exists(gate):
        time.sleep(0.02)
    return line


async def tell_async(path: str, line: str, seconds: float = 0.0) -> str:
    _note(path, line)
    await asyncio.sleep(seconds)
    return line


def make_steps(url: str) -> StepApp:
    """Return an app with its steps on the server at ``url``."""
    made = StepApp(url)
    for function in (tell, tell_and_wait, tell_async):
        made.step(name=function.__name__)(function)
    made.celery.set_current()
    return made


app = make_steps(os.environ.get("AGENTQ_REDIS_URL", "redis://localhost/0")).celery
