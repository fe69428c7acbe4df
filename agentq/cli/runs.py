"""`agentq runs`: list, show, follow, cancel, signal, retry, fork, stop and resume runs."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from agentq.cli.commands import ExampleGroup
from agentq.cli.errors import CommandRefused
from agentq.cli.forks import fork, retry
from agentq.cli.output import print_json, print_json_line, say
from agentq.cli.session import Session, app_command, json_option
from agentq.cli.stopping import resume, stop

if TYPE_CHECKING:
    from agentq.app import AgentQ

STATUSES = (
    "queued",
    "running",
    "parked",
    "delayed",
    "stopped",
    "unschedulable",
    "condemned",
    "succeeded",
    "failed",
    "cancelled",
)
ID_LENGTH = 36
"""Characters of a whole run id (a UUID)."""
SEARCHED_RUNS = 1000
"""How many of the newest runs a shortened id is looked for in."""


@click.group(cls=ExampleGroup)
def runs() -> None:
    """List, show, follow, cancel, signal, retry, fork, stop and resume runs.

    A run's id may be shortened to its first characters while they are unique.

    Example:
      agentq runs list --status running
      agentq runs show 3f2a81c0
    """


def find_run(app: AgentQ, identity: str) -> Any:
    """The handle of the run with the id, or with the only id that begins so."""
    if len(identity) >= ID_LENGTH:
        return app.runs.get(identity)
    # An empty one, of a variable that was not set, must not stand for the only run that there is.
    newest = app.runs.list(limit=SEARCHED_RUNS) if identity else []
    found = {run.run_id for run in newest if run.run_id.startswith(identity)}
    if len(found) > 1:
        raise CommandRefused(
            f'"{identity}" begins the ids of {len(found)} runs: {", ".join(sorted(found)[:4])}. Give more of it.'
        )
    return app.runs.get(found.pop() if found else identity)


def _summary(app: AgentQ, handle: Any) -> Any:
    return app.store.run(handle.id)


@runs.command("list")
@click.option("--agent", help="Only runs of this agent.")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs that stand so.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="At most so many, newest first.",
)
@json_option
@app_command
def list_runs(session: Session, agent: str | None, status: str | None, limit: int, as_json: bool) -> int:
    """List the newest runs.

    Example:
      agentq runs list --agent research --status failed --limit 5
    """
    found = session.app.runs.list(agent=agent, status=status, limit=limit)
    if as_json:
        print_json(found)
        return 0
    if not found:
        say("No such runs." if agent or status else "No runs yet. Start one: agentq run AGENT")
        return 0
    from agentq.console.tables import runs_table
    from agentq.console.words import open_console

    console = open_console()
    console.print(runs_table(found, now=datetime.now(UTC), console=console))
    return 0


@runs.command()
@click.argument("run_id")
@click.option("--follow", is_flag=True, help="Watch it until it ends.")
@json_option
@app_command
def show(session: Session, run_id: str, follow: bool, as_json: bool) -> int:
    """Show a run: its steps, its answer if it has one, and its timeline.

    With --follow the exit code is the run's, as of "agentq run".

    Example:
      agentq runs show 3f2a81c0 --follow
    """
    from agentq.cli.run import run_document, show_outcome
    from agentq.core.models import ENDED

    handle = find_run(session.app, run_id)
    summary = _summary(session.app, handle)
    agent, status = (summary.agent, str(summary.status)) if summary is not None else ("?", str(handle.status()))
    if follow and status not in ENDED:
        status = _follow(session, handle, agent, as_json=as_json)
    if status in ENDED:
        code = show_outcome(handle, agent, status, as_json=as_json)
        if not as_json and _has_letters(session.app):
            _show_held_up(session.app, handle.id, handle.steps())
        # Who follows waits for the run and wants its end; who looks has seen what was asked for.
        return code if follow else 0
    if as_json:
        print_json(run_document(handle, agent, status, result=None, error=None))
        return 0
    _show_unfinished(session, handle, agent, status)
    return 0


def _follow(session: Session, handle: Any, agent: str, *, as_json: bool) -> str:
    from agentq.cli.follow import Follower
    from agentq.console.words import open_console

    progress = open_console(sys.stderr)
    console = None if as_json and not progress.is_terminal else progress
    return Follower(session.app, handle, agent=agent, console=console).follow()


def _show_unfinished(session: Session, handle: Any, agent: str, status: str) -> None:
    from agentq.cli.catalogue import unserved
    from agentq.cli.run import show_places, show_saved
    from agentq.console.tables import asks_table, steps_table
    from agentq.console.timeline import timeline
    from agentq.console.words import open_console, plain, status_text

    console, now = open_console(), datetime.now(UTC)
    steps = handle.steps()
    console.print(f"Run {handle.id}: {plain(agent)}", status_text(status), style="bold", markup=False, soft_wrap=True)
    show_saved(handle)
    if steps:
        console.print(
            steps_table(
                [step for step in steps if str(step.status) != "succeeded"] or steps[-10:],
                now=now,
                console=console,
            )
        )
    console.print(timeline(steps, now=now, console=console))
    show_places(handle, steps, agent)
    waiting = session.app.asks.list(run_id=handle.id)
    queues = {step.queue for step in steps if step.queue and step.status in ("queued", "unschedulable")}
    if status in ("queued", "unschedulable") and agent in session.app.agents:
        queues.add(session.app.agents.pool_of(agent))
    _show_held_up(session.app, handle.id, steps)
    lacking = unserved(session.app, sorted(queues))
    if lacking:
        say(f"No worker serves {', '.join(lacking)}: " + "; ".join(f"agentq worker --pool {name}" for name in lacking))
    if waiting:
        console.print(asks_table(waiting, now=now, console=console))
        say(f"Answer with: agentq asks answer {waiting[0].ask_id} VALUE")


def _has_letters(app: AgentQ) -> bool:
    """Whether anything of an ended run may still wait for a person: an undo that has failed."""
    return app.store.count_letters() > 0


def _show_held_up(app: AgentQ, run_id: str, steps: list[Any]) -> None:
    """What waits for a person or for a worker with its code stands below the run's steps."""
    own = {run_id, *(step.step_id for step in steps)}
    for stopped, words in app.store.stops(app.store.root_of(run_id) or run_id):
        say(f"Run {stopped} was stopped: {words}.")
        say(f"To have it go on: agentq runs resume {stopped}; or: agentq runs cancel {stopped}")
    for each in app.store.unserved():
        if each.step_id in own:
            say(f"{each.name} ({each.step_id}) is unschedulable: {each.words}.")
    for letter in app.dead.list():
        if letter.step_id in own:
            say(f"{letter.name} ({letter.step_id}) is a dead letter: {letter.words}.")
            say(f"Once the cause is gone: agentq dead replay {letter.step_id}; or: agentq dead drop {letter.step_id}")


