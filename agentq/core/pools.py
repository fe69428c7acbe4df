"""Which pools there are: what is declared of each, and which of them have what a step needs.

A pool is declared in the pools file or in code. It must not know which workers serve it, nor how a call chooses among
those that fit: see ``routes``. The queue of a pool has the pool's name.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from math import inf
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from agentq.core.declared import checked_table, impossible, read_tables, told
from agentq.core.devices import is_gpu_pool
from agentq.core.error_base import near
from agentq.core.errors import InvalidArguments
from agentq.core.models import Model, Needs
from agentq.core.tomlfile import TomlFile, read_toml
from agentq.core.units import Duration

DEFAULT_POOL: Final = "default"

PoolKind = Literal["prefork", "threads", "solo", "gevent"]

_TABLE: Final = "pools"


class PoolSpec(Model):
    """Workers of one kind."""

    name: str = Field(pattern=r"^[^\s,]{1,200}$")
    """Also the name of its queue; no blanks and commas, since `celery -Q` takes a list of names."""
    kind: PoolKind = "prefork"
    """Threads for steps that wait for I/O, prefork for those that compute; gevent where it is installed."""
    concurrency: PositiveInt | Literal["auto"] = "auto"
    """Attempts at once in one worker; auto is decided on the machine that the worker starts on."""
    tags: dict[str, str] = Field(default_factory=dict)
    """What its machines have, and where they stand; see Needs. With `gpu` each slot of a worker gets a device."""
    slots_per_gpu: PositiveInt | None = None
    """Of a pool with the tag `gpu` whose concurrency is auto: so many slots share a device; None for one."""
    cost_per_hour: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Of one slot, in any unit that all pools share; among pools that fit, the cheaper goes first. None counts as 0."""
    time_limit: Duration | None = Field(default=None, gt=timedelta(0))
    """Of one attempt, for steps that set none; None for the setting `step_soft_limit`."""
    hard_time_limit: Duration | None = Field(default=None, gt=timedelta(0))
    """After so long the attempt is killed; None for `step_hard_grace` after the `time_limit`."""
    max_tasks_per_child: PositiveInt | None = None
    """After so many attempts a child process gives way to a fresh one; prefork alone has children."""
    max_waiting: PositiveInt | None = None
    """More than so many that wait refuse a new start, and hold back new members of runs; None is no limit."""

    min: NonNegativeInt = 0
    """Of a pool that is scaled, see `max`: workers that always stay."""
    max: PositiveInt | None = None
    """At most so many workers; with it, and only with it, `agentq autoscale` sizes the pool."""
    slo_wait: Duration = Field(default=timedelta(seconds=10), gt=timedelta(0))
    """95 of 100 steps are to start within it."""
    idle_to_zero: Duration = Field(default=timedelta(seconds=60), ge=timedelta(0))
    """After so long without a step the last worker goes, if `min` is 0."""
    best_effort: bool = False
    """Whether it may sleep at zero though a worker starts more slowly than `slo_wait` allows."""
    shrink_after: Duration | None = Field(default=None, ge=timedelta(0))
    """It shrinks only to the largest size asked for within it; None: as long as its own lulls say."""
    forecast: Literal["report", "count"] = "report"
    """Whether what the weeks before had at this hour is only told, or may raise the size where a backtest
    (`agentq autoscale backtest`) has shown that it is better with it."""
    startup_limit: Duration = Field(default=timedelta(minutes=1), gt=timedelta(0))
    """A worker of the local driver that has not come up after so long is killed, and another started."""
    max_cost_per_hour: Decimal | None = Field(default=None, ge=0)
    """What all its workers together may cost in an hour, in the unit of `cost_per_hour`; None for no such limit."""
    target: str | None = Field(default=None, pattern=r"^[^\s]{1,200}$")
    """What the pool is called on the platform that runs its workers: a Deployment, a process type; None: its name."""

    @model_validator(mode="after")
    def _check_scaling(self) -> Self:
        if self.max is None:
            given = sorted(_SCALING & self.model_fields_set)
            if given:
                raise impossible(given[0], "the pool is not scaled: say the most workers that it may have, max = 8")
            return self
        if self.min > self.max:
            raise impossible("min", f"it is {self.min}, and max is {self.max}")
        if self.max_cost_per_hour is not None and not self.cost_per_hour:
            raise impossible("max_cost_per_hour", "cost_per_hour does not say what a slot costs")
        return self

    @model_validator(mode="after")
    def _check_possible(self) -> Self:
        if self.kind == "solo" and self.concurrency not in ("auto", 1):
            raise impossible("concurrency", f"a solo pool runs one attempt at once, not {self.concurrency}")
        if self.slots_per_gpu is not None and not is_gpu_pool(self.tags):
            raise impossible("slots_per_gpu", "the pool's tags name no gpu, so that its workers look for none")
        if self.slots_per_gpu is not None and self.concurrency != "auto":
            raise impossible("slots_per_gpu", f"the number of slots is given already: concurrency = {self.concurrency}")
        if self.max_tasks_per_child is not None and self.kind != "prefork":
            raise impossible("max_tasks_per_child", f"a pool of kind {self.kind} has no child processes: take prefork")
        if self.hard_time_limit is not None and (self.time_limit is None or self.hard_time_limit <= self.time_limit):
            raise impossible(
                "hard_time_limit", "it must be longer than time_limit, at which an attempt is asked to stop"
            )
        if "vram_gb" in self.tags and _number(self.tags["vram_gb"]) < 0:
            raise impossible("tags", f"vram_gb is an amount of memory in GB, not {self.tags['vram_gb']!r}")
        return self


