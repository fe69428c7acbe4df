"""Which pools there are, and which of them a call goes to. It must not know which workers serve them.

Precedence, the first that is given decides:

1. `queue=` of the call
2. `pool=` of the call
3. `needs=` of the call
4. `queue=` of the step
5. `pool=` of the step
6. `needs=` of the step
7. the default pool

A pool that is asked for by name is taken whatever the needs, unless its tags contradict them. The queue of a
pool has the pool's name.
"""

from collections.abc import Mapping
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from pydantic import Field, PositiveInt, ValidationError

from agentq.core.error_base import near
from agentq.core.errors import NoPoolFor, UnknownPool
from agentq.core.models import Model, Needs
from agentq.core.tomlfile import TomlFile, read_toml
from agentq.core.units import Duration

DEFAULT_POOL: Final = "default"

_TABLE: Final = "pools"


class PoolSpec(Model):
    """Workers of one kind."""

    name: str = Field(pattern=r"^[^\s,]{1,200}$")
    """Also the name of its queue; no blanks and commas, since `celery -Q` takes a list of names."""
    kind: Literal["prefork", "threads", "solo"] = "prefork"
    """Threads for steps that wait for I/O, prefork for those that compute."""
    concurrency: PositiveInt | Literal["auto"] = "auto"
    """Attempts at once in one worker; auto is decided on the machine that the worker starts on."""
    tags: dict[str, str] = Field(default_factory=dict)
    """What its machines have; see Needs."""
    time_limit: Duration | None = Field(default=None, gt=timedelta(0))
    """Of one attempt, for steps that set none; None for the setting `step_soft_limit`."""


class Route(NamedTuple):
    """Where a call goes. `pool` is None where a queue was named; `why` tells what decided, for people."""

    queue: str
    pool: str | None
    why: str


def load_pools(path: Path | str) -> dict[str, PoolSpec]:
    """The pools that the file declares, each in a table `[pools.NAME]`, in the file's order.

    Raises InvalidFile with the line that is wrong.
    """
    file = read_toml(Path(path))
    for key in file.values:
        if key != _TABLE:
            raise file.wrong(f'"{key}" is unknown here: pools stand in tables [pools.NAME]', key)
    tables = file.values.get(_TABLE, {})
    if not isinstance(tables, dict):
        raise file.wrong(f"{_TABLE} must be tables [pools.NAME]", _TABLE)
    return {name: _pool(file, name, table) for name, table in tables.items()}


def decide_route(
    pools: Mapping[str, PoolSpec],
    *,
    step: str,
    call_queue: str | None = None,
    call_pool: str | None = None,
    call_needs: Needs | None = None,
    step_queue: str | None = None,
    step_pool: str | None = None,
    step_needs: Needs | None = None,
    default_pool: str = DEFAULT_POOL,
) -> Route:
    """Where a call of the step goes, by the precedence above.

    Of several pools that meet the needs, the step's own goes first, then the one with the fewest tags (the
    special machines stay free for what needs them), then the first by name. Any pool may be named where none
    is declared.

    Raises:
        UnknownPool: the pool is not declared, while others are.
        NoPoolFor: no declared pool meets the needs, or the named one contradicts them.
    """
    if call_queue is not None:
        return Route(call_queue, None, f"the call names queue {call_queue}")
    if call_pool is not None:
        needs = step_needs if call_needs is None else call_needs
        return _named(pools, step, call_pool, needs, f"the call names pool {call_pool}")
    if call_needs is not None and call_needs.as_tags():
        return _needed(pools, step, call_needs, step_pool, "the call")
    if step_queue is not None:
        return Route(step_queue, None, f"the step names queue {step_queue}")
    if step_pool is not None:
        return _named(pools, step, step_pool, step_needs, f"the step names pool {step_pool}")
    if step_needs is not None and step_needs.as_tags():
        return _needed(pools, step, step_needs, None, "the step")
    return Route(default_pool, default_pool, "the default pool")


def meets(tags: Mapping[str, str], needs: Needs) -> bool:
    """Whether a pool with these tags has everything that is needed."""
    return all(name in tags and _agrees(name, tags[name], value) for name, value in needs.as_tags().items())


def contradicts(tags: Mapping[str, str], needs: Needs) -> bool:
    """Whether a tag says something else than what is needed; a tag that is not there says nothing."""
    wanted = needs.as_tags()
    return any(not _agrees(name, tag, wanted[name]) for name, tag in tags.items() if name in wanted)


def _agrees(name: str, tag: str, needed: str) -> bool:
    # Memory is the one need of which more is as good.
    return _number(tag) >= float(needed) if name == "vram_gb" else tag == needed


def _number(tag: str) -> float:
    try:
        return float(tag)
    except ValueError:
        return -inf


def _named(pools: Mapping[str, PoolSpec], step: str, pool: str, needs: Needs | None, why: str) -> Route:
    if pool not in pools and pools:
        raise UnknownPool(name=pool, known=pools)
    if pool in pools and needs is not None and contradicts(pools[pool].tags, needs):
        raise NoPoolFor(step=step, needs=needs.as_tags(), pools=_tags(pools), pool=pool)
    return Route(pool, pool, why)


def _needed(pools: Mapping[str, PoolSpec], step: str, needs: Needs, preferred: str | None, who: str) -> Route:
    fit = [name for name, spec in pools.items() if meets(spec.tags, needs)]
    if not fit:
        raise NoPoolFor(step=step, needs=needs.as_tags(), pools=_tags(pools))
    chosen = min(fit, key=lambda name: (name != preferred, len(pools[name].tags), name))
    words = ", ".join(f"{name}={value}" for name, value in needs.as_tags().items())
    return Route(chosen, chosen, f"{who} needs {words}")


def _tags(pools: Mapping[str, PoolSpec]) -> dict[str, dict[str, str]]:
    return {name: spec.tags for name, spec in pools.items()}


def _pool(file: TomlFile, name: str, table: Any) -> PoolSpec:
    if not isinstance(table, dict):
        raise file.wrong(f"pool {name} must be a table [pools.{name}]", _TABLE, name)
    fields = set(PoolSpec.model_fields) - {"name"}
    for key in table:
        if key not in fields:
            known = ", ".join(sorted(fields))
            reason = f'pool {name}: "{key}" is unknown; known: {known}.{near(key, fields)}'
            raise file.wrong(reason, _TABLE, name, key)
    tags = table.get("tags")
    if isinstance(tags, dict):
        table = table | {"tags": {tag: _tag_text(value) for tag, value in tags.items()}}
    try:
        return PoolSpec(name=name, **table)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = [str(part) for part in first["loc"]]
        reason = f"pool {name}: {'.'.join(place[:1])}: {first['msg']} (given: {first['input']!r})"
        raise file.wrong(reason, _TABLE, name, *place) from error


def _tag_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, int | float) else value
