"""What a Celery worker does for agentq besides running tasks: enroll, keep its lease, announce, leave.

``attach`` adds one step to the worker's blueprint. Everything about leases is in ``lease.py``, everything
about slots in ``slots.py``; this module looks at Celery's worker for them.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import sleep
from typing import Any, ClassVar

from celery import bootsteps
from celery.app.task import Context
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.components import Pool

from agentq.core.errors import Unavailable
from agentq.engine import afterwords
from agentq.engine.archivist import Archivist
from agentq.engine.lease import Lease
from agentq.engine.messages import HOLDER_HEADER
from agentq.engine.recall import Recaller
from agentq.engine.request import recaller_of
from agentq.engine.slots import Taker, publish, withdraw
from agentq.engine.task import Step
from agentq.store import Store

logger = get_logger(__name__)

EXIT_GIVEN_UP = 70
"""Exit status of a worker that was given up (EX_SOFTWARE): anything but 0, so that its supervisor starts
another."""

AFTERWORDS_S = 5.0
"""For what is still to be written when a worker ends; without a server none of it can be."""

GIVEN_UP_GRACE_S = 5.0
"""For Celery's own cold shutdown of a worker that was given up; what runs then cannot commit, but does
cost."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms the workers of an app serve.

    Attributes:
        open_store: the app's store.
        open_archive_store: a store of the archivist's own; None where ended runs are not kept.
        open_lease_store: a store of the lease's own, with a time-out below the lease.
        lease_s, renew_s, tick_s: seconds; see ``Lease``.
        cancel_grace_s: how long a step may take to stop when it is told to.
        announcements: by agent name, what workers publish of it.
    """

    open_store: Callable[[], Store]
    open_lease_store: Callable[[], Store]
    open_archive_store: Callable[[], Store | None] = lambda: None
    lease_s: float = 3.0
    renew_s: float = 0.5
    tick_s: float = 0.25
    cancel_grace_s: float = 10.0
    announcements: Callable[[], Mapping[str, dict[str, Any]]] = dict


def attach(app: Any, terms: Terms) -> None:
    """Have every worker of ``app`` serve on ``terms``; a second call replaces the first."""
    steps = app.steps["worker"]
    for step in [step for step in steps if isinstance(step, type) and issubclass(step, Service)]:
        steps.discard(step)
    steps.add(type("AgentqService", (Service,), {"terms": terms, "__module__": __name__}))


class Service(bootsteps.StartStopStep):
    """Enrolls when the pool is up, before the consumer takes; leaves when the pool has come to rest."""

    requires = (Pool,)
    label = "agentq"
    terms: ClassVar[Terms]

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.taker: Taker | None = None
        self.lease: Lease | None = None
        self.recaller: Recaller | None = None
        self.archivist: Archivist | None = None

    def include(self, parent: Any) -> bool:
        """Join the worker's steps, and stand in front of them with what must be stopped last."""
        included: bool = super().include(parent)
        if included:
            # Steps stop in reverse. The lease must outlive the pool: a warm shutdown runs what was taken to
            # its end.
            parent.steps.insert(0, Farewell(self))
        return included

    def start(self, parent: Any) -> None:
        """Enroll and take up the lease."""
        store = self.terms.open_store()
        taker = Taker(
            store,
            label=parent.hostname,
            free=_free_slots(parent),
            idle=lambda: not state.reserved_requests,
            running=running_takes,
            # The consumer's own table, not the app's: a task that was registered since has no strategy there.
            serves=lambda name: name in parent.consumer.strategies,
            adopts=lambda payload: _header_of(parent.app, payload),
            on_refused=lambda: give_up(parent),
        )
        self.taker = taker
        self._enroll(parent, taker)
        publish(taker)
        self.lease = Lease(
            self.terms.open_lease_store(),
            taker.id,
            lease_s=self.terms.lease_s,
            renew_s=self.terms.renew_s,
            tick_s=self.terms.tick_s,
            queues=lambda: _queues(parent),
            on_lost=taker.refuse,
        )
        self.lease.start()
        self.recaller = recaller_of(parent, self.terms.open_lease_store(), grace_s=self.terms.cancel_grace_s)
        self.recaller.start()
        keep_durable(parent.consumer)
        wake_when_free(parent)
        self._open_archive()
        logger.info("worker_enrolled worker=%s label=%s", taker.id, taker.label)

    def _enroll(self, parent: Any, taker: Taker) -> None:
        pause = 0.1
        while True:
            try:
                taker.store.enroll(
                    taker.id,
                    label=parent.hostname,
                    queues=_queues(parent),
                    concurrency=parent.concurrency,
                    lease_ms=int(self.terms.lease_s * 1000),
                    details={
                        "pid": os.getpid(),
                        "host": socket.gethostname(),
                        "pool": type(parent.pool).__module__.rsplit(".", 1)[-1],
                    },
                )
                taker.store.announce(taker.id, dict(self.terms.announcements()))
                warn_of_eviction(taker.store)
                return
            except Unavailable as error:
                if not parent.app.conf.broker_connection_retry_on_startup:
                    raise
                logger.warning("worker_not_enrolled: %s", error)
            state.maybe_shutdown()
            sleep(pause)
            pause = min(pause * 2, 2.0)

    def stop(self, parent: Any) -> None:
        """Do nothing: the farewell comes after the pool."""

    def terminate(self, parent: Any) -> None:
        """Do nothing: the farewell comes after the pool."""

    def info(self, parent: Any) -> dict[str, Any]:
        """Return what ``inspect stats`` shows."""
        return {"agentq": {"worker": self.taker.id if self.taker is not None else None}}

    def _open_archive(self) -> None:
        store = self.terms.open_archive_store()
        if store is not None:
            self.archivist = Archivist(store)
            self.archivist.start()

    def farewell(self) -> None:
        """Hand back what is held and has not started; the worker's id is never used again."""
        if not afterwords.finish(AFTERWORDS_S):
            logger.warning("worker_left_with_words_unsaid: what it had to say of lost steps, the others find out")
        if self.recaller is not None:
            self.recaller.close()
        if self.archivist is not None:
            self.archivist.stop()
        if self.lease is not None:
            self.lease.stop()
        if self.taker is None:
            return
        withdraw(self.taker)
        if self.taker.refused:
            return
        try:
            returned = self.taker.leave()
            logger.info("worker_left worker=%s returned=%d", self.taker.id, returned)
        except Unavailable as error:
            logger.warning("worker_left_without_word worker=%s: %s", self.taker.id, error)


