"""What a Celery worker does for agentq besides running tasks: enroll, show that it lives, announce, leave.

``attach`` adds one step to the worker's blueprint and one to its consumer's. Everything about ids and leases is in
``presence.py`` and ``keeper/``, everything about slots in ``slots.py``; this module looks at Celery's worker for them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import billiard.pool
from billiard import current_process
from celery import bootsteps, signals
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.components import Pool

from agentq.core.errors import Unavailable, UsageError
from agentq.engine import afterwords
from agentq.engine.archivist import Archivist
from agentq.engine.devices import pinning
from agentq.engine.devices.finding import Outfit
from agentq.engine.devices.later_queues import refuse_misfits
from agentq.engine.given_up import stop_attempts
from agentq.engine.health.monitor import Monitor
from agentq.engine.keeper import claims
from agentq.engine.misfits import Misfits, fits
from agentq.engine.orders import watch_orders
from agentq.engine.presence import LeaseTerms, Presence
from agentq.engine.recall import Recaller
from agentq.engine.request import has_children, recaller_of
from agentq.engine.rerouting import Rerouter
from agentq.engine.resources import open_shared, warm_names
from agentq.engine.slots import Taker
from agentq.engine.stopping import bound_goodbye, keep_what_was_sent
from agentq.engine.task import Step
from agentq.engine.unreadable import keep_unreadable
from agentq.engine.watching import LossTeller, watch_worker
from agentq.engine.worker_terms import Terms
from agentq.engine.worker_view import card_of, free_slots, node_name, queues_of, running_takes, wake_when_free
from agentq.engine.zombie_watch import ZombieWatch
from agentq.store import Store

logger = get_logger(__name__)

AFTERWORDS_S = 5.0
"""For what is still to be written when a worker ends; without a server none of it can be."""

EXIT_USAGE = 2
"""Exit status of a worker that can never start so: its configuration is wrong."""

LAST_WORDS = 40
"""How many tenths of a second a child waits at its end for what it has sent to be read."""

BEAT_S = 0.5
"""How often the main loop shows that it comes round; it is judged by the minute."""


def attach(app: Any, terms: Terms) -> None:
    """Have every worker of ``app`` serve on ``terms``; a second call replaces the first."""
    for blueprint, base in (("worker", Service), ("consumer", Upkeep)):
        steps = app.steps[blueprint]
        for step in [step for step in steps if isinstance(step, type) and issubclass(step, base)]:
            steps.discard(step)
        steps.add(type(f"Agentq{base.__name__}", (base,), {"terms": terms, "__module__": __name__}))
    signals.worker_process_init.connect(_take_seat, weak=False, dispatch_uid="agentq-seat")


def _take_seat(**_kwargs: Any) -> None:
    # A child that ends waits until the main process has read what it has sent, for 30 s: but in its own shutdown that
    # one may have stopped reading, and platforms kill after 30 s. A step's outcome is in the store by then.
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = LAST_WORDS
    slot = int(getattr(current_process(), "index", -1))
    # First of all: whatever this process imports from here on may ask which devices it sees.
    pinning.pin(slot)
    claims.sit(slot)


class Service(bootsteps.StartStopStep):
    """Enrolls when the pool is up, before the consumer takes; leaves when the pool has come to rest."""

    requires = (Pool,)
    label = "agentq"
    terms: ClassVar[Terms]

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.presence: Presence | None = None
        self.recaller: Recaller | None = None
        self.archivist: Archivist | None = None
        self.rerouter: Rerouter | None = None
        self.zombies: ZombieWatch | None = None
        self.outfit: Outfit | None = None
        self.monitor: Monitor | None = None
        self.losses: LossTeller | None = None
        parent.agentq_service = self
        _unless_misused(lambda: watch_worker(self.terms.watcher))

    def include(self, parent: Any) -> bool:
        """Join the worker's steps, and stand in front of them with what begins first and ends last."""
        included: bool = super().include(parent)
        if included:
            parent.steps.insert(0, Frame(self))
        return included

    def prepare(self, parent: Any) -> None:
        """Have the keeper start, beside the pool."""
        self._equip(parent)
        store, terms = self.terms.open_store(), self.terms
        lease = LeaseTerms(
            lease_s=terms.lease_s,
            renew_s=terms.renew_s,
            tick_s=terms.tick_s,
            hard_s=terms.hard_s,
            grace_s=terms.kill_grace_s,
        )

        def make_taker() -> Taker:
            return Taker(
                store,
                label=parent.hostname,
                free=free_slots(parent),
                idle=lambda: not state.reserved_requests,
                running=lambda: running_takes(self.presence),
                highest=lambda: _highest_of_children(parent, self.presence),
                misfit=Misfits(
                    # The consumer's own table, not the app's: a task that was registered since has no strategy there.
                    serves=lambda name: name in parent.consumer.strategies,
                    agent=parent.app.tasks.get,
                    store=store,
                ),
                adopts=lambda payload: _header_of(parent.app, payload),
            )

        self.presence = Presence(
            store,
            lease,
            card=lambda: card_of(parent, self._versions, self.outfit, instance=terms.instance),
            make_taker=make_taker,
        )
        self.presence.begin()
        open_shared()

    def _equip(self, parent: Any) -> None:
        """Look after the devices that the worker's pools declare; the worker ends where they are not there."""

        def equip() -> None:
            self.outfit = self.terms.find_outfit(queues_of(parent))
            if self.outfit is not None:
                pinning.equip(parent, self.outfit)

        _unless_misused(equip)

    def start(self, parent: Any) -> None:
        """Return once the worker is enrolled."""
        presence = self._presence
        if not parent.app.conf.broker_connection_retry_on_startup:
            presence.store.now_ms()
        while not presence.wait_enrolled(0.5):
            state.maybe_shutdown()
        self.recaller = recaller_of(parent, self.terms.open_brief_store(), grace_s=self.terms.cancel_grace_s)
        self.recaller.start()
        self.monitor = Monitor(
            parent,
            presence,
            self.terms.open_brief_store(),
            self.terms.health,
            node=node_name(),
            queues=lambda: queues_of(parent),
            outfit=self.outfit,
            warm=lambda: warm_names(presence.board.warm()),
        )
        self.monitor.start()
        keep_unreadable(parent.consumer)
        refuse_misfits(parent.consumer, self.outfit, self.terms.find_outfit)
        watch_orders(parent.consumer)
        wake_when_free(parent)
        keep_what_was_sent(parent)
        self._open_archive()
        self.rerouter = Rerouter(
            self.terms.open_brief_store(),
            pools=self.terms.pools,
            queues=self.terms.queues,
            after_s=self.terms.stranded_s,
        )
        self.rerouter.start()
        self.zombies = ZombieWatch(self.terms.open_brief_store())
        self.zombies.start()
        if self.terms.watcher.is_on():
            self.losses = LossTeller(self.terms.open_brief_store(), self.terms.watcher)
            self.losses.start()

    @cached_property
    def _versions(self) -> dict[str, str | None]:
        return {name: said.get("version") for name, said in self.terms.announcements().items()}

    @property
    def _presence(self) -> Presence:
        assert self.presence is not None, "the frame starts first"
        return self.presence

    def stop(self, parent: Any) -> None:
        """Do nothing: the farewell comes after the pool."""

    def terminate(self, parent: Any) -> None:
        """Do nothing: the farewell comes after the pool."""

    def info(self, parent: Any) -> dict[str, Any]:
        """Return what ``inspect stats`` shows."""
        return {"agentq": {"worker": self.presence.taker.id if self.presence is not None else None}}

    def _open_archive(self) -> None:
        store = self.terms.open_archive_store()
        if store is not None:
            self.archivist = Archivist(store)
            self.archivist.start()

    def beat(self, parent: Any) -> None:
        """Show that the loop comes round; go on under a fresh id when the worker was given up."""
        presence = self._presence
        try:
            presence.beat()
            if not presence.is_lost:
                presence.wait_enrolled(0.0)
            elif stop_attempts(parent):
                presence.begin_anew()
        except Unavailable as error:
            logger.warning("beat_waits: %s", error)

    def reconcile(self, consumer: Any) -> None:
        """Hand back what is held in this worker's name and known to nobody."""
        # Of another broker's messages the desk counts what was claimed.
        hands = getattr(consumer, "agentq_hands", None) or getattr(consumer.task_consumer, "channel", None)
        takes = getattr(getattr(hands, "qos", None), "takes", None)
        if takes is None:
            return
        try:
            self._presence.reconcile({*takes(), *running_takes(self.presence)})
        except Unavailable as error:
            logger.warning("reconcile_waits: %s", error)

    def announce(self, tasks: Mapping[str, Any]) -> None:
        """Publish the agents, and call for what waited for this worker's code.

        Again after each new connection, since the server may have lost its data.
        """
        presence = self._presence
        try:
            presence.store.announce(presence.taker.id, dict(self.terms.announcements()))
            presence.store.hasten(lambda each: fits(each, tasks.get(each.name)))
            warn_of_eviction(presence.store)
        except Unavailable as error:
            logger.warning("announcement_waits: %s", error)


