"""`agentq run`: start an agent, follow it, show its answer and its timeline."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from agentq.cli.arguments import describe_parameters, example, parse_arguments
from agentq.cli.commands import ExampleCommand
from agentq.cli.errors import FAILED, CommandRefused
from agentq.cli.output import print_json, say
from agentq.cli.session import Session, app_command, json_option

if TYPE_CHECKING:
    from agentq.cli.own_workers import OwnWorkers
    from agentq.core.lanes import Priority

NOT_FINISHED = 3
"""Exit code when `--timeout` is over before the run is."""
INTERRUPTED = 130


@click.command(
    cls=ExampleCommand,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    options_metavar="",
)
@click.argument("agent", required=False, metavar="AGENT")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[--NAME VALUE]... [OPTIONS]")
@json_option
@click.option("--detach", is_flag=True, help="Print the run's id and return; workers must run elsewhere.")
@click.option("--no-workers", is_flag=True, help="Start no worker, also when none serves the agent's pools.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Follow so long; the run goes on.")
@click.option("--key", help="Starts at most one run of the agent with this key.")
@click.option("--priority", type=click.Choice(["critical", "high", "normal", "low"]))
@click.option("--tenant", help="Whose run it is.")
@click.option("-h", "--help", "wants_help", is_flag=True, help="Show this, and the agent's parameters.")
@app_command
def run(
    session: Session,
    agent: str | None,
    arguments: tuple[str, ...],
    as_json: bool,
    detach: bool,
    no_workers: bool,
    timeout: float | None,
    key: str | None,
    priority: Priority | None,
    tenant: str | None,
    wants_help: bool,
) -> int:
    """Run an agent and follow it to its answer.

    The agent's parameters are options of the same name. Text is taken as it stands, anything else is
    written as JSON. What stands after "--" belongs to the agent even if it looks like one of the options
    below. Workers are started when none serves the agent's pools, and stopped at the end.

    Example:
      agentq run research --question "How is state kept?" --folder docs
      agentq run research --help
    """
    if wants_help or agent is None:
        return _show_help(click.get_current_context(), session, agent)
    from agentq.cli.catalogue import parameters_of
    from agentq.core.errors import InvalidArguments

    app = session.app
    parameters = parameters_of(app, agent)
    kwargs = parse_arguments(agent, parameters, arguments)
    # Asked first: Celery would try for long to reach a server that is away.
    app.store.now_ms()
    try:
        handle = app.agents[agent].using(priority=priority, key=key, tenant=tenant).start(**kwargs)
    except InvalidArguments as error:
        raise CommandRefused(f"{error} {example(agent, parameters)}") from error
    if detach:
        return _tell_detached(session, handle, agent, as_json=as_json)
    from agentq.cli.own_workers import OwnWorkers

    with OwnWorkers(session, wanted=not no_workers) as own:
        own.start_missing(agent)
        return _follow(session, handle, agent, own, as_json=as_json, timeout=timeout)


def _show_help(ctx: click.Context, session: Session, agent: str | None) -> int:
    # Without an agent it is the same text, but wrong use: nothing was run.
    click.echo(ctx.get_help())
    if agent is None:
        return 2 if not ctx.params.get("wants_help") else 0
    from agentq.cli.catalogue import parameters_of, summary_of

    formatter = ctx.make_formatter()
    with formatter.section(f"Agent {agent}"):
        formatter.write_text(summary_of(session.app, agent))
    with formatter.section("Its parameters"):
        formatter.write_dl(describe_parameters(parameters_of(session.app, agent)) or [("none", "")])
    click.echo("\n" + formatter.getvalue().rstrip())
    return 0


def _tell_detached(session: Session, handle: Any, agent: str, *, as_json: bool) -> int:
    from agentq.cli.catalogue import pools_of, unserved

    if as_json:
        print_json({"run_id": handle.id, "agent": agent, "status": str(handle.status())})
    else:
        click.echo(handle.id)
    lacking = unserved(session.app, pools_of(session.app, agent))
    if lacking:
        say(
            f"No worker serves {', '.join(lacking)} yet; the run waits. Start one: "
            + "; ".join(f"agentq worker --pool {name}" for name in lacking)
        )
    return 0


def _follow(session: Session, handle: Any, agent: str, own: OwnWorkers, *, as_json: bool, timeout: float | None) -> int:
    from agentq.cli.follow import Follower
    from agentq.console.words import open_console
    from agentq.core.errors import StoreUnavailable
    from agentq.core.models import ENDED

    progress = open_console(sys.stderr)
    follower = Follower(
        session.app,
        handle,
        agent=agent,
        console=progress if not as_json or progress.is_terminal else None,
        timeout=None if timeout is None else timedelta(seconds=timeout),
        tend=own.tend,
    )
    try:
        status = follower.follow()
    except KeyboardInterrupt:
        say(f"\nNo longer followed. The run goes on while workers serve it: agentq runs show {handle.id} --follow")
        return INTERRUPTED
    except StoreUnavailable:
        say(f"No longer followed. The run goes on once the server is back: agentq runs show {handle.id} --follow")
        raise
    if status not in ENDED:
        if as_json:
            print_json(run_document(handle, agent, status, result=None, error=None))
        say(
            f"Run {handle.id} is not finished after {timeout:g} s. It goes on while workers serve it: "
            f"agentq runs show {handle.id} --follow"
        )
        return NOT_FINISHED
    return show_outcome(handle, agent, status, as_json=as_json)


def show_outcome(handle: Any, agent: str, status: str, *, as_json: bool) -> int:
    """The finished run is told, on stdout: its document, or its answer and its timeline."""
    from agentq.core.errors import RunError

    result: Any = None
    error: RunError | None = None
    try:
        result = handle.get(timeout=30)
    except RunError as failure:
        error = failure
    if as_json:
        print_json(run_document(handle, agent, status, result=result, error=error))
        return 0 if error is None else FAILED
    from agentq.console.report import report
    from agentq.console.timeline import timeline
    from agentq.console.words import counted, open_console

    console = open_console()
    if error is None:
        console.print(report(result, console=console))
    else:
        say(f"agentq: {error}")
        if status == "failed":
            say(f"When the cause is mended: agentq runs retry {handle.id}")
    steps = handle.steps()
    if steps:
        console.print()
        console.print(
            f"Run {handle.id}: {agent} {status}, {usage_words(handle)}{counted(len(steps), 'step')}",
            style="bold",
            markup=False,
            soft_wrap=True,
        )
        show_saved(handle)
        console.print(timeline(steps, now=datetime.now(UTC), console=console))
        show_places(handle, steps, agent)
    return 0 if error is None else FAILED


def show_places(handle: Any, steps: list[Any], agent: str) -> None:
    """Where needs have chosen a pool, it is told why which."""
    from agentq.console.places import places_table
    from agentq.console.words import open_console

    record = handle.store.record(handle.root, handle.id)
    why = json.loads(record.get("cd", "{}")).get("why")
    table = places_table(steps, run=(agent, record.get("q"), why))
    if table is not None:
        console = open_console()
        console.print()
        console.print(table)


def usage_words(handle: Any) -> str:
    """What the run has used, for people; empty when it used nothing that is counted."""
    usage = handle.usage()
    tokens_in, tokens_out, usd = (getattr(usage, name, 0) or 0 for name in ("tokens_in", "tokens_out", "usd"))
    words = f"{tokens_in} tokens in, {tokens_out} out, " if tokens_in or tokens_out else ""
    return words + (f"{usd} USD, " if usd else "")


def show_saved(handle: Any) -> None:
    """What kept answers have saved the run, on a line of its own; nothing where there was none."""
    from agentq.console.words import counted, open_console

    saved = handle.saved()
    if saved.answers:
        sums = [f"{saved.tokens} tokens"] if saved.tokens else []
        sums += [f"{saved.usd.normalize():f} USD"] if saved.usd else []
        words = f"; that has saved {' and '.join(sums)}" if sums else ""
        open_console().print(f"{counted(saved.answers, 'kept answer')} taken{words}.", markup=False, soft_wrap=True)


def run_document(handle: Any, agent: str, status: str, *, result: Any, error: Any) -> dict[str, Any]:
    """The run as the one JSON document that `--json` prints."""
    return {
        "run_id": handle.id,
        "agent": agent,
        "status": status,
        "result": result,
        "error": None if error is None else {**error.to_wire(), "message": str(error)},
        "usage": handle.usage(),
        "saved": handle.saved(),
        "steps": handle.steps(),
    }
