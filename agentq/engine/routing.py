"""Where a call goes: its queue and its lane, by the rules of ``core.routes``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentq.core.lanes import DEFAULT_PRIORITY, PRIORITIES
from agentq.core.models import Needs
from agentq.core.routes import NO_WISHES, Outlook, Route, Tier, Wishes, decide_route
from agentq.core.tenants import tenant_spec
from agentq.engine.binding import Binding, binding_of
from agentq.engine.messages import NEEDS, ROOM
from agentq.engine.options import CallOptions
from agentq.engine.this_step import current_attempt
from agentq.store.refs import Offer

if TYPE_CHECKING:
    from agentq.engine.task import Step

TIER = "ti"
"""Field of our header: the tier, which what a run calls inherits."""


def apply_route(task: Step[..., Any], call: CallOptions, options: dict[str, Any], ours: dict[str, Any]) -> None:
    """Put where a call goes into its options, and into our header what is to be known of it later.

    Raises NoPoolFor when no declared pool has what the call needs, UnknownPool for a pool that is not declared while
    others are.
    """
    binding = binding_of(task.app)
    outlook, wishes = None, NO_WISHES
    if has_choice(task, call, options, binding):
        outlook = binding.outlook()
        wishes = _wishes_of(task, call, options, binding)
    route = _decide(task, call, options, binding, wishes, outlook)
    if outlook is not None:
        outlook.note(route.queue)
    options["queue"] = route.queue
    options["priority"] = priority_of(task, call, options)
    ours.setdefault("cd", {})["why"] = route.why
    room = _room_of(binding, route, ours["cd"].get("tenant"))
    if room:
        ours[ROOM] = room
    written = written_in(route, wishes)
    if written is not None:
        ours[NEEDS] = written
    tier = tier_of(task, call)
    if tier is not None:
        ours[TIER] = tier


def home_of(task: Step[..., Any]) -> str:
    """Return the queue to which calls without options go where nothing is known of the workers."""
    return _decide(task, task.call, {}, binding_of(task.app), NO_WISHES, None).queue


def has_choice(task: Step[..., Any], call: CallOptions, options: dict[str, Any], binding: Binding) -> bool:
    """Tell whether needs decide where the call goes, and several pools meet them."""
    if options.get("queue") is not None or call.queue is not None or call.pool is not None:
        return False
    declared = task.agentq
    needs = call.needs.as_tags() if call.needs is not None else {}
    if not needs and declared.queue is None and declared.pool is None and declared.needs is not None:
        needs = declared.needs.as_tags()
    return bool(needs) and len(binding.pools.fitting(needs)) > 1


def _decide(
    task: Step[..., Any],
    call: CallOptions,
    options: dict[str, Any],
    binding: Binding,
    wishes: Wishes,
    outlook: Outlook | None,
) -> Route:
    declared = task.agentq
    return decide_route(
        binding.pools,
        step=task.name,
        call_queue=options.get("queue") if options.get("queue") is not None else call.queue,
        call_pool=call.pool,
        call_needs=call.needs,
        step_queue=declared.queue,
        step_pool=declared.pool,
        step_needs=declared.needs,
        default_pool=_by_the_app(task, binding),
        wishes=wishes,
        outlook=outlook,
    )


def _wishes_of(task: Step[..., Any], call: CallOptions, options: dict[str, Any], binding: Binding) -> Wishes:
    return Wishes(
        prefer=call.prefer if call.prefer is not None else task.agentq.prefer,
        tier=tier_of(task, call),
        deadline_s=call.deadline.total_seconds() if call.deadline is not None else None,
        lane=priority_of(task, call, options),
        patience_s=binding.limits.prefer_wait_s,
    )


def tier_of(task: Step[..., Any], call: CallOptions) -> Tier | None:
    """Return the tier of a call: its own, the one of its run, the step's; None where none says."""
    if call.tier is not None:
        return call.tier
    attempt = current_attempt.get()
    inherited: Tier | None = attempt.ours.get(TIER) if attempt is not None else None
    return inherited if inherited is not None else task.agentq.tier


def limits_in(queue: str, binding: Binding) -> tuple[float | None, float | None]:
    """Return the soft and the hard limit, in seconds, that a pool gives attempts which have none of their own."""
    spec = binding.pools.get(queue)
    if spec is None or spec.time_limit is None:
        return None, None
    hard = spec.hard_time_limit
    return spec.time_limit.total_seconds(), hard.total_seconds() if hard is not None else None


def _room_of(binding: Binding, route: Route, tenant: str | None) -> dict[str, int]:
    """Return the bounds on what may wait, those that are set."""
    own = tenant_spec(binding.read_tenants(), tenant)
    room = {"pool": route.most, "tenant": own.max_waiting if own is not None else None}
    return {name: most for name, most in room.items() if most is not None}


def written_in(route: Route, wishes: Wishes) -> dict[str, Any] | None:
    """Return what chose the pool, as the record keeps it: the step may go to another pool that meets it.

    None where the pool was named, or is the only one that does.
    """
    if route.needs is None or route.fits <= 1:
        return None
    wire: dict[str, Any] = {"n": route.needs}
    if wishes.prefer is not None:
        wire["p"] = wishes.prefer.as_tags()
    if wishes.tier is not None:
        wire["t"] = wishes.tier
    if wishes.deadline_s is not None:
        wire["d"] = wishes.deadline_s
    return wire


def router_for(app: Any, offer: Offer) -> Callable[[], Route] | None:
    """Return what routes one more call like the offer's; None where all of them go where it goes."""
    wire = offer.needs
    if wire is None:
        return None
    binding = binding_of(app)
    wishes = Wishes(
        prefer=Needs(**wire["p"]) if "p" in wire else None,
        tier=wire.get("t"),
        deadline_s=wire.get("d"),
        lane=offer.lane,
        patience_s=binding.limits.prefer_wait_s,
    )
    needs, outlook = Needs(**wire["n"]), binding.outlook()

    def route() -> Route:
        found = decide_route(binding.pools, step=offer.name, call_needs=needs, wishes=wishes, outlook=outlook)
        if outlook is not None:
            outlook.note(found.queue)
        return found

    return route


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
