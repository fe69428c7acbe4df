"""What the commands of one invocation share: which application, and how much to tell about errors."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from agentq.cli.errors import CommandRefused
from agentq.cli.locate import AppSource, decide_app, load_app

if TYPE_CHECKING:
    from agentq.app import AgentQ

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Session:
    """One invocation: the application is found and imported when a command first asks for it."""

    explicit_app: str | None = None
    debug: bool = False
    _source: AppSource | None = field(default=None, repr=False)
    _app: AgentQ | None = field(default=None, repr=False)

    @property
    def source(self) -> AppSource:
        """Where the application stands; also settles which configuration file and state folder count."""
        if self._source is None:
            cwd = Path.cwd()
            self._source = decide_app(self.explicit_app, environ=os.environ, cwd=cwd)
            self._source.settle_environment(os.environ, cwd=cwd)
        return self._source

    @property
    def app(self) -> AgentQ:
        """The application, imported once."""
        if self._app is None:
            self._app = cast("AgentQ", load_app(self.source))
        return self._app

    @property
    def celery_spec(self) -> str:
        """The Celery app, as `celery -A` wants it: the application itself, or the one it was installed on."""
        module, _, attribute = self.source.spec.partition(":")
        for name, value in {attribute or "app": self.app, **vars(sys.modules[module])}.items():
            if value is self.app.celery:
                return f"{module}:{name}"
        raise CommandRefused(
            f'The Celery app under "{self.source.spec}" has no name in module "{module}", and a worker is '
            f"started by that name. Import it there."
        )


def _set_app(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Session).explicit_app = value


def _set_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Session).debug = True


def app_command(command: F) -> F:
    """`-A` and `--debug` are understood after the command's name too; the function gets the session."""

    @click.option("-A", "--app", metavar="MODULE:NAME", expose_value=False, callback=_set_app, hidden=True)
    @click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug, hidden=True)
    @click.pass_context
    @functools.wraps(command)
    def with_session(ctx: click.Context, *args: Any, **kwargs: Any) -> Any:
        return command(ctx.ensure_object(Session), *args, **kwargs)

    return cast(F, with_session)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
"""What every listing has."""
