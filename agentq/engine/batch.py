"""The steps that one group publishes, as a few large offers instead of one round trip each.

``group.apply_async`` and chords publish their members one by one with one producer; when that goes back, the batch
ends. Its members are recorded in chunks, and those like the first one are made from it; each is a step of its own all
the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from celery import Celery, signals
from celery.app.task import Task
from kombu.exceptions import OperationalError
from kombu.messaging import Producer

from agentq.core.errors import QueueFull, Unavailable
from agentq.engine import capture
from agentq.engine.messages import is_plain_json
from agentq.engine.options import CallOptions
from agentq.engine.room import patiently
from agentq.engine.routing import router_for
from agentq.engine.template import Template
from agentq.store import Store
from agentq.store.refs import Offer

if TYPE_CHECKING:
    from agentq.engine.task import Step

CHUNK: Final = 250
"""Messages of one script: the server serves nobody else in the meantime, some 10 ms."""

_OWN: Final = frozenset({"group_index"})
"""Options in which the members of a group differ, and which are filled in."""


class Batch:
    """What one producer publishes for a group.

    Nothing is in custody before ``flush``; an error on the way leaves out what was not flushed.
    """

    def __init__(self, app: Any, producer: Any, open_store: Callable[[], Store]) -> None:
        self.producer = producer
        self._app = app
        self._call = CallOptions()
        self._open_store = open_store
        self._offers: list[Offer] = []
        self._likeness: Any = None
        self._template: Template | None = None

    def add(self, offers: list[Offer]) -> None:
        """Take messages over."""
        self._offers += offers
        if len(self._offers) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Put all into custody; raises OperationalError, as Celery does, when the server is away.

        Raises QueueFull where there is no room for all, after the time for which their call waits; some of them are in
        custody then.
        """
        offers, self._offers = self._offers, []
        # The next one goes the whole way again: what is free has changed, and with it perhaps the route.
        self._template = None
        caught = capture.active()
        if caught is not None:
            caught.offers.extend(offers)
        elif offers:
            try:
                # What found room the first time is known the second time.
                patiently(self._app, self._call, lambda: self._open_store().offer(offers))
            except QueueFull:
                raise
            except Unavailable as error:
                raise OperationalError(str(error)) from error

    def template_for(self, likeness: Any) -> Template | None:
        """Return the template that was made from a message of this likeness."""
        return self._template if self._template is not None and likeness == self._likeness else None

    def learn(self, call: CallOptions, likeness: Any, offers: list[Offer], template: Template | None) -> None:
        """Take a call's message over, and have others of this likeness made from the template."""
        self.add(offers)
        self._call, self._likeness, self._template = call, likeness, template


_open: ContextVar[Batch | None] = ContextVar("agentq_batch", default=None)


def batch_of(producer: Any, options: dict[str, Any]) -> Batch | None:
    """Return the batch that a call belongs to; None for what is no member of a group."""
    batch = _open.get()
    if batch is None or batch.producer is not producer or options.get("group_index") is None:
        return None
    return batch


def likeness_of(task: Step[..., Any], call: Any, options: dict[str, Any], *others: Any) -> Any:
    """Return what two calls have in common whose messages differ in ids and arguments only."""
    return task.name, call, {name: value for name, value in options.items() if name not in _OWN}, others


def template_of(task: Step[..., Any], options: dict[str, Any], offers: list[Offer]) -> Template | None:
    """Return the template that a step's message is; None where each message must go through Celery's own path.

    Somebody may look at each on the way (a signal's receiver, a library that wraps Celery's functions, events), or
    change it by its arguments. That of an agent with a key holds a hash of them.
    """
    if (
        len(offers) != 1
        or offers[0].args_digest is not None
        or not is_unwatched(task)
        or task.app.conf.task_send_sent_event
    ):
        return None
    (first,) = offers
    return (
        Template(
            first,
            shows_arguments="argsrepr" not in options and "kwargsrepr" not in options,
            route=router_for(task.app, first),
        )
        if first.kind != "plain" and is_plain_json(json.loads(first.message))
        else None
    )


def is_unwatched(task: Any) -> bool:
    """Tell whether nobody looks at a message on its way, as far as the configuration does not say so."""
    return not (
        signals.before_task_publish.receivers
        or signals.after_task_publish.receivers
        or signals.task_sent.receivers
        or hasattr(Task.apply_async, "__wrapped__")
        or hasattr(Celery.send_task, "__wrapped__")
        or hasattr(Producer.publish, "__wrapped__")
        # By what they say of themselves: a task that is not finalized yet stands behind a proxy.
        or task.app.__class__.send_task is not Celery.send_task
        or "send_task" in task.app.__dict__
        or task.__class__.shadow_name is not Task.shadow_name
    )


def open_batches(app: Any, open_store: Callable[[], Store]) -> None:
    """Have each producer that ``app`` lends out be a batch until it goes back; a second call replaces the first."""
    lend = type(app).producer_or_acquire

    @contextmanager
    def producer_or_acquire(producer: Any = None) -> Iterator[Any]:
        if producer is not None:
            yield producer
            return
        with lend(app) as acquired:
            batch = Batch(app, acquired, open_store)
            token = _open.set(batch)
            try:
                yield acquired
            finally:
                _open.reset(token)
            batch.flush()

    app.producer_or_acquire = app.default_producer = producer_or_acquire
