"""The internal steps of every app: sending a body or a chunk of messages, ending a group, fanning out over a list."""

from __future__ import annotations

from typing import Any, Final

from celery import Celery
from celery.canvas import Signature, group, maybe_signature

from agentq.core.errors import InvalidArguments
from agentq.engine import capture, spread
from agentq.engine.attempt import Attempt
from agentq.engine.dispatch import COLLECT_TASK
from agentq.engine.joins import DISPATCH_TASK
from agentq.engine.routing import router_for
from agentq.engine.task import Step
from agentq.engine.this_step import current_attempt

FAN_OUT_TASK: Final = "agentq.fan_out"
"""The internal step that becomes a group over the list that it gets."""


def register_internal_steps(app: Celery) -> None:
    """Register the internal steps in ``app``."""

    def dispatch(body: Any, results: Any) -> None:
        attempt = current_attempt.get()
        options = {"parent_id": attempt.request.parent_id} if isinstance(attempt, Attempt) else {}
        with capture.capturing() as caught:
            maybe_signature(body, app=app).apply_async((results,), **options)
        _send_on(caught)

    def send_members(ask_id: str, first: Any, start: int, calls: Any) -> None:
        template = spread.offer_from(first)
        made = spread.members(template, calls, ask_id=ask_id, start=start, route=router_for(app, template))
        _send_on(capture.Capture(offers=list(made)))

    def forward(offers: Any) -> None:
        _send_on(capture.Capture(offers=spread.forwarded(offers)))

    def collect(results: Any) -> Any:
        return results

    def fan_out_here(self: Step[..., Any], items: Any, step: Any) -> Any:
        if not isinstance(items, list):
            raise InvalidArguments(
                step="fan_out", parameter="items", value=items, reason="the step before returns the list to map over"
            )
        if not items:
            return []
        signature = maybe_signature(step, app=app)
        if self.request.is_eager:
            return [signature.clone(args=(item,)).apply().get() for item in items]
        return self.replace(group([signature.clone(args=(item,)) for item in items], app=app))

    # Not shared: Celery would put a shared task of one app into every other app too, and warn of the double name.
    common: dict[str, Any] = {"base": Step, "shared": False, "typing": False}
    app.task(dispatch, name=DISPATCH_TASK, ignore_result=True, **common)
    app.task(send_members, name=spread.SPREAD_TASK, ignore_result=True, **common)
    app.task(forward, name=spread.FORWARD_TASK, ignore_result=True, **common)
    app.task(collect, name=COLLECT_TASK, **common)
    app.task(fan_out_here, name=FAN_OUT_TASK, bind=True, **common)


def _send_on(caught: capture.Capture) -> None:
    """Have the commit of the internal step that runs now send what was caught."""
    attempt = current_attempt.get()
    if isinstance(attempt, Attempt):
        attempt.onward.merge(caught)


def fan_out(step: Signature) -> Signature:
    """Return a signature that maps ``step`` over the list that the step before it returns.

    Its result is the list of results, in the order of the items; an empty list gives an empty list. For the middle of
    a chain: ``chain(plan.s(q), fan_out(read.s()), compose.s())``. Each item goes before the arguments that ``step``
    has already. If an item's step fails, the chain fails when all have ended.
    """
    return Signature(FAN_OUT_TASK, args=(dict(step),), app=getattr(step, "_app", None))
