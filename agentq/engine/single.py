"""Single calls that are like the one before them: made from its message, and waited for on the way that they go.

Celery's way from ``delay()`` to the message costs a caller more than all that the server does for it. What a call of a
step came to there holds for the next ones while nothing has changed that it went by; after a second it is made anew.
Whoever waits for each result before he asks for the next has its subscription travel with the call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

from celery import _state as celery_state
from celery.app.routes import MapRoute
from kombu.utils.compat import _detect_environment
from kombu.utils.uuid import uuid

from agentq.core.errors import Unavailable
from agentq.engine import capture
from agentq.engine.batch import is_unwatched, template_of
from agentq.engine.binding import Binding, binding_of
from agentq.engine.options import CallOptions
from agentq.engine.template import Template
from agentq.engine.this_step import current_attempt
from agentq.store import Store
from agentq.store.caller import Caller, CannotListen
from agentq.store.refs import Offer

if TYPE_CHECKING:
    from agentq.engine.task import Step

LIVES_S: Final = 1.0
"""So long calls are made from one message. What it went by is looked at before each of them; but a table of the
configuration that is changed in place is seen only then, and by Celery itself mostly never."""

PLAIN: Final = frozenset({"queue", "priority"})
"""Options of a call that stand in its message as they are."""

KEPT: Final = 1000
"""Messages that a thread keeps at most."""

HABIT: Final = 2
"""After so many calls whose results were waited for at once, the next one is expected to be as well."""

REFUSED: Final = -1000
"""A server that lets nobody listen so is not asked again for as many calls."""


@dataclass(slots=True)
class Alike:
    """Calls of one step with the same options; ``template`` is False until the second one asks for it.

    Attributes:
        seen: what the message went by.
        born: when the first of them was made.
        ignored: whether nobody is to read their results.
    """

    call: CallOptions
    seen: tuple[Any, ...]
    born: float
    template: Template | Literal[False] | None = False
    ignored: Any = None

    def offer(self, args: list[Any], kwargs: dict[str, Any]) -> Offer:
        """Return the offer of a new step, or run."""
        assert self.template
        return self.template.offer(str(uuid()), 0, args, kwargs)

    def send(self, task: Step[..., Any], args: list[Any], kwargs: dict[str, Any]) -> tuple[str, Any]:
        """Return the id of a new step and its result; None for the result: it is to be sent the whole way, by that id.

        What went wrong does so again there, or is found to have gone well: a step is recorded once.
        """
        assert self.template
        task_id, store = str(uuid()), binding_of(task.app).store
        texts = self.template.texts(task_id, args, kwargs)
        if len(texts[1]) > store.inline_bytes or not _here.offer(store, task_id, texts):
            return task_id, None
        result = task.AsyncResult(task_id)
        result.ignored = self.ignored
        return task_id, result


class _Here(threading.local):
    """What one thread has called last."""

    def __init__(self) -> None:
        self.alike: dict[Any, Alike] = {}
        self._caller: Caller | None = None
        self._store: Store | None = None
        self._habit = 0
        self._last: str | None = None
        self._is_busy = False
        self.listens_for: str | None = None

    def offer(self, store: Store, task_id: str, texts: tuple[str, str]) -> bool:
        """Record and queue a step; False where it is not known to have been."""
        if self._last is not None:
            # Nobody has waited for the one before.
            self._habit = min(self._habit, 0)
        self._last = task_id
        arguments = 0, 1, *texts
        caller = self._caller_at(store)
        if caller is None:
            if self.listens_for is not None:
                self.listen_no_more(self.listens_for)
            try:
                reply = store.run_script("offer", *arguments)
            except Unavailable:
                return False
        else:
            self.listens_for = None
            try:
                with self.alone():
                    reply = caller.offer(task_id, *arguments)
            except CannotListen:
                self._habit = REFUSED
                return False
            if reply is None:
                # A connection that was lost, as any may be.
                self._habit = 0
                return False
            self.listens_for = task_id
        # Else there is no room for it.
        return int(reply[0][0]) in (0, 1)

    def _caller_at(self, store: Store) -> Caller | None:
        """Return the connection for a call whose result is expected to be waited for; None where it goes without."""
        if self._habit < HABIT or self._is_busy:
            return None
        try:
            # Asked here, since a program may make its threads greenlets at any time, and kombu's own answer is kept
            # for ever. They would share this connection.
            if _detect_environment() != "default":
                raise CannotListen("there are greenlets")
            if self._caller is None or not self._caller.is_open or self._store is not store:
                self._caller, self._store = Caller.open(store), store
        except CannotListen:
            self._habit, self._caller = REFUSED, None
        if self._caller is None:
            self._habit = min(self._habit, 0)
        return self._caller

    def waits_for(self, task_id: str) -> bool:
        """Note that somebody waits for a result; tell whether this thread listens for it already."""
        if self._last == task_id:
            self._habit += 1
            self._last = None
        if self.listens_for != task_id or self._is_busy:
            return False
        return self._caller is not None and self._caller.is_open

    def hear(self, task_id: str, seconds: float) -> bytes | None:
        """Return what is published of a result next; None where nothing is in time, or it cannot be heard here."""
        caller = self._caller
        if caller is None or not caller.is_open:
            return None
        told = caller.hear(task_id, seconds)
        if not caller.is_open and self.listens_for == task_id:
            self.listens_for = None
        return told

    def listen_no_more(self, task_id: str) -> None:
        """Nobody is to hear of a result here; a call made meanwhile, by a signal's handler, keeps its own."""
        if self.listens_for != task_id or self._is_busy:
            return
        self.listens_for = None
        if self._caller is not None and self._caller.is_open:
            with self.alone():
                self._caller.leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a signal's handler or a ``__del__``, which may call and wait too, from what is being read here."""
        self._is_busy = True
        try:
            yield
        finally:
            self._is_busy = False


