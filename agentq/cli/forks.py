"""`agentq runs retry` and `agentq runs fork`: runs that go on from a step of another one."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentq.cli.commands import ExampleCommand
from agentq.cli.errors import CommandRefused
from agentq.cli.output import print_json
from agentq.cli.session import Session, app_command, json_option

if TYPE_CHECKING:
    from agentq.core.guards import Budget

F = TypeVar("F", bound=Callable[..., Any])


def _amount(_ctx: click.Context, _param: click.Parameter, given: str | None) -> Decimal | None:
    if given is None:
        return None
    try:
        amount = Decimal(given)
    except InvalidOperation:
        amount = Decimal("nan")
    if not amount.is_finite() or amount < 0:
        raise click.BadParameter(f"{given!r} is no amount of money; write it like 0.50.")
    return amount


def _going_on(command: F) -> F:
    """What both have: other limits, and another version of the agent."""
    options = [
        click.option("--budget-usd", callback=_amount, metavar="USD", help="Limit what the new run may cost."),
        click.option("--budget-tokens", type=click.IntRange(min=0), metavar="N", help="Limit its tokens."),
        click.option("--budget-steps", type=click.IntRange(min=0), metavar="N", help="Limit its steps."),
        click.option("--agent-version", metavar="VERSION", help="The version of the agent that goes on."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _budget(usd: Decimal | None, tokens: int | None, steps: int | None) -> Budget | None:
    from agentq.core.guards import Budget

    if usd is None and tokens is None and steps is None:
        return None
    return Budget(usd=usd, tokens=tokens, steps=steps)


def _tell(origin: Any, fresh: Any, *, as_json: bool) -> int:
    if as_json:
        print_json({"run_id": fresh.id, "from": origin.id, "status": str(fresh.status())})
        return 0
    click.echo(f"Run {origin.id} goes on as run {fresh.id}. See it with: agentq runs show {fresh.id} --follow")
    return 0


@click.command(cls=ExampleCommand)
@click.argument("run_id")
@_going_on
@json_option
@app_command
def retry(
    session: Session,
    run_id: str,
    budget_usd: Decimal | None,
    budget_tokens: int | None,
    budget_steps: int | None,
    agent_version: str | None,
    as_json: bool,
) -> int:
    """Start a run that has failed or was cancelled again, from the step that it failed at.

    What has succeeded is not done again, what was undone is. It goes on as a run of its own; asked for again, that one
    is told. What was spent counts on, unless other limits are given.

    Example:
      agentq runs retry 3f2a81c0
    """
    from agentq.cli.runs import find_run

    handle = find_run(session.app, run_id)
    fresh = handle.retry(budget=_budget(budget_usd, budget_tokens, budget_steps), version=agent_version)
    return _tell(handle, fresh, as_json=as_json)


@click.command(cls=ExampleCommand)
@click.argument("run_id")
@click.argument("step_id")
@_going_on
@json_option
@app_command
def fork(
    session: Session,
    run_id: str,
    step_id: str,
    budget_usd: Decimal | None,
    budget_tokens: int | None,
    budget_steps: int | None,
    agent_version: str | None,
    as_json: bool,
) -> int:
    """Start another run that has all of a run up to a step, does the step again and goes on.

    The step's id, which "agentq runs show" tells, may be shortened while it is the only one of the run that begins so.

    Example:
      agentq runs fork 3f2a81c0 9b1de07c
    """
    from agentq.cli.runs import find_run

    handle = find_run(session.app, run_id)
    found = {step.step_id for step in handle.steps() if step_id and step.step_id.startswith(step_id)}
    if len(found) > 1:
        raise CommandRefused(f'"{step_id}" begins the ids of {len(found)} steps of the run. Give more of it.')
    budget = _budget(budget_usd, budget_tokens, budget_steps)
    fresh = handle.fork(found.pop() if found else step_id, budget=budget, version=agent_version)
    return _tell(handle, fresh, as_json=as_json)