class Frame(bootsteps.StartStopStep):
    """The beginning and the end of ``Service``, around all the worker's other steps.

    The page must be there when the pool makes its children, and a lease must outlive the pool: a warm shutdown runs
    what was taken to its end.
    """

    label = "agentq frame"

    def __init__(self, service: Service) -> None:
        self.service = service

    def start(self, parent: Any) -> None:
        """Make the page and start the keeper.

        What is loaded by now stays for good: left out of Python's search for garbage, it costs no time with each
        search, and the pool's children go on sharing it, since a search writes to all that it looks at. A worker
        without children may be a part of somebody else's process, whose objects are not ours to keep.
        """
        self.service.prepare(parent)
        if pinning.forks(parent):
            # What is garbage already would stay as well.
            gc.collect()
            gc.freeze()

    def stop(self, parent: Any) -> None:
        """Leave: all that was taken has come to its end."""
        if not afterwords.finish(AFTERWORDS_S):
            logger.warning("worker_left_with_words_unsaid: what it had to say of lost steps, the others find out")
        service = self.service
        close = getattr(getattr(parent, "autoscaler", None), "close", None)
        if close is not None:
            close()
        if service.monitor is not None:
            service.monitor.close()
        if service.recaller is not None:
            service.recaller.close()
        for looker in (service.rerouter, service.zombies, service.losses):
            if looker is not None:
                looker.stop()
        if service.archivist is not None:
            service.archivist.stop()
        if service.presence is not None:
            service.presence.leave()
        service.terms.watcher.flush()

    def terminate(self, parent: Any) -> None:
        """Leave, if nothing runs any more.

        Threads cannot be killed: they run on until the process ends, so their steps stay held, and the lease
        stands, until then.
        """
        if getattr(parent.pool, "executor", None) is None:
            self.stop(parent)
        elif self.service.presence is not None:
            self.service.presence.release()


