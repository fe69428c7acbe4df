"""Where a call goes: its queue and its lane, by the rules of ``core.pools``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentq.core.lanes import DEFAULT_PRIORITY, PRIORITIES
from agentq.core.routes import decide_route
from agentq.engine.binding import Binding, binding_of
from agentq.engine.options import CallOptions
from agentq.engine.this_step import current_attempt

if TYPE_CHECKING:
    from agentq.engine.task import Step


def route_of(task: Step[..., Any], call: CallOptions, options: dict[str, Any]) -> tuple[str, str]:
    """Return the queue of a call and, in a few words, why it is that one.

    Raises NoPoolFor when no declared pool has what the call needs, UnknownPool for a pool that is not declared while
    others are.
    """
    binding = binding_of(task.app)
    declared = task.agentq
    route = decide_route(
        binding.pools,
        step=task.name,
        call_queue=options.get("queue") if options.get("queue") is not None else call.queue,
        call_pool=call.pool,
        call_needs=call.needs,
        step_queue=declared.queue,
        step_pool=declared.pool,
        step_needs=declared.needs,
        default_pool=_by_the_app(task, binding),
    )
    return route.queue, route.why


def _by_the_app(task: Step[..., Any], binding: Binding) -> str:
    """Return the queue of a call of which nothing was said: where ``task_routes`` sends it, else Celery's default."""
    if not task.app.conf.task_routes:
        return binding.default_queue()
    return str(task.app.amqp.router.route({}, task.name, task_type=task)["queue"].name)


def priority_of(task: Step[..., Any], call: CallOptions, options: dict[str, Any]) -> int:
    """Return the lane number of a call: its own, the one it inherits from its run, the step's, or normal."""
    explicit = options.get("priority")
    if explicit is not None:
        return PRIORITIES[explicit] if isinstance(explicit, str) else int(explicit)
    if call.priority is not None:
        return PRIORITIES[call.priority]
    attempt = current_attempt.get()
    if attempt is not None:
        inherited = (attempt.request.delivery_info or {}).get("priority")
        if inherited is not None:
            return int(inherited)
    if task.agentq.priority is not None:
        return PRIORITIES[task.agentq.priority]
    return PRIORITIES[DEFAULT_PRIORITY]
