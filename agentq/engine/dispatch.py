"""What an agent asks for, as messages: one call, a fan-out with its join, a canvas signature.

Each is made by Celery's own ``apply_async`` under a capture; the caller sends what was caught in one script, which
holds no more than a chunk of a large fan-out: see ``spread``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

from celery.canvas import Signature, _chain, _chord, chain, chord, group

from agentq.core.errors import UsageError
from agentq.core.ids import step_id
from agentq.engine import capture, spread
from agentq.engine.batch import template_of
from agentq.engine.capture import Capture
from agentq.engine.messages import HEADER, is_plain_json
from agentq.engine.routing import router_for
from agentq.engine.template import Template
from agentq.store.refs import Join, Offer

if TYPE_CHECKING:
    from agentq.engine.attempt import Attempt
    from agentq.engine.options import CallOptions
    from agentq.engine.task import Step

COLLECT_TASK = "agentq.collect"
"""The internal step at which a group ends that an agent awaits."""

Call = tuple[list[Any], dict[str, Any]]
"""Encoded arguments."""

ALIKE_S: Final = 1.0
"""So long the calls of a step are made from one message: then its route and limits are looked up again."""


@dataclass(slots=True)
class _Alike:
    """Calls of one step with the same options; ``template`` is False until the second one asks for it."""

    options: CallOptions
    born: float
    template: Template | Literal[False] | None = False


class Calls:
    """The calls of one turn. Those of one step, one soon after the other, are made from one message."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._alike: dict[str, _Alike] = {}

    def offers(
        self, step: Step[..., Any], call: Call, *, ask_id: str, undoes: bool = False, spawned: bool = False
    ) -> Capture:
        """Return the message of one step or sub-agent, whose outcome is told to the agent's log under ``ask_id``.

        ``undoes``: it takes back another step, and runs although the agent was cancelled. ``spawned``: it goes on when
        the agent ends.
        """
        ours: dict[str, Any] = {"pr": self._attempt.holder.id, "ak": ask_id}
        if spawned:
            ours["sp"] = 1
        if undoes:
            ours["ud"] = 1
        if spawned or undoes or step.is_agent:
            return _applied(self._attempt, step, call, task_id=ask_id, ours=ours)
        now, alike = monotonic(), self._alike.get(step.name)
        if alike is None or alike.options != step.call or now - alike.born > ALIKE_S:
            self._alike[step.name] = _Alike(step.call, now)
            return _applied(self._attempt, step, call, task_id=ask_id, ours=ours)
        if alike.template:
            return Capture(offers=[alike.template.offer(ask_id, 0, *call)])
        caught = _applied(self._attempt, step, call, task_id=ask_id, ours=ours)
        if alike.template is False:
            alike.template = _template(step, caught.offers)
        return caught


def _template(step: Step[..., Any], offers: list[Offer]) -> Template | None:
    """Return what makes other messages like this one; None where they would differ in more than ids and arguments."""
    if len(offers) != 1 or offers[0].needs is not None or offers[0].due_ms is not None:
        return None
    # A moment that each counts from its own beginning.
    if json.loads(offers[0].message)["headers"].get("expires"):
        return None
    return template_of(step, {}, offers)


def map_offers(
    attempt: Attempt, step: Step[..., Any], calls: Sequence[Call], *, ask_id: str, need: int | None = None
) -> Capture:
    """Return the messages of a fan-out and its join, which tells the agent's log once.

    Member i has the id ``step_id(ask_id, str(i))``. More than a chunk of them go out from internal steps.
    """
    root, run = attempt.holder.root, attempt.holder.id
    caught = Capture(joins=[Join(root=root, id=ask_id, size=len(calls), need=need, parent=run)])
    if not calls:
        return caught
    ours = {"pr": run, "jr": root, "jn": ask_id, "ji": 0}
    first = _applied(attempt, step, calls[0], task_id=step_id(ask_id, "0"), ours=ours)
    (head,) = first.offers
    if not is_plain_json(json.loads(head.message)):
        caught.offers.append(head)
        for index, call in enumerate(calls[1:], start=1):
            member = _applied(attempt, step, call, task_id=step_id(ask_id, str(index)), ours={**ours, "ji": index})
            caught.merge(member)
        caught.offers = spread.parcels(attempt, caught.offers)
    elif len(calls) > spread.CHUNK:
        caught.offers.extend(spread.spreads(attempt, head, calls, ask_id=ask_id))
    else:
        route = router_for(attempt.task.app, head)
        caught.offers.extend([head, *spread.members(head, calls[1:], ask_id=ask_id, start=1, route=route)])
    return caught


def canvas_offers(attempt: Attempt, signature: Signature, *, ask_id: str) -> Capture:
    """Return the messages of a canvas, the outcome of whose last task is told to the agent's log."""
    ours = {"pr": attempt.holder.id, "ak": ask_id}
    ended = ending(signature.clone(), ours, attempt.task.app)
    with capture.capturing() as caught:
        ended.apply_async(root_id=attempt.holder.root, parent_id=attempt.holder.id)
    caught.offers = spread.parcels(attempt, caught.offers)
    return caught


def next_generation(attempt: Attempt, args: list[Any], kwargs: dict[str, Any]) -> Offer:
    """Return the message with which the attempt's own run goes on, with other arguments and this code's version."""
    version = attempt.task.agentq.version
    ours = attempt.ours if version is None else {**attempt.ours, "v": version}
    with attempt.whole_request(), capture.capturing() as caught:
        attempt.task.signature_from_request(attempt.request, args, kwargs, headers={HEADER: ours}).apply_async()
    return caught.offers[0]


def _applied(attempt: Attempt, step: Step[..., Any], call: Call, *, task_id: str, ours: dict[str, Any]) -> Capture:
    args, kwargs = call
    with capture.capturing() as caught:
        step.apply_async(
            args,
            kwargs,
            task_id=task_id,
            root_id=attempt.holder.root,
            parent_id=attempt.holder.id,
            headers={HEADER: ours},
        )
    return caught


def ending(signature: Any, ours: dict[str, Any], app: Any) -> Any:
    """Return the signature with ``ours`` on the step that ends it; a group ends in a step that collects its results.

    Raises UsageError when a plain Celery task ends it: its outcome would be nobody's.
    """
    if isinstance(signature, group):
        return _like(signature, chord(signature, ending(app.tasks[COLLECT_TASK].s(), ours, app), app=app))
    if isinstance(signature, _chain):
        tasks = list(signature.tasks)
        return _like(signature, chain(*tasks[:-1], ending(tasks[-1], ours, app), app=app))
    if isinstance(signature, _chord):
        return _like(signature, chord(signature.tasks, ending(signature.body, ours, app), app=app))
    if not hasattr(app.tasks.get(signature.task), HEADER):
        raise UsageError(
            f"Task {signature.task!r} is a plain Celery task, whose outcome agentq does not see: end the canvas with "
            "a step (@app.step)."
        )
    headers = dict(signature.options.get("headers") or {})
    return signature.set(headers={**headers, HEADER: {**(headers.get(HEADER) or {}), **ours}})


def _like(signature: Any, made: Any) -> Any:
    """Return ``made`` with the options of the signature that it stands for, but for a group's id."""
    made.options.update({name: value for name, value in signature.options.items() if name != "task_id"})
    return made
