"""The app without agentq."""

from __future__ import annotations

import os

from celery import Celery

from tests.projects.leaving import functions

URL = os.environ["AGENTQ_REDIS_URL"]
app = Celery("leaving", broker=os.environ.get("LEAVING_BROKER", URL), backend=URL)
app.conf.task_default_queue = "leaving"
app.conf.broker_connection_retry_on_startup = True

for name, function in {
    "leaving.double": functions.double,
    "leaving.total": functions.total,
    "leaving.plain_double": functions.double,
    "leaving.plain_total": functions.total,
}.items():
    app.task(function, name=name, shared=False)

app.task(functions.double, name="leaving.late_double", shared=False, acks_late=True, reject_on_worker_lost=True)
