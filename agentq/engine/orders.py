"""Orders by remote control: after each, what the children were granted before it is void.

A child that goes on by itself goes by what the main process knew when it sent the first step: the queues, the revoked
steps, that no rate is limited. An order changes some of that, and whoever gave it expects the next step to obey.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker.control import Panel

from agentq.engine.keeper import claims


def watch_orders(consumer: Any) -> None:
    """Have the worker's page count what its consumer is told to do."""
    # Celery acts on these some time after the command, in the event loop.
    for name in ("add_task_queue", "cancel_task_queue"):
        setattr(consumer, name, _counted(getattr(consumer, name)))
    for step in consumer.steps:
        node = getattr(getattr(step, "box", None), "node", None)
        if node is not None:
            node.handle_message = _counted(node.handle_message, unless=_asks)


def _counted(act: Callable[..., Any], unless: Callable[..., bool] = lambda *_: False) -> Callable[..., Any]:
    def counted(*args: Any, **options: Any) -> Any:
        try:
            return act(*args, **options)
        finally:
            if not unless(*args):
                claims.note_order()

    return counted


def _asks(body: Any, *_: Any) -> bool:
    """Tell whether a command only asks, as Flower does all the time."""
    said = Panel.meta.get(body.get("method")) if isinstance(body, dict) else None
    return said is not None and said.type == "inspect"
