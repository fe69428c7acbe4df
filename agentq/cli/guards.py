"""`agentq breakers` and `agentq limits`: what keeps steps within bounds, for all workers together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from agentq.cli.commands import ExampleCommand, ExampleGroup
from agentq.cli.errors import CommandRefused
from agentq.cli.output import print_json, say
from agentq.cli.session import Session, app_command, json_option

if TYPE_CHECKING:
    from datetime import timedelta

    from agentq.core.models import GateSummary


@click.group(cls=ExampleGroup)
def breakers() -> None:
    """List, trip and reset breakers.

    A breaker is known from the first call of a step that has it.

    Example:
      agentq breakers list
      agentq breakers trip llm:small --for 10m
      agentq breakers reset llm:small
    """


@breakers.command("list")
@json_option
@app_command
def list_breakers(session: Session, as_json: bool) -> int:
    """List the breakers that steps have used of late.

    Example:
      agentq breakers list --json
    """
    found = session.app.breakers.list()
    if as_json:
        print_json(found)
        return 0
    if not found:
        say("No step has used a breaker of late.")
        return 0
    from agentq.console.tables import breakers_table

    _show(breakers_table(found, now_ms=session.app.store.now_ms()))
    return 0


@breakers.command()
@click.argument("name")
@click.option("--for", "span", metavar="TIME", help="How long, such as 10m; else as long as the breaker says.")
@json_option
@app_command
def trip(session: Session, name: str, span: str | None, as_json: bool) -> int:
    """Open a breaker: calls are kept away, and what has a fallback takes it.

    Example:
      agentq breakers trip llm:small --for 10m
    """
    session.app.breakers.trip(name, span=_span(span))
    return _tell(session, name, "open", as_json=as_json)


@breakers.command()
@click.argument("name")
@json_option
@app_command
def reset(session: Session, name: str, as_json: bool) -> int:
    """Close a breaker and forget its failures; what waits goes on.

    Example:
      agentq breakers reset llm:small
    """
    session.app.breakers.reset(name)
    return _tell(session, name, "closed", as_json=as_json)


@click.command(cls=ExampleCommand)
@json_option
@app_command
def limits(session: Session, as_json: bool) -> int:
    """List the rates and limits that steps have used of late: what is in use, and who waits.

    Example:
      agentq limits --json
    """
    found = session.app.limits.list()
    if as_json:
        print_json(found)
        return 0
    if not found:
        say("No step has used a rate or a limit of late.")
        return 0
    from agentq.console.tables import limits_table

    _show(limits_table(found))
    return 0


def _span(words: str | None) -> timedelta | None:
    from datetime import timedelta

    from agentq.core.units import read_duration

    if words is None:
        return None
    span = read_duration(words)
    if not isinstance(span, timedelta) or span <= timedelta(0):
        raise CommandRefused(f'"{words}" is no time. Write 30s, 10m or 2h.')
    return span


def _tell(session: Session, name: str, state: str, *, as_json: bool) -> int:
    if as_json:
        found: Sequence[GateSummary] = [each for each in session.app.breakers.list() if each.name == name]
        print_json(found[0] if found else None)
    else:
        click.echo(f"Breaker {name} is {state}.")
    return 0


def _show(table: object) -> None:
    from agentq.console.words import open_console

    open_console().print(table)
