"""Steps that fail, hang and kill in every way that Sentry is to hear of; WATCHED says who turns Sentry on."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from agentq import AgentQ, Retry, Run
from tests.kit.notes import note

SECRET = "a secret of somebody's"
"""Stands in arguments, results and local variables, and must not leave this machine."""

WAY = os.environ.get("WATCHED", "")

app = AgentQ("watched")

if WAY:
    import sentry_sdk

    # As the manuals have it, behind the app; without a DSN the variable SENTRY_DSN names it.
    sentry_sdk.init(dsn=os.environ["WATCHED_DSN"], auto_enabling_integrations=WAY == "celery")


@app.step
def fails(secret: str) -> None:
    local = secret
    raise ValueError(f"{len(local)} characters are wrong")


@app.step
async def fails_async(secret: str) -> None:
    raise LookupError("nothing there")


@app.step(retry=Retry(attempts=3, wait=timedelta(milliseconds=10)))
def fails_thrice(secret: str) -> None:
    raise ConnectionError("away")


@app.step(retry=Retry(attempts=2, wait=timedelta(milliseconds=10)))
def recovers(path: str) -> str:
    note(path, "try")
    if len(Path(path).read_text().splitlines()) < 2:
        raise ConnectionError("away")
    return "well"


@app.step
def returns_wrong(secret: str) -> int:
    wrong: Any = secret
    return wrong  # type: ignore[no-any-return]


@app.step(throws=(KeyError,))
def expected(secret: str) -> None:
    raise KeyError(secret)


@app.step(soft_time_limit=0.2, time_limit=0.5)
def hangs(secret: str) -> None:
    """Hear nothing, so that the keeper kills it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            time.sleep(60)
        except BaseException as error:
            del error


@app.step
def kills(path: str, times: int) -> str:
    """Kill its process the first times."""
    note(path, "start")
    if len(Path(path).read_text().splitlines()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@app.agent
async def careless(run: Run, secret: str) -> None:
    await run.call(fails, secret)


@app.task(name="plain_fails", shared=False)
def plain_fails(secret: str) -> None:
    raise RuntimeError("a plain task")
