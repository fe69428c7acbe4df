"""How a worker's main process receives a step: as Celery does, and the child that runs it may go on by itself.

Celery's own strategy has no place for another target of the pool's calls. Plain messages, which have no record, stay
with it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from celery import signals
from celery.app import trace as celery_trace
from celery.exceptions import InvalidTaskError
from celery.utils.imports import symbol_by_name
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import create_request_cls
from celery.worker.strategy import default
from kombu.serialization import prepare_accept_content

from agentq.engine import afloat, going_on
from agentq.engine.keeper import claims
from agentq.engine.messages import HOLDER_HEADER, JSON_TYPE, is_call
from agentq.engine.request import has_children
from agentq.engine.slots import Taker
from agentq.engine.worker_view import wake

logger = get_logger("celery.worker.strategy")

MOST_REVOKED: Final = 100
"""Ids that the children are told not to go on with; with more, they do not go on."""

Handle = Callable[..., Any]


def strategy(task: Any, app: Any, consumer: Any, **options: Any) -> Handle:
    """Return what handles this task's messages in a consumer, as Celery's strategies do."""
    plain = default(task, app, consumer, **options)
    eventer = consumer.event_dispatcher
    may_go_on = app.use_fast_trace_task and _outlives(consumer, task) and _accepts_json(app)
    target = going_on.trace if may_go_on else None
    Request = create_request_cls(
        symbol_by_name(task.Request), task, consumer.pool, consumer.hostname, eventer, app=app, trace=target
    )
    if getattr(consumer.pool, "executor", None) is not None and app.use_fast_trace_task and _runs_afloat(task):
        timed = afloat.Timed(task, consumer.hostname)
        if timed.is_celerys_own:
            Request = afloat.request_class(Request, timed, consumer.pool, lambda: wake(consumer.controller))
    utc = app.uses_utc_timezone()
    tells = bool(eventer and eventer.enabled and task.send_events)
    limits = not consumer.disable_rate_limits

    def handle(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, **kwargs: Any) -> Any:
        is_step = body is None and HOLDER_HEADER in message.headers
        if is_step and not is_call(message.payload):
            # Celery's tracer would refuse it too, but without an outcome: it would be held for ever.
            raise InvalidTaskError("its body is no list of arguments, a mapping of named ones and one of what goes on")
        if not is_step or message.headers.get("eta"):
            return plain(message, body, ack, reject, callbacks, **kwargs)
        request = Request(
            message,
            on_ack=ack,
            on_reject=reject,
            app=app,
            hostname=consumer.hostname,
            eventer=eventer,
            task=task,
            connection_errors=consumer.connection_errors,
            body=message.body,
            headers=message.headers,
            decoded=False,
            utc=utc,
        )
        if logger.isEnabledFor(logging.INFO):
            said = {"id": request.id, "name": request.name, "args": request.argsrepr, "kwargs": request.kwargsrepr}
            logger.info(celery_trace.LOG_RECEIVED, said, extra={"data": {**said, "eta": request.eta}})
        if (request.expires or request.id in state.revoked) and request.revoked():
            return None
        signals.task_received.send(sender=consumer, request=request)
        if tells:
            _tell(request)
        bucket = consumer.task_buckets[task.name] if limits else None
        if bucket:
            return consumer._limit_task(request, bucket, 1)
        grant = _grant(consumer, request) if may_go_on else None
        if grant is not None:
            request.request_dict[HOLDER_HEADER][going_on.GRANT] = asdict(grant)
        state.task_reserved(request)
        for callback in callbacks or ():
            callback(request)
        consumer.on_task_request(request)
        return None

    return handle


def _tell(request: Any) -> None:
    request.send_event(
        "task-received",
        name=request.name,
        args=request.argsrepr,
        kwargs=request.kwargsrepr,
        root_id=request.root_id,
        parent_id=request.parent_id,
        retries=request.request_dict.get("retries", 0),
        eta=None,
        expires=request.expires and request.expires.isoformat(),
    )


def _runs_afloat(task: Any) -> bool:
    return inspect.iscoroutinefunction(task.run) and afloat.suits(task)


def _outlives(consumer: Any, task: Any) -> bool:
    """Whether what runs this task here is a child, or a thread, that goes on behind it and is not counted by the pool.

    Not from an async step of a thread: hundreds of them end as they come, and nothing need be worked out for each.
    """
    worker, pool = consumer.controller, consumer.pool
    if getattr(pool, "executor", None) is not None:
        return bool(task.is_agent) or not inspect.iscoroutinefunction(task.run)
    return has_children(pool) and not worker.max_tasks_per_child and not worker.max_memory_per_child


def _accepts_json(app: Any) -> bool:
    """Whether bodies in JSON, which are read without asking again, are what this app takes."""
    return JSON_TYPE in (prepare_accept_content(app.conf.accept_content) or ())


def _are_events_wanted(eventer: Any) -> bool:
    """Whether somebody follows the tasks: by ``-E``, or told to by remote control. Heartbeats alone count for none."""
    return bool(eventer and eventer.enabled and (not eventer.groups or "task" in eventer.groups))


def _grant(consumer: Any, request: Any) -> going_on.Grant | None:
    """Return on which terms the child may go on from this step; None where something is for the main process first."""
    channel: Any = getattr(consumer.task_consumer, "channel", None)
    taker = getattr(channel, "taker", None)
    if not isinstance(taker, Taker) or not taker.may_go_on:
        return None
    soft = request.time_limits[1] or request.task.soft_time_limit
    limited = not consumer.disable_rate_limits and any(consumer.task_buckets.values())
    watched = _are_events_wanted(consumer.event_dispatcher) or signals.task_received.receivers
    revoked = state.revoked_stamps or len(state.revoked) > MOST_REVOKED
    ends = state.should_stop is not None or state.should_terminate is not None
    if limited or watched or revoked or ends or (soft and soft < going_on.SOFT_LIMIT_S):
        return None
    queues, _ = channel.queues_by_custody()
    return going_on.Grant(
        label=taker.label,
        queues=tuple(queues),
        low_share=channel.low_share,
        revoked=tuple(state.revoked),
        hurries=taker.hurries,
        lasts_s=min(going_on.QUIET_S, soft * going_on.SHARE_OF_LIMIT) if soft else going_on.QUIET_S,
        orders=claims.orders(),
    )
