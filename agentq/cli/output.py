"""Where words and documents go: stderr has progress for people, stdout one JSON document for programs."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from agentq.core.codec import to_jsonable


def print_json(document: Any) -> None:
    """The document stands on stdout, indented for a person, in one piece for a program."""
    click.echo(json.dumps(to_jsonable(document), ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def print_json_line(document: Any) -> None:
    """The document stands on stdout on a line of its own, at once."""
    click.echo(json.dumps(to_jsonable(document), ensure_ascii=False))


def say(words: str) -> None:
    """The words stand on stderr: they are for the person, not for what reads stdout."""
    click.echo(words, err=True)
