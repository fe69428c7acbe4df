"""A step of some milliseconds that notes when it began, for stock Celery and for agentq, over Redis or RabbitMQ."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import Celery
from kombu.entity import Queue

from agentq import AgentQ
from benchmarks.apps import ADDRESS, TUNED, address

BROKER = "BENCHMARK_BROKER"
"""Environment variable: RabbitMQ's address; unset, Redis is broker too."""

OURS = "BENCHMARK_OURS"
"""Environment variable: set, the app is agentq's."""

JOURNAL = "BENCHMARK_JOURNAL"
"""Environment variable: the file in which steps note when they began."""


def note(*words: Any) -> None:
    """Append a line to the journal at once."""
    handle = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, (json.dumps(words) + "\n").encode())
    finally:
        os.close(handle)


def work(lane: str, tenant: str, queued: float, seconds: float) -> None:
    """Note whose this is and when it was queued and began, and take some time."""
    note(lane, tenant, queued, time.time())
    time.sleep(seconds)


def make_ours(url: str, broker: str | None) -> AgentQ:
    """Return agentq's app."""
    app = AgentQ("crowd", broker=broker or url, backend=url, set_as_current=False)
    app.step(name="work")(work)
    return app


def make_stock(url: str, broker: str | None, *, tuned: bool) -> Celery:
    """Return stock Celery's app, with its priorities turned on."""
    app = Celery("crowd", broker=broker or url, backend=url, set_as_current=False)
    app.conf.broker_connection_retry_on_startup = True
    app.conf.task_ignore_result = True
    if broker is None:
        app.conf.broker_transport_options = {"queue_order_strategy": "priority"}
    else:
        queue: Any = Queue
        app.conf.task_queues = [queue("celery", routing_key="celery", queue_arguments={"x-max-priority": 9})]
        app.conf.task_default_priority = 3
    if tuned:
        app.conf.task_acks_late = True
        app.conf.worker_prefetch_multiplier = 1
    app.task(name="work", shared=False)(work)
    return app


def make() -> Any:
    """Return the app that the environment asks for."""
    broker = os.environ.get(BROKER)
    if OURS in os.environ:
        return make_ours(address(), broker)
    return make_stock(address(), broker, tuned=TUNED in os.environ)


if ADDRESS in os.environ:
    app = make()
