"""Tables of one kind in a TOML file, read strictly: what is unknown or impossible is told with its line.

It owns how a mistake is told. What the tables mean is its callers'.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from agentq.core.error_base import near
from agentq.core.errors import InvalidFile
from agentq.core.tomlfile import TomlFile

KINDS: Final[Mapping[str, str]] = {"pools": "pool", "tenants": "tenant"}
"""The tables of a pools file, and what one of each is called."""


def read_tables(file: TomlFile, table: str) -> dict[str, Any]:
    """The tables `[table.NAME]` of the file by name, none where it has none; raises InvalidFile."""
    for key in file.values:
        if key not in KINDS:
            known = " and ".join(f"[{name}.NAME]" for name in KINDS)
            raise file.wrong(f'"{key}" is unknown here: there are tables {known}', key)
    tables = file.values.get(table, {})
    if not isinstance(tables, dict):
        raise file.wrong(f"{table} must be tables [{table}.NAME]", table)
    return tables


def checked_table(file: TomlFile, table: str, name: str, given: Any, fields: Collection[str]) -> dict[str, Any]:
    """The table as it was given, which has no other keys than these; raises InvalidFile."""
    kind = KINDS[table]
    if not isinstance(given, dict):
        raise file.wrong(f"{kind} {name} must be a table [{table}.{name}]", table, name)
    for key in given:
        if key not in fields:
            known = ", ".join(sorted(fields))
            reason = f'{kind} {name}: "{key}" is unknown; known: {known}.{near(key, fields)}'
            raise file.wrong(reason, table, name, key)
    return given


def told(file: TomlFile, table: str, name: str, error: ValidationError) -> InvalidFile:
    """The error that tells the first mistake in a table, at its line."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"]]
    kind = KINDS[table]
    if not place:
        field = str(first.get("ctx", {}).get("field", ""))
        return file.wrong(f"{kind} {name}: {field}: {first['msg']}", table, name, field)
    reason = f"{kind} {name}: {'.'.join(place[:1])}: {first['msg']} (given: {first['input']!r})"
    return file.wrong(reason, table, name, *place)


def impossible(field: str, reason: str) -> PydanticCustomError:
    """What a model raises when one of its fields contradicts another: `told` finds the field's line."""
    # The reason is users' text: as a template its braces would be read as fields.
    return PydanticCustomError("impossible", "{reason}", {"field": field, "reason": reason})