@runs.command()
@click.argument("run_id")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="OFFSET", help="Only events after this offset.")
@click.option("--follow", is_flag=True, help="Go on with new events until the run ends.")
@json_option
@app_command
def events(session: Session, run_id: str, after: int, follow: bool, as_json: bool) -> int:
    """Print a run's events.

    With --json and --follow each event is a JSON document on a line of its own.

    Example:
      agentq runs events 3f2a81c0 --follow --after 120
    """
    found = find_run(session.app, run_id).events(after=after, follow=follow)
    if as_json and not follow:
        print_json(list(found))
        return 0
    from agentq.console.tables import event_line
    from agentq.console.words import open_console

    console = open_console()
    for event in found:
        if as_json:
            print_json_line(event)
        else:
            console.print(event_line(event), soft_wrap=True)
    return 0


@runs.command()
@click.argument("run_id")
@click.option("--why", default="", help="The reason, which the run's history keeps.")
@json_option
@app_command
def cancel(session: Session, run_id: str, why: str, as_json: bool) -> int:
    """Cancel a run and all that it has started.

    Example:
      agentq runs cancel 3f2a81c0 --why "wrong folder"
    """
    from agentq.core.models import ENDED

    handle = find_run(session.app, run_id)
    asked = handle.cancel(why) if why else handle.cancel()
    status = str(handle.status())
    if as_json:
        print_json({"run_id": handle.id, "status": status, "asked": asked})
    elif asked:
        click.echo(f"Run {handle.id} is told to stop.")
    else:
        click.echo(
            f"Run {handle.id} has {'ended' if status in ENDED else 'been told to stop'} already; it is {status}."
        )
    return 0


@runs.command()
@click.argument("run_id")
@click.argument("name")
@click.argument("payload", default="null")
@json_option
@app_command
def signal(session: Session, run_id: str, name: str, payload: str, as_json: bool) -> int:
    """Send the signal NAME to a run, with a PAYLOAD in JSON.

    Example:
      agentq runs signal 3f2a81c0 approved '{"by": "Ada"}'
    """
    try:
        value = json.loads(payload)
    except ValueError:
        raise CommandRefused(f"PAYLOAD is {payload!r}, which is not JSON. Text needs quotes: '\"text\"'.") from None
    handle = find_run(session.app, run_id)
    handle.signal(name, value)
    if as_json:
        print_json({"run_id": handle.id, "signal": name, "payload": value})
    else:
        click.echo(f'Signal "{name}" is sent to run {handle.id}.')
    return 0


for command in (retry, fork, stop, resume):
    runs.add_command(command)
