"""The settings of a process, read once: environment over file over default.

It owns their names, defaults and units. No layer below may see a `Settings`: assembly hands on plain values.
"""

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from agentq.core.devices import read_devices
from agentq.core.error_base import near
from agentq.core.errors import InvalidSetting
from agentq.core.guards import OnExceeded
from agentq.core.models import Model, Usd
from agentq.core.tomlfile import TomlFile, read_toml
from agentq.core.units import Duration, Size

PREFIX: Final = "AGENTQ_"

_CONFIG: Final = "AGENTQ_CONFIG"
_NOT_SETTINGS: Final = ("AGENTQ_DEV_", "AGENTQ_TEST_")
"""Beginnings of names that belong to the development script and the tests."""

_REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://", "redis+socket://", "sentinel://")

_BROKER_SCHEMES: Final = ("amqp://", "amqps://", "pyamqp://", *_REDIS_SCHEMES)
_ARCHIVE_SCHEMES: Final = ("sqlite:///", "postgresql://", "postgresql+psycopg://")

_KNOWN_ELSEWHERE: Final = {"REDIS_URL": "redis_url", "SENTRY_DSN": "sentry_dsn"}
"""Variables that others know too, and the settings that they stand for where ours are not set."""
_DSN: Final = re.compile(r"https?://[^\s/@]+@[^\s/@]+/(\S*/)?\d+")

_KIB: Final = 1024


def _renew_within(given: dict[str, Any]) -> timedelta:
    lease: timedelta = given.get("lease", timedelta(seconds=3))
    return min(timedelta(milliseconds=500), lease / 4)


