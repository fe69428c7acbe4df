"""Agents whose code is elsewhere: called by the name, schema and queue that a worker has announced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NoReturn

from celery import Celery

from agentq.core.errors import UsageError
from agentq.core.guards import Budget
from agentq.core.schema import check_call
from agentq.core.zombies import Zombies
from agentq.engine.agent import Agent
from agentq.engine.options import StepOptions


class AnnouncedSchema:
    """Stands in for a CallSchema where only the announced one is known; values stay JSON."""

    def __init__(self, name: str, announced: dict[str, Any]) -> None:
        self._name = name
        self._announced = announced

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments as JSON can hold them; raises InvalidArguments for what the agent does not take."""
        return check_call(self._announced, self._name, list(args), dict(kwargs))

    def decode_result(self, value: Any) -> Any:
        """Return the result as it came: its type is known where the code is."""
        return value

    def json_schema(self) -> dict[str, Any]:
        """Return the announced schema."""
        return self._announced


def announcement_of(agent: Agent[..., Any], queue: str) -> dict[str, Any]:
    """Return what a worker publishes of an agent that it serves, JSON-able."""
    return {
        "kind": "agent",
        "version": agent.agentq.version,
        "queue": queue,
        "schema": agent.schema.json_schema(),
        "doc": (agent.function.__doc__ or "").strip().split("\n")[0],
        "zombies": _told(agent.agentq.zombies),
        "budgets": [budget.model_dump(mode="json", exclude_none=True) for budget in agent.agentq.budgets],
    }


def _told(rules: Zombies | Literal[False] | None) -> Any:
    return rules.model_dump(mode="json", exclude_unset=True) if isinstance(rules, Zombies) else rules


def remote_agent(app: Celery, name: str, announced: dict[str, Any]) -> Agent[..., Any]:
    """Return an agent that can be started, followed and signalled, but has no function here.

    Its arguments are checked against the announced schema before anything is sent; results are JSON values.
    """

    def run(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise UsageError(f"Agent {name!r} has no code in this application: start it, and a worker runs it.")

    # The budgets hold whoever starts the run.
    budgets = tuple(Budget(**given) for given in announced.get("budgets") or ())
    zombies = announced.get("zombies")
    rules = Zombies(**zombies) if zombies else zombies
    options = StepOptions(queue=announced["queue"], version=announced.get("version"), budget=budgets, zombies=rules)
    made = type(
        "RemoteAgent",
        (Agent,),
        {"name": name, "run": staticmethod(run), "agentq": options, "__module__": __name__},
    )()
    made.bind(app)
    made.__dict__["_schema"] = AnnouncedSchema(name, announced["schema"])
    return made  # type: ignore[no-any-return]
