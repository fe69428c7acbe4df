"""Finding and importing the application that a command talks to.

Owns the order in which places are looked at, and the words when nothing is found. It must not know what
an application does.
"""

from __future__ import annotations

import importlib
import sys
import tomllib
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentq.cli.errors import CommandRefused

DEFAULT_APP = "workers.app:app"
PROJECT_FILES = ("agentq.toml", "config/agentq.toml")
"""Where settings look too, in this order: the first that exists counts alone."""


@dataclass(frozen=True)
class AppSource:
    """Which application was decided on, and why."""

    spec: str
    """`module:attribute`, as for `celery -A`."""
    named_by: str
    """Where it is named, for people: `-A`, `AGENTQ_APP`, a file, or `the default`."""
    root: Path
    """The folder that modules are imported from, beside the working directory."""
    config: Path | None = None
    """The project's `agentq.toml`, if it has one."""

    def settle_environment(self, environ: MutableMapping[str, str], *, cwd: Path) -> None:
        """This process, and the workers that it starts, see one configuration file and one state folder.

        Without it a command given in a subfolder would start a second private server there.
        """
        if self.root == cwd:
            return
        if self.config is not None:
            environ.setdefault("AGENTQ_CONFIG", str(self.config))
        if self.config is None or "state_dir" not in _table_of(self.config):
            environ.setdefault("AGENTQ_STATE_DIR", str(self.root / ".agentq"))


def decide_app(explicit: str | None, *, environ: Mapping[str, str], cwd: Path) -> AppSource:
    """The application: named on the command line, else in the environment, else in a file, else the default.

    Files are looked for in `cwd` and, inside a Git repository, in its parents up to the repository's root.
    Outside a repository no parent is looked at: a file that somebody else put into a shared folder above
    must not decide which code runs.
    """
    if explicit:
        return AppSource(explicit, "-A", cwd)
    if environ.get("AGENTQ_APP"):
        return AppSource(environ["AGENTQ_APP"], "AGENTQ_APP", cwd)
    for folder in _folders(cwd):
        settings = next((path for path in map(folder.joinpath, PROJECT_FILES) if path.exists()), None)
        for file, section in ((settings, ()), (folder / "pyproject.toml", ("tool", "agentq"))):
            spec = None if file is None else _app_in(file, section)
            if spec is not None:
                return AppSource(spec, str(file), folder, settings)
    return AppSource(DEFAULT_APP, "the default", cwd)


def _folders(cwd: Path) -> Iterator[Path]:
    parents = [cwd, *cwd.parents]
    root = next((folder for folder in parents if (folder / ".git").exists()), None)
    yield from parents[: parents.index(root) + 1] if root is not None else [cwd]


def _app_in(path: Path, section: tuple[str, ...]) -> str | None:
    table: Any = _table_of(path)
    for name in section:
        table = table.get(name, {})
    spec = table.get("app") if isinstance(table, dict) else None
    if spec is not None and not isinstance(spec, str):
        raise CommandRefused(f'{path}: app is {spec!r}; write it as "module:name", e.g. app = "agents:app".')
    return spec


def _table_of(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CommandRefused(f"{path} cannot be read: {error}.") from error


def load_app(source: AppSource) -> Any:
    """The application object; `CommandRefused` says what is missing and what to do."""
    for folder in (source.root, Path.cwd()):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    module_name, _, attribute = source.spec.partition(":")
    named = f'The application "{source.spec}" (named by {source.named_by})'
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise CommandRefused(
                f'{named} was not found: there is no module "{error.name}" in {source.root}. '
                'Run "agentq init" for a new project, or name yours with -A module:app.'
            ) from error
        raise CommandRefused(f"{named} cannot be imported: {_where(error, source.root)}") from error
    except Exception as error:
        raise CommandRefused(f"{named} cannot be imported: {_where(error, source.root)}") from error
    app = getattr(module, attribute or "app", None)
    if app is None:
        found = ", ".join(name for name, value in vars(module).items() if _is_app(value)) or "none"
        raise CommandRefused(
            f'{named} was not found: module "{module_name}" has no "{attribute or "app"}". Applications in it: {found}.'
        )
    if not _is_app(app):
        raise CommandRefused(
            f"{named} is {type(app).__name__}, not an agentq application. "
            "Make one with agentq.AgentQ(...), or with agentq.install(app) from a Celery app."
        )
    return app


def _is_app(value: Any) -> bool:
    # Asked of the class, by a method of agentq's alone: importing `agentq.app` to compare types would load
    # Celery also where the module turns out to be missing.
    return hasattr(type(value), "server_words")


def _where(error: BaseException, root: Path) -> str:
    # The innermost line of the project's own code: what lies below it is a library's.
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(root)]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{place}. --debug shows the traceback."
