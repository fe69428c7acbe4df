"""The library in an app that was there before agentq and names its own broker and backend."""

from __future__ import annotations

import os

from celery import Celery

import agentq

app = Celery("existing_app")
app.config_from_object("tests.projects.celery_settings", namespace="CELERY")
app.conf.broker_url = os.environ["EXISTING_URL"]
app.conf.result_backend = os.environ["EXISTING_URL"]
app.autodiscover_tasks(["tests.projects"], related_name="library")

queue = agentq.install(app)


@queue.step(name="existing.triple")
def triple(number: int) -> int:
    return 3 * number


@queue.agent(name="existing.nine_times", version="1")
async def nine_times(run: agentq.Run, number: int) -> int:
    return await run.call(triple, await run.call(triple, number))


@app.task(name="plain.add", shared=False)
def plain_add(a: int, b: int) -> int:
    """A task that agentq has nothing to do with."""
    return a + b


@app.task(name="plain.fails", shared=False)
def plain_fails(message: str) -> None:
    raise ValueError(message)
