"""`agentq handback`: what waits goes back to stock Celery, before agentq is removed."""

from __future__ import annotations

import click

from agentq.cli.commands import ExampleCommand
from agentq.cli.errors import CommandRefused
from agentq.cli.output import print_json, say
from agentq.cli.session import Session, app_command, json_option


@click.command(cls=ExampleCommand)
@click.option("--dry-run", is_flag=True, help="Only count what would go back.")
@click.option("--queue", "queues", multiple=True, metavar="QUEUE", help="A queue that the application does not name.")
@json_option
@app_command
def handback(session: Session, dry_run: bool, queues: tuple[str, ...], as_json: bool) -> int:
    """Hand all waiting tasks and steps back to stock Celery.

    For the day on which agentq is removed. Stop agentq's workers and producers first. Steps outside agents' runs
    become messages of plain tasks, delayed ones with their ETA; chords go on where they stood. Agents' runs stay
    as they are, and go on when a worker of agentq is started again.

    Example:
      agentq handback --dry-run
      agentq handback
    """
    from agentq.engine.handback import Handback
    from agentq.engine.split.posting import Outlet

    app = session.app
    lease_s = app.settings.lease.total_seconds()
    outlet = None
    if app.mode == "split":
        outlet = Outlet(app.celery, prefix=app.settings.prefix, kind=app.settings.hint_queues)
    back = Handback(app.celery, app.store, queues=queues, lease_s=lease_s, outlet=outlet)
    living = back.living()
    if living and not dry_run:
        raise CommandRefused(f"Workers of agentq are alive: {', '.join(living)}. Stop them first, then hand back.")
    report = back.preview() if dry_run else back.perform()
    if as_json:
        print_json(report.to_json())
        return 0
    done = "would go" if dry_run else "went"
    say(f"{report.tasks} plain tasks and {report.steps} steps {done} back to stock Celery's lists,")
    say(f"{report.delayed} of the steps with an ETA; {report.chords} open chords {done} with them.")
    if report.kept or report.parked:
        words = ", ".join(f"{count} of {name}" for name, count in sorted(report.kept.items())) or "none that wait"
        say(f"Kept for agentq: messages of agents' runs ({words}), and {report.parked} parked runs.")
        say("They go on when a worker of agentq is started again. To give one up: agentq runs cancel RUN")
    if report.held:
        say(f"{report.held} messages are in the hands of other consumers, and come back an hour after their last take.")
    return 0
