"""What a worker does in split mode besides: publish what waits in the store, claim what the broker delivers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from celery import bootsteps
from celery.worker.components import Pool

from agentq.engine.mode import is_redis
from agentq.engine.slots import current
from agentq.engine.split.adopting import adopt_steps
from agentq.engine.split.desk import Desk
from agentq.engine.split.posting import Outlet, Poster
from agentq.store import Store


@dataclass(frozen=True, slots=True)
class SplitTerms:
    """How the workers of an app use a broker beside the store.

    Attributes:
        is_split: whether they do; asked when a worker starts.
        open_store: a store of the caller's own, which may wait there.
        open_brisk_store: one with a time-out short enough for an event loop.
        prefix: the first part of the names of hint queues.
        kind: RabbitMQ's type of the hint queues.
        requeue_after_s: after which a step that nobody has claimed is published again, doubling.
        low_share: of what a worker claims every N-th is for the lower lanes.
        age_s: what has waited for longer goes first in that share.
    """

    is_split: Callable[[], bool]
    open_store: Callable[[], Store]
    open_brisk_store: Callable[[], Store]
    prefix: str = "agentq"
    kind: str = "quorum"
    requeue_after_s: float = 30.0
    low_share: int = 8
    age_s: float = 60.0


def attach_split(app: Any, terms: SplitTerms) -> None:
    """Have every worker of ``app`` serve on ``terms`` if it is in split mode; a second call replaces the first."""
    for blueprint, step in (("worker", Posting), ("consumer", Claiming)):
        steps = app.steps[blueprint]
        for known in [known for known in steps if isinstance(known, type) and issubclass(known, step)]:
            steps.discard(known)
        steps.add(type(f"Agentq{step.__name__}", (step,), {"terms": terms, "__module__": __name__}))


class Posting(bootsteps.StartStopStep):
    """Publishes from when the worker's pool is up until it has come to rest."""

    requires = (Pool,)
    label = "agentq posting"
    terms: ClassVar[SplitTerms]

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.poster: Poster | None = None

    def include_if(self, parent: Any) -> bool:
        """Tell whether there is a broker beside the store."""
        return self.terms.is_split()

    def include(self, parent: Any) -> bool:
        """Join the worker's steps, and stand in front of them to stop last: what ends a step goes on to the next."""
        included: bool = super().include(parent)
        if included:
            parent.steps.insert(0, _End(self))
        return included

    def start(self, parent: Any) -> None:
        """Begin to publish, and to take over steps that producers without agentq send."""
        terms = self.terms
        outlet = Outlet(parent.app, prefix=terms.prefix, kind=terms.kind)
        self.poster = Poster(
            terms.open_store(),
            outlet,
            pause_s=terms.requeue_after_s,
            queues=lambda: sorted(parent.app.amqp.queues.consume_from),
            plain=not is_redis(parent.app.conf.broker_url),
        )
        self.poster.start()
        adopt_steps(parent.consumer, terms.open_brisk_store())

    def stop(self, parent: Any) -> None:
        """Do nothing: the end comes after the pool."""

    def terminate(self, parent: Any) -> None:
        """Do nothing: the end comes after the pool."""


class _End(bootsteps.StartStopStep):
    """The end of ``Posting``, at the other end of the worker's steps."""

    label = "agentq posting's end"

    def __init__(self, posting: Posting) -> None:
        self.posting = posting

    def start(self, parent: Any) -> None:
        """Do nothing: posting starts after the pool."""

    def stop(self, parent: Any) -> None:
        """Publish no more."""
        if self.posting.poster is not None:
            self.posting.poster.stop()

    terminate = stop


class Claiming(bootsteps.StartStopStep):
    """Consumes hints while the worker is connected to its broker."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    label = "agentq claiming"
    terms: ClassVar[SplitTerms]

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.desk: Desk | None = None
        self.store: Store | None = None

    def include_if(self, parent: Any) -> bool:
        """Tell whether there is a broker beside the store."""
        return self.terms.is_split()

    def start(self, parent: Any) -> None:
        """Open the desk; Celery's own consumer gets what is claimed there."""
        taker = current()
        if taker is None:
            return
        terms = self.terms
        if self.store is None:
            self.store = terms.open_brisk_store()
        desk = Desk(
            parent.connection,
            parent.hub,
            lambda: current() or taker,
            self.store,
            prefix=terms.prefix,
            kind=terms.kind,
            slots=parent.pool.num_processes,
            queues=lambda: parent.app.amqp.queues.consume_from,
            low_share=terms.low_share,
            age_s=terms.age_s,
        )
        desk.hands.handler = lambda message: _receive(parent, message)
        desk.open()
        self.desk = desk
        parent.agentq_hands = desk.hands

    def stop(self, parent: Any) -> None:
        """Close the desk; what runs goes on."""
        desk, self.desk = self.desk, None
        parent.agentq_hands = None
        if desk is not None:
            desk.close()

    shutdown = stop


def _receive(consumer: Any, message: Any) -> None:
    """Give a claimed message to Celery as its own consumer would, one that cannot be decoded included."""
    tasks = consumer.task_consumer
    if tasks.accept is not None:
        message.accept = tasks.accept
    if message.errors:
        message._reraise_error(consumer.on_decode_error)
    else:
        tasks.on_message(message)
