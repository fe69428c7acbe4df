"""Names with places for a step's arguments: `llm:{model}`. It must not know what the names are for."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

from agentq.core.errors import InvalidArguments

_LONGEST: Final = 200
"""Characters of a filled name: what is longer is no key that anybody chose."""


def names_in(template: str) -> list[str]:
    """The arguments that a template names, in its order; raises ValueError where it is none."""
    names: list[str] = []
    for _, field, form, conversion in string.Formatter().parse(template):
        if field is None:
            continue
        if not field.isidentifier() or form or conversion:
            raise ValueError(f'"{{{field}}}" in {template!r} is no name of an argument: write {{model}}, nothing else')
        names.append(field)
    return names


def check_template(template: str) -> str:
    """The template, if it is one."""
    names_in(template)
    return template


def fill(template: str, values: Mapping[str, Any], *, step: str) -> str:
    """The name with its places filled; raises InvalidArguments for a value that cannot name anything."""
    if "{" not in template:
        return template
    filled = {name: _word(values.get(name), name, step) for name in names_in(template)}
    text = template.format_map(filled)
    if len(text) > _LONGEST:
        reason = f"the name {template!r} gets {len(text)} characters long by it, more than {_LONGEST}"
        raise InvalidArguments(step=step, parameter=", ".join(filled), value=text, reason=reason)
    return text


def check_names(template: str, known: Iterable[str], *, step: str, option: str) -> None:
    """Return if a step has all the arguments that the template names; raises InvalidArguments otherwise."""
    have = list(known)
    for name in names_in(template):
        if name not in have:
            raise InvalidArguments(
                step=step,
                parameter=option,
                value=template,
                reason=f"the step has no argument {name!r}; it has {', '.join(have) or 'none'}",
            )


def _word(value: Any, name: str, step: str) -> str:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, str | int | float | bool):
        return str(value)
    reason = "it names a guard's key, so it must be text, a number or a truth"
    raise InvalidArguments(step=step, parameter=name, value=value, reason=reason)
