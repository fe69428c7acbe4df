"""How a step that follows another one is run: as Celery's tracer does it, without what that does for nobody.

Celery's tracer looks up and asks, for each task, what a durable step has answered long before: its outcome is written
by its commit, and what follows it is sent by that. Where anybody listens to what happens in between, by a signal, a
task's own method or a tracer of his own, and where a step does not just succeed, Celery's tracer does all that it does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, Final

from celery import signals
from celery.app import trace as celery_trace
from celery.app.task import Context
from celery.app.trace import task_has_custom
from celery.backends.base import Backend
from celery.loaders.base import BaseLoader
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr

from agentq.engine.log_lines import Line
from agentq.engine.outcome import RAISED

if TYPE_CHECKING:
    from agentq.engine.task import Step

Call = tuple[str, str, dict[str, Any], Any, None, None]
"""Arguments of Celery's tracer: task, id, request, the decoded body, and that it has no type and encoding any more."""

_LISTENED: Final = (signals.task_prerun, signals.task_postrun, signals.task_success)

_CUSTOM: Final = ("before_start", "on_success", "after_return")
"""Methods of tasks that Celery's tracer calls on a success's way."""

_SIMPLE: Final = frozenset({int, float, bool, type(None)})
"""Types of results that are short in a log's line whatever they are."""


def _codes_within(function: Any) -> list[CodeType]:
    code = getattr(function, "__code__", None)
    return [each for each in code.co_consts if isinstance(each, CodeType)] if code is not None else []


_CELERYS_OWN: Final = frozenset(
    each for each in _codes_within(celery_trace.build_tracer) if each.co_name == "trace_task"
)
"""The tracer as Celery has made it: what wraps it, as libraries for traces do, is to be called."""


def is_celerys_own(tracer: Any, task: Any) -> bool:
    """Tell whether a tracer is what Celery makes of ``task``, with nothing of others around either of them."""
    # A proxy shows the code of what it wraps.
    if type(tracer) is not FunctionType or tracer.__code__ not in _CELERYS_OWN:
        return False
    seen = dict(zip(tracer.__code__.co_freevars, tracer.__closure__ or (), strict=True))
    # Some hand Celery a task of their own, which calls this one.
    return seen["fun"].cell_contents is task


@dataclass(frozen=True, slots=True)
class _Way:
    """How a task's steps are run.

    Attributes:
        tracer: Celery's, of which this was worked out.
        is_short: whether ours serves, as long as nobody listens.
    """

    tracer: Callable[..., Any]
    is_short: bool

    @classmethod
    def of(cls, task: Step[..., Any]) -> _Way:
        app, tracer = task.app, task.__trace__
        whole = (
            not is_celerys_own(tracer, task)
            or not task.is_traced_shortly
            or task.track_started
            or app.conf.worker_deduplicate_successful_tasks
            or any(task_has_custom(task, each) for each in _CUSTOM)
            or type(task.backend).process_cleanup is not Backend.process_cleanup
            or type(app.loader).on_task_init is not BaseLoader.on_task_init
            or type(app.loader).on_process_cleanup is not BaseLoader.on_process_cleanup
        )
        return cls(tracer, not whole)


_ways: Final[dict[int, _Way]] = {}


def run_call(call: Call) -> None:
    """Run what was taken here, with the log's line that the main process would have written."""
    name, task_id, request, body = call[:4]
    if _received.is_heard:
        said = {"id": task_id, "name": name, "args": request.get("argsrepr"), "kwargs": request.get("kwargsrepr")}
        _received.say({**said, "eta": None})
    tasks, _, hostname = celery_trace._localized
    task = tasks[name]
    if not _is_short(task) or any(each.receivers for each in _LISTENED):
        celery_trace.fast_trace_task(*call)
        return
    args, kwargs, embedded = body
    request.update(embedded or (), args=args, kwargs=kwargs, hostname=hostname, is_eager=False)
    context = Context(request, called_directly=False)
    began, failure = monotonic(), None
    celery_trace._task_stack.push(task)
    task.request_stack.push(context)
    try:
        try:
            value = task.run_attempt(context, args, kwargs)
        except Exception as error:
            failure = error
        else:
            # Before the pops: who formats the line may look at whose it is.
            if _succeeded.is_heard:
                _succeeded.say(_words_of(task, context, value, monotonic() - began))
    finally:
        celery_trace._task_stack.pop()
        task.request_stack.pop()
    if failure is not None:
        # It is written already: what is left is Celery's to tell, and the request says so.
        task.__trace__(task_id, args, kwargs, {**vars(context), RAISED: failure})


def _is_short(task: Any) -> bool:
    way = _ways.get(id(task))
    if way is None or way.tracer is not task.__trace__:
        way = _ways[id(task)] = _Way.of(task)
    return way.is_short


def _words_of(task: Any, context: Any, value: Any, seconds: float) -> dict[str, Any]:
    said = vars(context)
    return {
        "id": context.id,
        "name": said.get("shadow") or task.name,
        "return_value": repr(value) if type(value) in _SIMPLE else saferepr(value, task.resultrepr_maxsize),
        "runtime": seconds,
        "args": said.get("argsrepr") or saferepr(context.args),
        "kwargs": said.get("kwargsrepr") or saferepr(context.kwargs),
    }


_received: Final = Line(get_logger("celery.worker.strategy"), celery_trace.LOG_RECEIVED, said_by=run_call)
_succeeded: Final = Line(celery_trace.logger, celery_trace.LOG_SUCCESS, said_by=inspect.unwrap(celery_trace.info))
