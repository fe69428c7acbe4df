"""What is read off Celery's worker: its slots, its queues, what runs, and the card that others see of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from celery.worker import state

from agentq.engine.devices.finding import Outfit
from agentq.engine.presence import Card, Presence


def running_takes(presence: Presence | None) -> set[int]:
    """Return the take numbers of the attempts that run now, whether this process knows it already or not."""
    tags = (request.message.delivery_tag for request in tuple(state.active_requests))
    known = {int(tag) for tag in tags if str(tag).isdigit()}
    return known | ({running.take for running in presence.board.running()} if presence is not None else set())


def free_slots(worker: Any) -> Callable[[], int]:
    """Return what counts the slots of a worker in which nothing runs."""
    reserved = state.reserved_requests

    def free() -> int:
        return int(worker.pool.num_processes) - len(reserved)

    return free


def node_name() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def card_of(
    worker: Any, versions: Mapping[str, str | None], outfit: Outfit | None, *, instance: str | None = None
) -> Card:
    """Return the card of a worker that serves these agents, by name and version, with these devices.

    ``instance``: what its platform calls it; None where only the environment may say so.
    """
    return Card(
        label=worker.hostname,
        queues=queues_of(worker),
        concurrency=slots_of(worker),
        details={
            "pid": os.getpid(),
            "host": node_name(),
            "instance": instance or os.environ.get("DYNO") or node_name(),
            "pool": type(worker.pool).__module__.rsplit(".", 1)[-1],
            "agents": dict(versions),
            **({"devices": [asdict(device) for device in outfit.devices]} if outfit is not None else {}),
        },
    )


def slots_of(worker: Any) -> int:
    """Return how many steps a worker may run at once; of a pool that grows and shrinks, the most."""
    autoscale = getattr(worker, "autoscale", None)
    return int(max(autoscale)) if autoscale else int(worker.concurrency)


def queues_of(worker: Any) -> tuple[str, ...]:
    """Return the queues that a worker serves now."""
    return tuple(sorted(worker.app.amqp.queues.consume_from))


def wake(worker: Any) -> None:
    """Have the event loop look for work, if there is one."""
    if worker.hub is not None:
        worker.hub.call_soon(_nothing)


def wake_when_free(worker: Any) -> None:
    """Have the event loop look for work as soon as a thread is free.

    A thread that ends does not wake the loop by itself; with all slots taken the next take would come up to a
    second later.
    """
    pool, hub = worker.pool, worker.hub
    if hub is None or getattr(pool, "executor", None) is None:
        return
    apply = pool.on_apply

    def on_apply(*args: Any, **kwargs: Any) -> Any:
        result = apply(*args, **kwargs)
        result.f.add_done_callback(lambda _future: wake(worker))
        return result

    pool.on_apply = on_apply


def _nothing() -> None:
    pass
