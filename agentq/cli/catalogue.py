"""What the command line asks the application about its agents and pools, in one place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentq.app import AgentQ


def parameters_of(app: AgentQ, agent: str) -> Mapping[str, Mapping[str, Any]]:
    """The agent's parameters by name, from its code or from what a worker announced."""
    return dict(app.agents[agent].schema.json_schema())


def agent_rows(app: AgentQ) -> list[dict[str, Any]]:
    """What is known of each agent: name, version, pool, summary, parameters."""
    return [
        {
            "agent": name,
            "version": app.agents[name].agentq.version,
            "pool": app.agents.pool_of(name),
            "summary": summary_of(app, name),
            "parameters": parameters_of(app, name),
        }
        for name in sorted(app.agents)
    ]


def summary_of(app: AgentQ, agent: str) -> str:
    """The first line of the agent's docstring, from its code or from what a worker announced."""
    text = app.agents[agent].function.__doc__ or app.store.announced().get(agent, {}).get("doc") or ""
    return str(text).strip().partition("\n")[0]


def pools_of(app: AgentQ, agent: str) -> list[str]:
    """The pools whose workers the agent may need: its own first, then those of the application's steps."""
    return list(dict.fromkeys([app.agents.pool_of(agent), *app.pools]))


def served_pools(app: AgentQ) -> dict[str, list[str]]:
    """The pools (queues) that live workers serve, each with the workers' labels."""
    served: dict[str, list[str]] = {}
    for worker in app.store.workers():
        for queue in worker.queues:
            served.setdefault(queue, []).append(worker.label)
    return served


def unserved(app: AgentQ, pools: Iterable[str]) -> list[str]:
    """Those of the pools that no live worker serves, in the order given."""
    served = served_pools(app)
    return [name for name in pools if name not in served]
