"""Agents whose code is elsewhere: called by the name, schema and queue that a worker has announced."""

from __future__ import annotations

from typing import Any, NoReturn

from celery import Celery

from agentq.core.errors import UsageError
from agentq.core.schema import AnnouncedSchema
from agentq.engine.options import StepOptions
from agentq.engine.task import Agent


def announcement_of(agent: Agent[..., Any], queue: str) -> dict[str, Any]:
    """Return what a worker publishes of an agent that it serves, JSON-able."""
    return {
        "kind": "agent",
        "version": agent.agentq.version,
        "queue": queue,
        "schema": agent.schema.json_schema(),
        "doc": (agent.function.__doc__ or "").strip().split("\n")[0],
        "budget": agent.agentq.budget.model_dump(mode="json") if agent.agentq.budget is not None else None,
    }


def remote_agent(app: Celery, name: str, announced: dict[str, Any]) -> Agent[..., Any]:
    """Return an agent that can be started, followed and signalled, but has no function here.

    Its arguments are checked against the announced schema before anything is sent; results are JSON values.
    """

    def run(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise UsageError(f"Agent {name!r} has no code in this application: start it, and a worker runs it.")

    options = StepOptions(queue=announced["queue"], version=announced.get("version"))
    made = type(
        "RemoteAgent", (Agent,), {"name": name, "run": staticmethod(run), "agentq": options, "__module__": __name__}
    )()
    made.bind(app)
    made.__dict__["_schema"] = AnnouncedSchema(name, announced["schema"])
    return made  # type: ignore[no-any-return]