_here = _Here()


def _forget_parent() -> None:
    # The sockets, and the process's id in the messages, are the parent's.
    global _here
    _here = _Here()


os.register_at_fork(after_in_child=_forget_parent)


def waits_for(task_id: str) -> bool:
    """Note that this thread waits for a result; tell whether ``hear`` tells of it."""
    return _here.waits_for(task_id)


@contextmanager
def hearing(task_id: str) -> Iterator[Callable[[float], bytes | None]]:
    """Yield what returns the next state of the result that this thread waits for; None: none in time, or not here."""
    here = _here
    with here.alone():
        yield lambda seconds: here.hear(task_id, seconds)


def has_heard(task_id: str) -> None:
    """Note that nothing more will be told of a result: whoever asks for it again is to look."""
    if _here.listens_for == task_id:
        _here.listens_for = None


def listen_no_more(task_id: str) -> None:
    """Have Celery's own way go on to wait for the result."""
    _here.listen_no_more(task_id)


def alike(
    task: Step[..., Any], binding: Binding, call: CallOptions, options: dict[str, Any], args: Any, kwargs: Any
) -> Alike | None:
    """Return what a call is like; None where it is to go Celery's whole way.

    A call from within a task belongs to that task's run; what else could make a difference is in ``_seen``.
    """
    if options and not all(name in PLAIN and type(value) in (str, int) for name, value in options.items()):
        return None
    app = task._get_app()
    if capture.active() is not None or current_attempt.get() is not None or celery_state._task_stack.stack:
        return None
    key = id(app), task.name, tuple(options.items())
    seen, now, found = _seen(task, app, binding), monotonic(), _here.alike.get(key)
    if seen is None:
        return None
    if found is None or now - found.born > LIVES_S or found.seen != seen or found.call != call:
        if len(_here.alike) >= KEPT:
            _here.alike.clear()
        _here.alike[key] = Alike(call, (*seen[:-1], dict(seen[-1])), now)
        return None
    if found.template is False:
        found.template = None
        _learn(found, task, options, args, kwargs)
    return found if found.template is not None else None


def _seen(task: Step[..., Any], app: Any, binding: Binding) -> tuple[Any, ...] | None:
    """Return all that a call's message goes by, beside its own options; None where it cannot be told.

    The last one is the configuration's own table, of which a copy is to be kept.
    """
    conf, amqp = app._conf, app.__dict__.get("amqp")
    if conf is None or amqp is None or not is_unwatched(task):
        return None
    ways = amqp.__dict__
    return (
        conf,
        amqp._rtable,
        ways.get("router"),
        ways.get("send_task_message"),
        binding.limits,
        binding.tenant_budget,
        binding.zombies,
        binding.pools,
        binding.read_tenants(),
        task.agentq,
        task._get_exec_options(),
        task.soft_time_limit,
        task.time_limit,
        task.ignore_result,
        conf.changes,
    )


def _learn(found: Alike, task: Step[..., Any], options: dict[str, Any], args: Any, kwargs: Any) -> None:
    """Have Celery make a message of the call, which is not sent."""
    if task.app.conf.task_always_eager or not all(isinstance(each, MapRoute) for each in task.app.amqp.routes):
        return  # A route may go by the arguments.
    with capture.capturing() as caught:
        result = task._publish(found.call, *task.schema.encode(args, kwargs), **dict(options))
    if len(caught.offers) != 1 or not _stands_alone(caught.offers[0]):
        return
    found.template = template_of(task, {}, caught.offers)
    found.ignored = result.ignored


def _stands_alone(offer: Offer) -> bool:
    """Tell whether a step begins a run of its own, at once and where any other one like it does."""
    moved = (offer.needs, offer.due_ms, offer.delay_ms, offer.parent, offer.ask, offer.join, offer.start_digest)
    return offer.root == offer.id and all(each is None for each in moved) and '"expires":null' in offer.message
