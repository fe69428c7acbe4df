"""On which terms an app's workers serve: what assembly decides, and the worker's steps read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentq.core.pools import Declared
from agentq.engine.devices.finding import Outfit
from agentq.engine.health.monitor import HealthTerms
from agentq.engine.watching import Watcher
from agentq.store import Store


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms the workers of an app serve.

    Attributes:
        open_store: the app's store.
        open_archive_store: a store of the archivist's own; None where ended runs are not kept.
        open_brief_store: one with a short time-out, for questions that are asked again soon.
        find_outfit: the GPUs of this machine for a worker of these queues; None where it needs none.
        lease_s, renew_s, tick_s: of the lease, in seconds.
        cancel_grace_s: how long a step may take to stop when it is told to.
        hard_s: hard limit of an attempt that has none of its own.
        reconcile_s: how often the store's account of what is held here is compared with ours, by one short command.
        kill_grace_s: from a hard limit to the end of its process.
        announcements: by agent name, what workers publish of it.
        pools: the declared pools.
        queues: all queues that the app's steps may go to.
        stranded_s: how long after its last worker a pool's steps go elsewhere.
        health: from when on a worker takes nothing, and how long it may take to stop.
        instance: what the worker's platform calls it; None: by DYNO, or the host's name.
        watcher: is told of failures, losses and dead letters.
    """

    open_store: Callable[[], Store]
    open_brief_store: Callable[[], Store]
    open_archive_store: Callable[[], Store | None] = lambda: None
    find_outfit: Callable[[Iterable[str]], Outfit | None] = lambda queues: None
    lease_s: float = 3.0
    renew_s: float = 0.5
    tick_s: float = 0.25
    cancel_grace_s: float = 10.0
    hard_s: float = 630.0
    kill_grace_s: float = 1.0
    reconcile_s: float = 3.0
    announcements: Callable[[], Mapping[str, dict[str, Any]]] = dict
    pools: Callable[[], Declared] = Declared
    queues: Callable[[], Sequence[str]] = tuple
    stranded_s: float = 5.0
    health: HealthTerms = field(default_factory=HealthTerms)
    instance: str | None = None
    watcher: Watcher = field(default_factory=Watcher)
