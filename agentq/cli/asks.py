"""`agentq asks`: the questions that runs ask people."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import click

from agentq.cli.answers import person, read_answer
from agentq.cli.commands import ExampleGroup
from agentq.cli.errors import CommandRefused
from agentq.cli.output import print_json, say
from agentq.cli.session import Session, app_command, json_option


@click.group(cls=ExampleGroup)
def asks() -> None:
    """List and answer the questions that runs ask people.

    Example:
      agentq asks list
      agentq asks answer ASK yes
    """


@asks.command("list")
@click.option("--run", "run_id", metavar="RUN", help="Only the questions of this run.")
@json_option
@app_command
def list_asks(session: Session, run_id: str | None, as_json: bool) -> int:
    """List the questions that wait for a person.

    Example:
      agentq asks list --run 3f2a81c0
    """
    from agentq.cli.runs import find_run

    whole_id = find_run(session.app, run_id).id if run_id else None
    found = session.app.asks.list(run_id=whole_id)
    if as_json:
        print_json(found)
        return 0
    if not found:
        say("No question waits for an answer.")
        return 0
    from agentq.console.tables import asks_table
    from agentq.console.words import open_console

    console = open_console()
    console.print(asks_table(found, now=datetime.now(UTC), console=console))
    return 0


@asks.command()
@click.argument("ask_id")
@click.argument("value")
@json_option
@app_command
def answer(session: Session, ask_id: str, value: str, as_json: bool) -> int:
    """Answer a question: yes or no, text, or JSON, as the question wants it.

    An ask's id may be shortened to its first characters while they are unique.

    Example:
      agentq asks answer 5b1d02aa yes
    """
    found = [ask for ask in session.app.asks.list() if ask_id and ask.ask_id.startswith(ask_id)]
    if not found:
        raise CommandRefused(f'No question has an id that begins with "{ask_id}". "agentq asks list" shows them.')
    if len(found) > 1:
        raise CommandRefused(f'"{ask_id}" begins the ids of {len(found)} questions. Give more of it.')
    ask = found[0]
    try:
        read = read_answer(ask, value)
    except ValueError as error:
        raise CommandRefused(f'{error}; the question is "{ask.question}".') from error
    standing = session.app.asks.answer(ask.ask_id, read, by=person())
    if as_json:
        print_json({"ask_id": ask.ask_id, "run_id": ask.run_id, "answer": standing})
    elif standing != read:
        click.echo(f"Somebody was faster: the answer is {json.dumps(standing, ensure_ascii=False)}.")
    else:
        click.echo(f'Answered "{ask.question}" of run {ask.run_id}.')
    return 0
