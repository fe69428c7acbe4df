"""A Celery project that knows nothing of agentq: the other side of a shared broker."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("stock", broker=os.environ["AGENTQ_REDIS_URL"], backend=os.environ["AGENTQ_REDIS_URL"])
app.conf.task_default_queue = "stock"
app.conf.broker_connection_retry_on_startup = True


@app.task(shared=False)
def add(a: int, b: int) -> int:
    return a + b