class Settings(Model):
    """Every setting; `AGENTQ_` and the name in capitals is its environment variable.

    Durations are numbers (seconds) or text such as `250ms`, `3s`, `10m`, `7d`; sizes are bytes or text such
    as `64KiB`. Relative paths of a file count from the file's folder, others from the working directory.
    """

    app: str | None = None
    """`module:attribute` of the application that the command `agentq` loads."""
    redis_url: SecretStr | None = None
    """The server (broker and store in one); also `REDIS_URL`. None: a private one in `state_dir`."""
    transport: Literal["auto", "fused", "split", "stock"] = "auto"
    """How steps reach workers: `fused` where broker and store are one Redis, `split` where the broker is RabbitMQ;
    `auto` decides by the broker's URL. `stock` is for Redis too, but over kombu's own transport."""
    broker_url: SecretStr | None = None
    """The broker beside the store, for an app that names none: `amqp://…`. None: the store's Redis."""
    hint_queues: Literal["quorum", "classic"] = "quorum"
    """RabbitMQ's type of the queues that are made for steps; those that are there stay as they are."""
    requeue_after: Duration = Field(default=timedelta(seconds=30), ge=timedelta(seconds=1))
    """With a broker beside the store: after so long it is told again of a step that nobody has taken, doubling."""
    state_dir: Path = Path(".agentq")
    """Where the private server keeps its data, socket and log."""
    prefix: str = Field(default="agentq", pattern=r"^[A-Za-z0-9_.\-]{1,40}$")
    """First part of every key; two applications with different ones may share a server."""

    lease: Duration = Field(default=timedelta(seconds=3), ge=timedelta(milliseconds=200))
    """A worker that has not renewed for so long is dead, and its steps go to others."""
    renew: Duration = Field(default_factory=_renew_within, gt=timedelta(0))
    """How often a worker renews: at most a third of the lease, so that one lost renewal kills nobody."""
    tick: Duration = Field(default=timedelta(milliseconds=250), gt=timedelta(0))
    """How often a worker looks for dead ones and due timers."""
    linger: Duration = Field(default=timedelta(milliseconds=500), ge=timedelta(0))
    """How long an agent that waits keeps its worker before it parks."""
    result_retention: Duration = Field(default=timedelta(days=7), gt=timedelta(0))
    """How long results and journals stay after the end of their run."""
    archive: SecretStr | None = None
    """Where finished runs are kept for good: a URL of SQLite or PostgreSQL, or `off`; None: a file in `state_dir`."""
    history_limit: int = Field(default=100_000, ge=100)
    """Lines of history kept for a run and all below it; older ones go. The journal is always whole."""
    step_soft_limit: Duration = Field(default=timedelta(minutes=10), gt=timedelta(0))
    """After so long an attempt of a step is asked to stop, unless the step says timeout=."""
    step_hard_grace: Duration = Field(default=timedelta(seconds=30), gt=timedelta(0))
    """So long after the soft limit it is killed."""
    turn_limit: Duration = Field(default=timedelta(seconds=60), gt=timedelta(0))
    """After so long without an await an agent's code is interrupted, and its run fails."""
    cancel_grace: Duration = Field(default=timedelta(seconds=10), gt=timedelta(0))
    """A running step that was cancelled is told to stop; so long after that its process is killed."""
    inline_limit: Size = Size(64 * _KIB)
    """A result up to this size stands in its run's journal, a larger one beside it."""
    result_limit: Size = Size(16 * _KIB * _KIB)
    """A larger result is refused: put it into a file or an object store, and return where it is."""
    cache_limit: Size = Size(_KIB * _KIB)
    """A larger answer of a step with `cache=` is not kept: each call makes its own."""
    signal_limit: Size = Size(_KIB * _KIB)
    """A larger signal, or answer to a question, is refused: it stands in the journal, which each replay reads."""
    death_limit: int = Field(default=3, ge=1)
    """So many deaths of a step's attempts in a row, alone in their worker, make it a dead letter."""
    suspect_wait: Duration = Field(default=timedelta(seconds=30), ge=timedelta(0))
    """After so long a worker makes itself free for a step whose last attempt died, which must run alone."""
    unknown_task_grace: Duration = Field(default=timedelta(minutes=10), ge=timedelta(0))
    """So long a task that no worker knows is offered again, as in a rolling deploy; then it is a dead letter."""
    stop_grace: Duration | Literal["off"] = Field(default=timedelta(seconds=25))
    """After a SIGTERM what runs may end for so long; then it is handed over. `off`: as long as it takes."""
    unhealthy_delay: Duration = Field(default=timedelta(seconds=5), ge=timedelta(0))
    """A worker whose event loop stands still for so long takes nothing until it comes round again; 0: off."""
    unhealthy_errors: float = Field(default=0.5, ge=0, le=1)
    """A worker in which more than this share of attempts fails, and not elsewhere, takes none for a minute; 1: off."""
    unhealthy_memory: Size = Size(64 * _KIB * _KIB)
    """A worker with less memory free takes nothing until there is more; 0: off."""
    low_share: int = Field(default=8, ge=2)
    """Every so-manieth step that a worker takes is of the lower priorities, if one waits, so that none starves."""
    age_after: Duration = Field(default=timedelta(minutes=1), gt=timedelta(0))
    """Of these, what has waited for longer goes first, whichever priority it has; else the lowest."""

    prefer_wait: Duration = Field(default=timedelta(seconds=5), ge=timedelta(0))
    """So much longer a call waits for a pool that it prefers before it takes another."""
    on_full: Literal["raise", "wait"] = "raise"
    """What a start does when too many steps wait in its pool (max_waiting): raise QueueFull, or wait for room."""
    full_wait: Duration = Field(default=timedelta(seconds=60), ge=timedelta(0))
    """So long a start waits for room at most, before it raises QueueFull."""
    stranded_after: Duration = Field(default=timedelta(seconds=5), ge=timedelta(0))
    """So long after its last worker what waits in a pool is told as unschedulable, and goes to another that fits."""
    tenant_day_usd: Usd | None = None
    """What all runs of a tenant may cost on a day (UTC), in US dollars; None for no limit."""
    tenant_day_tokens: int | None = Field(default=None, ge=0)
    """How many tokens all runs of a tenant may use on a day; None for no limit."""
    tenant_day_exceeded: OnExceeded = "refuse"
    """What happens then: `refuse` steps, `ask` a person to raise it, or `degrade` to the steps' fallbacks."""

    zombie_repeats: int = Field(default=100, ge=0)
    """A run that makes the same call for the same answer so many times, without waiting, is stopped; 0: off."""
    zombie_cycles: int = Field(default=30, ge=0)
    """A run that goes round in the same calls with the same answers so many times is stopped; 0: off."""
    zombie_tokens: int = Field(default=500_000, ge=0)
    """A run that uses so many tokens in a row for answers that it had had before is stopped; 0: off."""
    zombie_quiet: Duration = Field(default=timedelta(0), ge=timedelta(0))
    """A run of which something runs for so long, and nothing is heard, is stopped; 0: off."""
    zombie_wall: Duration = Field(default=timedelta(0), ge=timedelta(0))
    """A run that has not ended after so long, waiting included, is stopped; 0: off."""

    pools_file: Path | None = None
    """Declares the pools; by default `pools.toml` beside the settings' file, without one `config/pools.toml`."""

    autoscale_driver: str = Field(default="local", pattern=r"^[^\s]+$")
    """By what `agentq autoscale` starts and stops workers: `local`, `kubernetes`, `heroku`, `pull`, or the maker of
    one of your own as `module:name`."""
    instance: str | None = Field(default=None, pattern=r"^[^\s|]{1,200}$")
    """What a worker's platform calls it, the pod's name say; None: `DYNO`, else the host's name."""

    gpus: str | None = None
    """Which GPUs this machine has, where the driver shall not be asked: `4`, `2xa100:80,l4:24` (see core.devices)."""

    models_file: Path | None = None
    """Prices of models; by default `models.toml` beside the settings' file, without one `config/models.toml`."""
    sentry_dsn: SecretStr | None = None
    """Where workers send Sentry's events of failures and losses, unless the application turns Sentry on itself; also
    `SENTRY_DSN`. `off`: agentq tells Sentry nothing, and the application's own Sentry is left alone."""
    model_url: SecretStr | None = None
    """An OpenAI-compatible endpoint, as far as `/v1`; None: agents work without a model."""
    model_name: str | None = None
    """The model to ask for at `model_url`."""
    model_key: SecretStr | None = None
    """The endpoint's key."""

    tools_root: Path | None = None
    """The folder that the shipped agents' tools may read; None: the worker's working directory."""

    @field_validator("redis_url")
    @classmethod
    def _check_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        if not url.get_secret_value().startswith(_REDIS_SCHEMES):
            raise ValueError(f"it must begin with one of {', '.join(_REDIS_SCHEMES)}")
        try:
            _ = urlsplit(url.get_secret_value()).port
        except ValueError:
            # What is wrong is not told: it may quote a piece of the password.
            raise ValueError(
                "its host or port cannot be read; in a password write special characters as percent codes"
            ) from None
        return url

    @field_validator("broker_url")
    @classmethod
    def _check_broker(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(_BROKER_SCHEMES):
            raise ValueError(f"it must begin with one of {', '.join(_BROKER_SCHEMES)}")
        return url

    @field_validator("sentry_dsn")
    @classmethod
    def _check_sentry(cls, given: SecretStr | None) -> SecretStr | None:
        said = "off" if given is None else given.get_secret_value()
        if said != "off" and not _DSN.fullmatch(said):
            raise ValueError("it must be off, or an address that Sentry shows for a project: https://KEY@HOST/ID")
        return given

    @field_validator("gpus")
    @classmethod
    def _check_gpus(cls, given: str | None) -> str | None:
        if given is not None:
            read_devices(given)
        return given

    @field_validator("archive")
    @classmethod
    def _check_archive(cls, given: SecretStr | None) -> SecretStr | None:
        said = "off" if given is None else given.get_secret_value()
        if said != "off" and not said.startswith(_ARCHIVE_SCHEMES):
            raise ValueError(f"it must be off, or begin with one of {', '.join(_ARCHIVE_SCHEMES)}")
        return given

    @property
    def tells_sentry(self) -> bool:
        """Whether Sentry may be told anything."""
        return self.sentry_dsn is None or self.sentry_dsn.get_secret_value() != "off"

    @property
    def archive_url(self) -> str | None:
        """The archive's address; None where none is kept."""
        if self.archive is None:
            return f"sqlite:///{(self.state_dir / 'archive.db').absolute()}"
        return None if self.archive.get_secret_value() == "off" else self.archive.get_secret_value()

    @model_validator(mode="after")
    def _check_lease(self) -> Self:
        if self.renew * 3 > self.lease:
            raise ValueError(
                f"renew is {self.renew.total_seconds():g} s, but must be at most a third of lease "
                f"({self.lease.total_seconds():g} s): lower renew, or raise lease"
            )
        return self

    @classmethod
    def load(cls, *, environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Self:
        """The settings of `environ` over those of the file over the defaults.

        The file is the one that AGENTQ_CONFIG names, else `agentq.toml`, else `config/agentq.toml` in
        `folder` (the working directory), else none. An empty variable counts as one that is not set.

        Raises:
            InvalidSetting: a variable is unknown, or its value is wrong.
            InvalidFile: the file is missing though named, broken, or has a key that is unknown or wrong.
        """
        environ = os.environ if environ is None else environ
        folder = Path.cwd() if folder is None else folder
        file = _find_file(environ, folder)
        from_file = {} if file is None else _read_file(cls, file)
        beside = folder / "config" if file is None else file.path.parent
        values = _companions(beside) | from_file | _read_environment(cls, environ, folder)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _conflict(cls, error) from error


def _find_file(environ: Mapping[str, str], folder: Path) -> TomlFile | None:
    if environ.get(_CONFIG):
        return read_toml(folder / environ[_CONFIG])
    for candidate in (folder / "agentq.toml", folder / "config" / "agentq.toml"):
        if candidate.exists():
            return read_toml(candidate)
    return None


def _companions(folder: Path) -> dict[str, Path]:
    beside = {"pools_file": folder / "pools.toml", "models_file": folder / "models.toml"}
    return {name: path for name, path in beside.items() if path.exists()}


def _read_file(cls: type[Settings], file: TomlFile) -> dict[str, Any]:
    read = {}
    for name, value in file.values.items():
        if name not in cls.model_fields:
            known = near(name, cls.model_fields)
            raise file.wrong(f'setting "{name}" is unknown.{known} "agentq doctor" lists all', name)
        problem = _problem(cls, name, value)
        if problem is not None:
            raise file.wrong(f'setting "{name}" is wrong: {problem}{_given(cls, name, value)}', name)
        read[name] = _placed(cls, name, value, file.path.parent)
    return read


def _read_environment(cls: type[Settings], environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for known, name in _KNOWN_ELSEWHERE.items():
        if environ.get(known) and not environ.get(PREFIX + known):
            read[name] = _from_variable(cls, known, name, environ[known])
    variables = {PREFIX + name.upper(): name for name in cls.model_fields}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable == _CONFIG or variable.startswith(_NOT_SETTINGS):
            continue
        if variable not in variables:
            reason = f"there is no such setting.{near(variable, [*variables, _CONFIG])}"
            raise InvalidSetting(name=variable, reason=reason.rstrip("."), source="environment")
        if value:
            name = variables[variable]
            read[name] = _placed(cls, name, _from_variable(cls, variable, name, value), folder)
    return read


def _from_variable(cls: type[Settings], variable: str, name: str, value: str) -> str:
    problem = _problem(cls, name, value)
    if problem is None:
        return value
    if _is_secret(cls, name):
        raise InvalidSetting(name=variable, reason=problem, source="environment")
    raise InvalidSetting(name=variable, value=value, reason=problem, source="environment")


def _problem(cls: type[Settings], name: str, value: Any) -> str | None:
    """What is wrong with this value alone; None if nothing is."""
    try:
        cls.model_validate({name: value})
    except ValidationError as error:
        # An error without a place is one between settings, which the values of other sources may still heal.
        told = [each["msg"] for each in error.errors(include_url=False) if each["loc"]]
        return told[0].removeprefix("Value error, ") if told else None
    return None


def _placed(cls: type[Settings], name: str, value: Any, folder: Path) -> Any:
    is_path = isinstance(value, str) and cls.model_fields[name].annotation in (Path, Path | None)
    return folder / Path(value).expanduser() if is_path else value


def _is_secret(cls: type[Settings], name: str) -> bool:
    return cls.model_fields[name].annotation in (SecretStr, SecretStr | None)


def _given(cls: type[Settings], name: str, value: Any) -> str:
    return "" if _is_secret(cls, name) else f" (given: {value!r})"


def _conflict(cls: type[Settings], error: ValidationError) -> InvalidSetting:
    reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
    named = [name for name in cls.model_fields if reason.startswith(name)]
    return InvalidSetting(name=named[0] if named else "lease", reason=reason)
