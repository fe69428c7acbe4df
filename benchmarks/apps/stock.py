"""Celery as it comes: the default settings, or late acknowledgement with a prefetch of one."""

from __future__ import annotations

import os
import time

from celery import Celery

from benchmarks.apps import ADDRESS, TUNED, address


def make(url: str, *, tuned: bool) -> Celery:
    """Return an app at ``url`` with the tasks of the measurements."""
    app = Celery("stock", broker=url, backend=url, set_as_current=False)
    app.conf.broker_connection_retry_on_startup = True
    if tuned:
        app.conf.task_acks_late = True
        app.conf.worker_prefetch_multiplier = 1

    @app.task(name="nothing", shared=False)
    def nothing() -> None:
        """Do nothing."""

    @app.task(name="increment", shared=False)
    def increment(number: int) -> int:
        return number + 1

    @app.task(name="identity", shared=False)
    def identity(number: int) -> int:
        return number

    @app.task(name="payload", shared=False)
    def payload(number: int) -> str:
        return str(number % 10) * 1024

    @app.task(name="total", shared=False)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="length", shared=False)
    def length(texts: list[str]) -> int:
        return len(texts)

    @app.task(name="pause", shared=False)
    def pause(seconds: float) -> None:
        time.sleep(seconds)

    return app


if ADDRESS in os.environ:
    app = make(address(), tuned=TUNED in os.environ)
