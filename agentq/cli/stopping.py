"""`agentq runs stop` and `resume`: have a run stand still, and go on."""

from __future__ import annotations

from typing import Any

import click

from agentq.cli.answers import person
from agentq.cli.commands import ExampleCommand
from agentq.cli.output import print_json
from agentq.cli.session import Session, app_command, json_option
from agentq.core.zombies import RULES


@click.command(cls=ExampleCommand)
@click.argument("run_id")
@click.option("--why", default="", help="The reason, which the run's history keeps.")
@json_option
@app_command
def stop(session: Session, run_id: str, why: str, as_json: bool) -> int:
    """Have a run and all below it stand still: what runs now ends, and nothing else begins until "resume".

    Example:
      agentq runs stop 3f2a81c0 --why "the provider is down"
    """
    from agentq.cli.runs import find_run

    handle = find_run(session.app, run_id)
    done = handle.stop(why) if why else handle.stop()
    return _tell(handle, done, "stopped", "stands still from now on", "stands still already", as_json=as_json)


@click.command(cls=ExampleCommand)
@click.argument("run_id")
@click.option(
    "--allow",
    multiple=True,
    type=click.Choice(RULES),
    help="Never stop this run by that rule again; may be given several times.",
)
@json_option
@app_command
def resume(session: Session, run_id: str, allow: tuple[str, ...], as_json: bool) -> int:
    """Have a run go on that a rule or a person has stopped.

    What it did before counts against it no more. "agentq runs show" tells by which rule it was stopped.

    Example:
      agentq runs resume 3f2a81c0 --allow repeats
    """
    from agentq.cli.runs import find_run

    handle = find_run(session.app, run_id)
    done = handle.resume(allow=allow, by=person())
    words = "goes on", f"does not stand still; it is {handle.status()}"
    return _tell(handle, done, "resumed", *words, as_json=as_json)


def _tell(handle: Any, done: bool, key: str, new: str, old: str, *, as_json: bool) -> int:
    if as_json:
        print_json({"run_id": handle.id, "status": str(handle.status()), key: done})
    else:
        click.echo(f"Run {handle.id} {new if done else old}.")
    return 0
