"""The root command: which commands exist, what they share, and how a command ends.

Owns the table of commands and the exit codes. It must not import a command's module before that
command is asked for: the modules load Celery, rich and the application.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

import click

from agentq.cli.commands import ExampleGroup
from agentq.cli.errors import exit_code_of, show_error
from agentq.cli.session import Session


class CommandEntry(NamedTuple):
    """Where a command lives, and its line in `agentq --help`."""

    module: str
    attribute: str
    summary: str


COMMANDS: dict[str, CommandEntry] = {
    "init": CommandEntry("agentq.cli.init", "init", "Write a working project of a few lines into a folder."),
    "run": CommandEntry("agentq.cli.run", "run", "Run an agent and follow it to its answer."),
    "up": CommandEntry("agentq.cli.up", "up", "Run the server, workers of all pools and Flower together."),
    "worker": CommandEntry("agentq.cli.worker", "worker", "Run one Celery worker for the pools named."),
    "runs": CommandEntry("agentq.cli.runs", "runs", "List, show, follow, cancel, signal, stop, resume, retry, fork."),
    "asks": CommandEntry("agentq.cli.asks", "asks", "List and answer the questions that runs ask people."),
    "dead": CommandEntry("agentq.cli.dead", "dead", "List, show, replay and drop dead letters."),
    "breakers": CommandEntry("agentq.cli.guards", "breakers", "List, trip and reset breakers."),
    "limits": CommandEntry("agentq.cli.guards", "limits", "List what rates and limits let through, and who waits."),
    "cache": CommandEntry("agentq.cli.cache", "cache", "List what kept answers have saved, and drop a step's."),
    "agents": CommandEntry("agentq.cli.listings", "agents", "List the agents and their parameters."),
    "pools": CommandEntry("agentq.cli.pools", "pools", "List the pools: who serves them, what waits there."),
    "workers": CommandEntry("agentq.cli.listings", "workers", "List the workers that are alive."),
    "drain": CommandEntry("agentq.cli.drain", "drain", "Have a worker, a machine or a pool take nothing new."),
    "autoscale": CommandEntry(
        "agentq.cli.autoscale", "autoscale", "Give pools as many workers as their load asks for."
    ),
    "handback": CommandEntry(
        "agentq.cli.handback", "handback", "Hand what waits back to stock Celery, before agentq goes."
    ),
    "simulate": CommandEntry("agentq.cli.simulate", "simulate", "Compare the autoscaler's law with others on a load."),
    "plan": CommandEntry("agentq.cli.plan", "plan", "Find the cheapest mix of machine sizes for a load."),
    "doctor": CommandEntry("agentq.cli.doctor", "doctor", "Check the set-up and say what to do."),
}

EXIT_CODES = """\b
Exit codes:
  0  succeeded
  1  the run failed
  2  wrong use
  3  the server cannot be reached"""


class LazyGroup(ExampleGroup):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of the table: the first ones first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; `None` when there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest name in the refusal."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else ' "agentq --help" lists them.'
            raise click.UsageError(f'There is no command "{args[0]}".{hint}', ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table's own summaries: click would import every command to read them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    try:
        version = importlib.metadata.version("agentq-celery")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    click.echo(f"agentq {version}")
    ctx.exit(0)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.option(
    "-A",
    "--app",
    metavar="MODULE:NAME",
    help="The application; else AGENTQ_APP, else the one in agentq.toml or pyproject.toml, else workers.app:app.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
@click.pass_context
def root(ctx: click.Context, app: str | None, debug: bool) -> None:
    """Run AI agents durably on Celery.

    Example:
      agentq run research --question "How is state kept?" --folder docs
    """
    ctx.obj = Session(explicit_app=app, debug=debug)


def execute(argv: Sequence[str]) -> int:
    """The command has run; gives its exit code.

    Errors are told on stderr in plain words; with `--debug` an unexpected one keeps its traceback.
    """
    debug = "--debug" in argv
    try:
        result = root.main(args=list(argv), prog_name="agentq", standalone_mode=False)
    except click.ClickException as refusal:
        refusal.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone: what is left has nowhere to go, also not the flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        show_error(error, debug=debug)
        return exit_code_of(error)
    return result if isinstance(result, int) else 0
