"""Commands whose help ends in an example, shown as it is written."""

from __future__ import annotations

import inspect
from typing import Any

import click


def _keep_example(help_text: str | None) -> str | None:
    # "\b" tells click not to wrap the paragraph; in a docstring it would be an escape sequence to explain.
    if help_text is None:
        return None
    return inspect.cleandoc(help_text).replace("\n\nExample:\n", "\n\n\b\nExample:\n")


class ExampleCommand(click.Command):
    """A command whose docstring may have a paragraph that begins with the line `Example:`."""

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **{**settings, "help": _keep_example(settings.get("help"))})


class ExampleGroup(click.Group):
    """A group of such commands, and one itself."""

    command_class = ExampleCommand

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **{**settings, "help": _keep_example(settings.get("help"))})