class Upkeep(bootsteps.StartStopStep):
    """What is done again and again while a connection to the broker stands, in the consumer's own loop."""

    # By its name: importing it binds the tracer that other packages are about to put theirs around.
    requires = ("celery.worker.consumer:Connection",)
    label = "agentq upkeep"
    terms: ClassVar[Terms]

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._entries: list[Any] = []

    def start(self, parent: Any) -> None:
        """Begin with a look: much may have happened since the last connection."""
        worker = parent.controller
        service: Service | None = getattr(worker, "agentq_service", None)
        if service is None or service.presence is None:
            return
        service.beat(worker)
        service.announce(parent.app.tasks)
        repeat = parent.timer.call_repeatedly
        self._entries = [
            repeat(BEAT_S, service.beat, (worker,)),
            repeat(self.terms.reconcile_s, service.reconcile, (parent,)),
        ]

    def stop(self, parent: Any) -> None:
        """End it."""
        entries, self._entries = self._entries, []
        for entry in entries:
            parent.timer.cancel(entry)

    def shutdown(self, parent: Any) -> None:
        """The consumer's connection is closed next."""
        bound_goodbye(parent.connection)


def _unless_misused(call: Callable[[], None]) -> None:
    """Make the call; the worker ends where its configuration is wrong."""
    try:
        call()
    except UsageError as error:
        # One line of words instead of the traceback with which Celery tells what raises here.
        logger.critical("cannot_start: %s", error)
        raise SystemExit(EXIT_USAGE) from error


def warn_of_eviction(store: Store) -> None:
    """Say in the log that the server may delete steps and runs when its memory is short."""
    policy = store.eviction_policy()
    if policy not in (None, "noeviction"):
        logger.warning(
            "server_evicts: its maxmemory-policy is %s, so that it may delete runs when memory is short: CONFIG SET "
            "maxmemory-policy noeviction",
            policy,
        )


def _highest_of_children(worker: Any, presence: Presence | None) -> int:
    # Threads tell the taker themselves.
    return presence.board.highest() if presence is not None and has_children(worker.pool) else 0


def _header_of(app: Any, payload: dict[str, Any]) -> dict[str, Any] | None:
    """Return our header for a message of a producer without agentq, if its task is a step or an agent here."""
    headers = payload["headers"]
    task = app.tasks.get(headers.get("task", ""))
    if not isinstance(task, Step) or "id" not in headers:
        return None
    headers.setdefault("root_id", headers["id"])
    return task.header_of(task.call, [], {})
