"""`agentq cache`: the steps whose answers are kept, what that has saved, and how they are forgotten."""

from __future__ import annotations

import click

from agentq.cli.commands import ExampleCommand, ExampleGroup
from agentq.cli.output import print_json, say
from agentq.cli.session import Session, app_command, json_option


@click.group(cls=ExampleGroup)
def cache() -> None:
    """List what kept answers have saved, and drop those of a step.

    A step is known from its first answer that was kept.

    Example:
      agentq cache list
      agentq cache drop workers.tools.read_page
    """


@cache.command("list", cls=ExampleCommand)
@json_option
@app_command
def list_caches(session: Session, as_json: bool) -> int:
    """List the steps with cache=: how often an answer was there, and what that has saved.

    Example:
      agentq cache list --json
    """
    found = session.app.caches.list()
    if as_json:
        print_json(found)
        return 0
    if not found:
        say("No answer of a step is kept: none has cache=, or none was called so far.")
        return 0
    from agentq.console.tables import listing
    from agentq.console.words import open_console

    counts = ("answered", "made", "tokens saved", "usd saved")
    rows = [
        (each.step, *map(str, (each.hits, each.runs, each.saved_tokens)), f"{each.saved_usd.normalize():f}")
        for each in found
    ]
    open_console().print(listing(("step", *counts), rows, right=counts, fold=("step",)))
    return 0


@cache.command(cls=ExampleCommand)
@click.argument("step")
@app_command
def drop(session: Session, step: str) -> int:
    """Have the kept answers of a step count for nothing any more, those of attempts that run now too.

    Example:
      agentq cache drop workers.tools.read_page
    """
    session.app.caches.drop(step)
    click.echo(f"The kept answers of {step} count for nothing any more.")
    return 0
