"""Which accounts a call is charged to, and what may not be declared."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from agentq import AgentQ, Breaker, Budget, Limit, Run
from agentq.core.errors import InvalidArguments
from agentq.engine import budgets
from agentq.engine.options import CallOptions
from agentq.settings import Settings


@pytest.fixture
def app() -> AgentQ:
    settings = Settings.model_validate({"redis_url": "redis://nowhere", "tenant_day_tokens": 7})
    return AgentQ("budgets", settings=settings)


def attempt(ours: dict[str, Any], *, run: str = "run", root: str = "run", sends_behind: bool = False) -> Any:
    return SimpleNamespace(ours=ours, holder=SimpleNamespace(id=run, root=root), sends_behind=sends_behind)


def test_a_run_hands_its_accounts_down_by_name() -> None:
    own = budgets.own_accounts([Budget(tokens=5)], agent="a", tenant=None)
    assert own == [{"k": "self", "l": ["tokens"]}]
    assert budgets.inherited(None) == ([], 0)
    assert budgets.inherited(attempt({"bg": own})) == ([{"k": "", "l": ["tokens"]}], 1)
    below = [{"k": "", "l": ["steps"]}, *own]
    accounts, depth = budgets.inherited(attempt({"bg": below, "dp": 1}, run="sub"))
    assert ([account["k"] for account in accounts], depth) == (["", "sub"], 2)
    # What goes on behind a run is no part of it.
    accounts, depth = budgets.inherited(attempt({"bg": below, "dp": 1}, run="sub", sends_behind=True))
    assert ([account["k"] for account in accounts], depth) == ([""], 1)


def test_days_are_told_apart_by_agent_and_tenant() -> None:
    def name(per: Any, agent: str, tenant: str | None) -> str:
        (account,) = budgets.own_accounts([Budget(tokens=5, per=per)], agent=agent, tenant=tenant)
        return str(account["k"])

    assert name("agent", "a", "x") == name("agent", "a", "y") != name("agent", "b", "x")
    assert len({name("tenant", "a", "x"), name("tenant", "a", "y"), name("tenant", "b", "x")}) == 3


@pytest.mark.parametrize(
    ("budget", "admitted"),
    [({"steps": 1}, False), ({"wall_ms": 1}, False), ({"tokens": 1}, True), ({"attempts": 1, "depth": 1}, True)],
)
def test_only_some_limits_cost_an_admission(budget: dict[str, int], admitted: bool) -> None:
    assert budgets.needs_admission([{"k": "", "l": sorted(budget)}]) is admitted
    assert budgets.needs_admission([{"k": "=x", "b": budget}]) is admitted


def test_a_tenants_day_counts_over_all_agents(app: AgentQ) -> None:
    @app.agent
    async def one(run: Run) -> None: ...

    @app.step
    def two() -> None: ...

    headers = [task.header_of(CallOptions(tenant="acme"), [], {}) for task in (one, two)]
    (first,), (second,) = (header["bg"] for header in headers)
    assert first == second
    assert (first["b"], first["nm"]) == ({"tokens": 7}, "tenant acme today")
    assert "bg" not in one.header_of(CallOptions(), [], {})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": Budget(usd=1)}, "a budget is an agent's"),
        ({"breaker": "llm"}, "it is no Breaker"),
        ({"limit": [Limit("a", 1), 3]}, "it is no Limit"),
        ({"concurrency": 0}, "at least 1"),
        ({"concurrency": True}, "at least 1"),
        ({"estimate": -1}, "a number of tokens"),
        ({"estimate": "many"}, "a number of tokens"),
        ({"limit": Limit("account:{accuont}", 1)}, "has no argument 'accuont'; it has account, tenant"),
    ],
)
def test_what_a_step_cannot_have_is_refused_when_it_is_declared(
    app: AgentQ, options: dict[str, Any], words: str
) -> None:
    def pay(account: str) -> None: ...

    with pytest.raises(InvalidArguments, match=words):
        app.step(**options)(pay)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"breaker": Breaker("llm")}, "give it to the steps"),
        ({"concurrency": 3}, "give it to the steps"),
        ({"budget": [Budget(usd=1), Budget(usd=2)]}, "one budget at most"),
        ({"budget": 5}, "it is no Budget"),
    ],
)
def test_what_an_agent_cannot_have_is_refused_when_it_is_declared(
    app: AgentQ, options: dict[str, Any], words: str
) -> None:
    async def research(run: Run) -> None: ...

    with pytest.raises(InvalidArguments, match=words):
        app.agent(**options)(research)
