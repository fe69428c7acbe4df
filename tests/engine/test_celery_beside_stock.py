"""Stock producers and stock workers share the broker with ours, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery

from tests.kit.sample import TIMEOUT, Library
from tests.kit.worker import WorkerProcess


@pytest.fixture
def stock(library: Library) -> Iterator[Celery]:
    """An app of plain Celery on the same server."""
    url = library.server.celery_url
    app = Celery("stock-producer", broker=url, backend=url, set_as_current=False)
    for name in [name for name in app.tasks if name.startswith("library.")]:
        # Shared declarations of this process reach every app of it; a stock producer has none of our code.
        app.tasks.unregister(name)
    yield app
    app.close()


def test_a_stock_producer_starts_our_steps(library: Library, stock: Any) -> None:
    queue = library.app.conf.task_default_queue
    assert stock.send_task("library.add", (1, 2), queue=queue).get(timeout=TIMEOUT) == 3
    flow = stock.signature("library.add", (1, 2), queue=queue) | stock.signature("library.double", queue=queue)
    assert flow.apply_async().get(timeout=TIMEOUT) == 6


def test_a_stock_producer_starts_our_agents(library: Library, stock: Any) -> None:
    queue = library.app.conf.task_default_queue
    assert stock.send_task("library.fan", (4,), queue=queue).get(timeout=TIMEOUT) == 12


def test_a_stock_producers_failure_is_celerys(library: Library, stock: Any) -> None:
    queue = library.app.conf.task_default_queue
    result = stock.send_task("library.broken", ("no good",), queue=queue)
    with pytest.raises(Exception, match="no good"):
        result.get(timeout=TIMEOUT)
    assert result.state == "FAILURE"


def test_a_stock_worker_runs_plain_tasks_that_our_app_sends(
    library: Library, start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker("tests.projects.stock", url=library.server.celery_url)
    result = library.app.send_task("tests.projects.stock.add", (2, 3), queue="stock")
    assert result.get(timeout=TIMEOUT) == 5
