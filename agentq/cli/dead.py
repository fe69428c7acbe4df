"""`agentq dead`: the messages that nobody takes until a person decides."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from agentq.cli.commands import ExampleGroup
from agentq.cli.errors import CommandRefused
from agentq.cli.output import print_json, say
from agentq.cli.session import Session, app_command, json_option

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.core.models import DeadLetter

SHOWN = 4_000
"""Characters of a message that a person is shown; --json prints the whole."""


@click.group(cls=ExampleGroup)
def dead() -> None:
    """List, show, replay and drop dead letters.

    A dead letter is a step that killed its worker again and again, an undo that failed, a message that cannot be read,
    or one whose task no worker knows. Its run waits until you replay or drop it; after a failed undo it may have ended.

    Example:
      agentq dead list
      agentq dead replay 3f2a81c0
    """


def find_letter(app: AgentQ, identity: str) -> str:
    """The id of the dead letter with the id, or with the only id that begins so."""
    # An empty one, of a variable that was not set, must not stand for the only letter that there is.
    names = [letter.letter_id for letter in app.dead.list()] if identity else []
    found = [name for name in names if name.startswith(identity)]
    if len(found) > 1 and identity not in found:
        raise CommandRefused(f'"{identity}" begins the ids of {len(found)} dead letters. Give more of it.')
    return found[0] if len(found) == 1 else identity


@dead.command("list")
@click.option("--queue", help="Only those of this queue.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, newest first.")
@json_option
@app_command
def list_letters(session: Session, queue: str | None, limit: int | None, as_json: bool) -> int:
    """List the dead letters, newest first.

    Example:
      agentq dead list --queue tools --json
    """
    found = [letter for letter in session.app.dead.list() if queue is None or letter.queue == queue][:limit]
    if as_json:
        print_json(found)
        return 0
    if not found:
        say("No dead letters.")
        return 0
    from agentq.console.tables import letters_table
    from agentq.console.words import open_console

    console = open_console()
    console.print(letters_table(found, now=datetime.now(UTC), console=console))
    say("Once the cause is gone: agentq dead replay LETTER. To go on without it: agentq dead drop LETTER.")
    return 0


@dead.command()
@click.argument("letter_id", metavar="LETTER")
@json_option
@app_command
def show(session: Session, letter_id: str, as_json: bool) -> int:
    """Show a dead letter: what was wrong, and its message.

    Example:
      agentq dead show 3f2a81c0
    """
    letter, message = session.app.dead.get(find_letter(session.app, letter_id))
    if as_json:
        print_json({**letter.model_dump(mode="json"), **_message_document(message)})
        return 0
    from agentq.console.tables import letters_table
    from agentq.console.words import open_console, plain

    console = open_console()
    console.print(letters_table([letter], now=datetime.now(UTC), console=console))
    if letter.root_id is not None:
        say(f"The whole history: agentq runs events {letter.root_id}")
    text = plain(_readable(message))
    click.echo(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
    return 0


def _message_document(message: bytes) -> dict[str, Any]:
    try:
        return {"message": message.decode()}
    except UnicodeDecodeError:
        return {"message_base64": base64.b64encode(message).decode()}


def _readable(message: bytes) -> str:
    """The message as text, with a body in base64 opened where it is JSON."""
    text = message.decode(errors="backslashreplace")
    try:
        document = json.loads(text)
        if document["properties"].get("body_encoding") == "base64":
            document["body"] = json.loads(base64.b64decode(document["body"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        return text
    return json.dumps(document, indent=2, ensure_ascii=False)


@dead.command()
@click.argument("letter_ids", metavar="LETTER", nargs=-1)
@click.option("--all", "all_of_them", is_flag=True, help="Every dead letter.")
@json_option
@app_command
def replay(session: Session, letter_ids: tuple[str, ...], all_of_them: bool, as_json: bool) -> int:
    """Have dead letters delivered again, with their deaths forgotten.

    Example:
      agentq dead replay 3f2a81c0
      agentq dead replay --all
    """
    return _each(session.app, letter_ids, session.app.dead.replay, "replayed", every=all_of_them, as_json=as_json)


@dead.command()
@click.argument("letter_ids", metavar="LETTER", nargs=-1)
@click.option("--all", "all_of_them", is_flag=True, help="Every dead letter.")
@json_option
@app_command
def drop(session: Session, letter_ids: tuple[str, ...], all_of_them: bool, as_json: bool) -> int:
    """Give dead letters up: their steps end as failed, and their runs go on with that. A plain message is deleted.

    Example:
      agentq dead drop 3f2a81c0
    """
    return _each(session.app, letter_ids, session.app.dead.drop, "dropped", every=all_of_them, as_json=as_json)


def _each(
    app: AgentQ, given: tuple[str, ...], act: Callable[[str], None], done: str, *, every: bool, as_json: bool
) -> int:
    from agentq.core.errors import LetterNotFound

    if every == bool(given):
        raise CommandRefused("Name dead letters by their ids, or all of them by --all.")
    letters: list[DeadLetter] = app.dead.list() if every else []
    names = [letter.letter_id for letter in letters] if every else [find_letter(app, name) for name in given]
    acted: list[str] = []
    try:
        for name in dict.fromkeys(names):
            try:
                act(name)
            except LetterNotFound:
                # Of all of them, one may be gone meanwhile: another person, or its run was cancelled.
                if not every:
                    raise
                continue
            acted.append(name)
    finally:
        # Also when another one of them is not there: what was done is told.
        _tell(acted, done, as_json=as_json)
    if not acted and not as_json:
        say("No dead letters.")
    return 0


def _tell(acted: list[str], done: str, *, as_json: bool) -> None:
    if as_json:
        print_json({done: acted})
        return
    for name in acted:
        click.echo(f"Dead letter {name} is {done}.")