_SCALING: Final = frozenset(
    {"min", "slo_wait", "idle_to_zero", "best_effort", "shrink_after", "startup_limit", "max_cost_per_hour", "forecast"}
)


class Declared(Mapping[str, PoolSpec]):
    """Pools by name, and which of them meet which needs: asked at every call, so that it is remembered."""

    def __init__(self, specs: Iterable[PoolSpec] = ()) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._fitting: dict[tuple[tuple[str, str], ...], tuple[PoolSpec, ...]] = {}
        self._names: dict[tuple[tuple[str, str], ...], frozenset[str]] = {}

    def __getitem__(self, name: str) -> PoolSpec:
        """The pool of that name."""
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def fitting(self, wanted: Mapping[str, str]) -> tuple[PoolSpec, ...]:
        """The pools that have all of these tags, in the order of their declaration."""
        key = tuple(wanted.items())
        found = self._fitting.get(key)
        if found is None:
            if len(self._fitting) >= _REMEMBERED:
                # Needs made of users' words could be of any number.
                self._fitting.clear()
                self._names.clear()
            found = tuple(spec for spec in self._specs.values() if has_tags(spec.tags, wanted))
            self._fitting[key] = found
        return found

    def names_fitting(self, wanted: Mapping[str, str]) -> frozenset[str]:
        """The names of these pools."""
        key = tuple(wanted.items())
        found = self._names.get(key)
        if found is None:
            found = frozenset(spec.name for spec in self.fitting(wanted))
            self._names[key] = found
        return found


_REMEMBERED: Final = 1000


def load_pools(path: Path | str) -> dict[str, PoolSpec]:
    """The pools that the file declares, each in a table `[pools.NAME]`, in the file's order.

    Raises InvalidFile with the line that is wrong.
    """
    file = read_toml(Path(path))
    return {name: _pool(file, name, table) for name, table in read_tables(file, _TABLE).items()}


def declared_in_code(name: str, fields: Mapping[str, Any]) -> PoolSpec:
    """The pool with these fields, as its table in a file would have them; raises InvalidArguments."""
    known = set(PoolSpec.model_fields) - {"name"}
    for field, value in fields.items():
        if field not in known:
            reason = f"it is unknown; known: {', '.join(sorted(known))}.{near(field, known)}"
            raise InvalidArguments(step="declare_pool", parameter=field, value=value, reason=reason.rstrip("."))
    try:
        return PoolSpec(name=name, **_with_tag_texts(fields))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else str(first.get("ctx", {}).get("field", "pool"))
        value = name if field == "name" else fields.get(field)
        raise InvalidArguments(step="declare_pool", parameter=field, value=value, reason=first["msg"]) from error


def meets(tags: Mapping[str, str], needs: Needs) -> bool:
    """Whether a pool with these tags has everything that is needed."""
    return has_tags(tags, needs.as_tags())


def has_tags(tags: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether these tags have everything that is wanted; of memory, at least as much."""
    return all(name in tags and _agrees(name, tags[name], value) for name, value in wanted.items())


def contradicts(tags: Mapping[str, str], needs: Needs) -> bool:
    """Whether a tag says something else than what is needed.

    A tag that is not there says nothing, but that of a GPU: a pool that names none has workers that look for none.
    """
    wanted = needs.as_tags()
    if is_gpu_pool(wanted) and not is_gpu_pool(tags):
        return True
    return any(not _agrees(name, tag, wanted[name]) for name, tag in tags.items() if name in wanted)


def _agrees(name: str, tag: str, needed: str) -> bool:
    # Memory is the one need of which more is as good.
    return _number(tag) >= float(needed) if name == "vram_gb" else tag == needed


def _number(tag: str) -> float:
    try:
        return float(tag)
    except ValueError:
        return -inf


def _pool(file: TomlFile, name: str, table: Any) -> PoolSpec:
    table = checked_table(file, _TABLE, name, table, set(PoolSpec.model_fields) - {"name"})
    try:
        return PoolSpec(name=name, **_with_tag_texts(table))
    except ValidationError as error:
        raise told(file, _TABLE, name, error) from error


def _with_tag_texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    tags = fields.get("tags")
    if not isinstance(tags, dict):
        return dict(fields)
    return {**fields, "tags": {tag: _tag_text(value) for tag, value in tags.items()}}


def _tag_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, int | float) else value