class Farewell(bootsteps.StartStopStep):
    """The end of ``Service``, at the other end of the worker's steps."""

    label = "agentq farewell"

    def __init__(self, service: Service) -> None:
        self.service = service

    def start(self, parent: Any) -> None:
        """Do nothing: the service starts after the pool."""

    def stop(self, parent: Any) -> None:
        """Leave: all that was taken has come to its end."""
        self.service.farewell()

    def terminate(self, parent: Any) -> None:
        """Leave, if nothing runs any more.

        Threads cannot be killed: they run on until the process ends, so their steps stay held, and the lease
        stands, until then.
        """
        if getattr(parent.pool, "executor", None) is None:
            self.service.farewell()


def warn_of_eviction(store: Store) -> None:
    """Say in the log that the server may delete steps and runs when its memory is short."""
    policy = store.eviction_policy()
    if policy not in (None, "noeviction"):
        logger.warning(
            "server_evicts: its maxmemory-policy is %s, so that it may delete runs when memory is short: CONFIG SET "
            "maxmemory-policy noeviction",
            policy,
        )


def running_takes() -> Iterable[int]:
    """Return the take numbers of the attempts that run now."""
    tags = (request.message.delivery_tag for request in tuple(state.active_requests))
    return {int(tag) for tag in tags if str(tag).isdigit()}


def give_up(worker: Any) -> None:
    """End this worker: another owns what it held, and nothing that it does counts any more.

    Celery's cold shutdown first; if that does not come to an end (a thread cannot be killed, a main loop may
    stand still), the process ends hard.
    """
    logger.critical("worker_given_up: marked dead by the others; ending, so that another can be started")
    worker.exitcode = EXIT_GIVEN_UP
    state.should_terminate = EXIT_GIVEN_UP
    threading.Thread(target=_end_hard, args=(worker,), name="agentq-end", daemon=True).start()


def _end_hard(worker: Any) -> None:
    children = _children(worker)
    sleep(GIVEN_UP_GRACE_S)
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    os._exit(EXIT_GIVEN_UP)


def _children(worker: Any) -> list[int]:
    pool = getattr(worker.pool, "_pool", None)
    return [process.pid for process in getattr(pool, "_pool", None) or [] if process.pid is not None]


def _free_slots(worker: Any) -> Callable[[], int]:
    reserved = state.reserved_requests

    def free() -> int:
        return int(worker.pool.num_processes) - len(reserved)

    return free


def _queues(worker: Any) -> tuple[str, ...]:
    return tuple(sorted(worker.app.amqp.queues.consume_from))


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
        result.f.add_done_callback(lambda _future: hub.call_soon(_nothing))
        return result

    pool.on_apply = on_apply


def _nothing() -> None:
    pass


def keep_durable(consumer: Any) -> None:
    """Have steps that cannot be decoded, or are no valid task, end as failed.

    Celery rejects such messages, which for a step means nothing: it would stay in this worker's hands for
    ever.
    """

    def guard(method: Callable[..., Any], *, at: int) -> Callable[..., Any]:
        def handle(*args: Any) -> Any:
            message, error = args[at], args[-1]
            headers = message.headers or {}
            if HOLDER_HEADER in headers:
                logger.error("step_not_accepted id=%s task=%s: %r", headers.get("id"), headers.get("task"), error)
                request = Context(headers, args=(), kwargs={})
                consumer.app.backend.mark_as_failure(headers["id"], error, request=request)
            return method(*args)

        return handle

    consumer.on_decode_error = guard(consumer.on_decode_error, at=0)
    consumer.on_invalid_task = guard(consumer.on_invalid_task, at=1)


def _header_of(app: Any, payload: dict[str, Any]) -> dict[str, Any] | None:
    """Return our header for a message of a producer without agentq, if its task is a step or an agent here."""
    headers = payload["headers"]
    task = app.tasks.get(headers.get("task", ""))
    if not isinstance(task, Step) or "id" not in headers:
        return None
    headers.setdefault("root_id", headers["id"])
    return task.header_of(task.call, [], {})
