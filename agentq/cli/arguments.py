"""An agent's arguments as options of the command line.

Owns the translation between `--name value` and the agent's parameters, from the JSON schema that the
agent announces. Whether a value is right is decided by the schema's owner, not here: this module only
refuses what it cannot even translate.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from agentq.cli.errors import CommandRefused

Parameters = Mapping[str, Mapping[str, Any]]
"""By name: `schema` (JSON schema), `required`, `position`; `CallSchema.json_schema`."""


def parse_arguments(agent: str, parameters: Parameters, words: Sequence[str]) -> dict[str, Any]:
    """The agent's keyword arguments, from `--name value`, `--name=value`, and for truths `--[no-]name`.

    A parameter that takes strings gets the text as it stands, any other gets it read as JSON. A list may
    be given as JSON, or item by item with the option repeated.
    """
    given: dict[str, list[str | bool]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise CommandRefused(
                f'Agent "{agent}" takes its arguments by name; "{word}" has none. {example(agent, parameters)}'
            )
        option, equals, text = word[2:].partition("=")
        name, truth = _parameter_named(agent, parameters, option)
        if equals:
            given.setdefault(name, []).append(text)
        elif not truth or (_admits(parameters[name], "boolean") and not _value_follows(rest)):
            given.setdefault(name, []).append(truth)
        elif rest and not rest[0].startswith("--"):
            given.setdefault(name, []).append(rest.pop(0))
        else:
            raise CommandRefused(f'Option "--{option}" needs a value. {example(agent, parameters)}')
    missing = [name for name, entry in parameters.items() if entry.get("required") and name not in given]
    if missing:
        names = ", ".join(f'"{name}"' for name in missing)
        raise CommandRefused(
            f'Agent "{agent}" needs {names}, which {"was" if len(missing) == 1 else "were"} not given. '
            f"{example(agent, parameters)}"
        )
    return {name: _value(agent, parameters, name, texts) for name, texts in given.items()}


def _parameter_named(agent: str, parameters: Parameters, option: str) -> tuple[str, bool]:
    name = option.replace("-", "_")
    if name in parameters:
        return name, True
    if name.startswith("no_") and name[3:] in parameters and _admits(parameters[name[3:]], "boolean"):
        return name[3:], False
    close = get_close_matches(name, parameters, n=1)
    hint = f' Did you mean "--{close[0].replace("_", "-")}"?' if close else ""
    raise CommandRefused(f'Agent "{agent}" has no parameter "{name}".{hint} {example(agent, parameters)}')


def _value_follows(rest: Sequence[str]) -> bool:
    return bool(rest) and rest[0] in ("true", "false")


def _value(agent: str, parameters: Parameters, name: str, texts: list[str | bool]) -> Any:
    entry = parameters[name]
    if len(texts) > 1:
        if not _admits(entry, "array"):
            raise CommandRefused(f'Parameter "{name}" of agent "{agent}" was given {len(texts)} times; once is enough.')
        items = _item_entry(entry)
        return [_read(agent, parameters, name, items, text) for text in texts]
    text = texts[0]
    if _admits(entry, "array") and not _admits(entry, "string") and isinstance(text, str) and text[:1] != "[":
        return [_read(agent, parameters, name, _item_entry(entry), text)]
    return _read(agent, parameters, name, entry, text)


def _read(agent: str, parameters: Parameters, name: str, entry: Mapping[str, Any], text: str | bool) -> Any:
    if isinstance(text, bool) or _admits(entry, "string"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        kinds = " or ".join(sorted(_types(entry))) or "JSON"
        raise CommandRefused(
            f'Parameter "{name}" of agent "{agent}" takes {kinds}; {text!r} is not JSON. {example(agent, parameters)}'
        ) from None


def _item_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    schema = entry.get("schema", {})
    for branch in _branches(schema, schema):
        if branch.get("type") == "array":
            return {"schema": {**branch.get("items", {}), "$defs": schema.get("$defs", {})}}
    return {"schema": {}}


def _admits(entry: Mapping[str, Any], kind: str) -> bool:
    return kind in _types(entry)


def _types(entry: Mapping[str, Any]) -> set[str]:
    schema = entry.get("schema", {})
    types: set[str] = set()
    for branch in _branches(schema, schema):
        kind = branch.get("type")
        types.update([kind] if isinstance(kind, str) else kind or [])
        for choice in branch.get("enum", [branch["const"]] if "const" in branch else []):
            types.add("string" if isinstance(choice, str) else "integer")
    return types


def _branches(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "$ref" in schema:
        target = whole.get("$defs", {}).get(str(schema["$ref"]).rpartition("/")[2])
        # A model that holds itself would send us round for ever: what a reference names is not followed on.
        return [target] if target is not None else []
    nested = [branch for key in ("anyOf", "oneOf", "allOf") for branch in schema.get(key, [])]
    return [found for branch in nested for found in _branches(branch, whole)] or [schema]


def example(agent: str, parameters: Parameters) -> str:
    """A call that would be understood, for the end of a refusal."""
    shown = [name for name, entry in parameters.items() if entry.get("required")] or list(parameters)[:1]
    words = [f"--{name.replace('_', '-')} {_sample(name, parameters[name])}" for name in shown]
    return "Example: " + " ".join(["agentq run", agent, *words])


def _sample(name: str, entry: Mapping[str, Any]) -> str:
    schema = entry.get("schema", {})
    for branch in _branches(schema, schema):
        if branch.get("enum"):
            return shlex.quote(str(branch["enum"][0]))
    types = _types(entry)
    if "string" in types:
        return {"folder": "docs", "path": "docs/index.md"}.get(name, '"some text"')
    if "array" in types:
        item = '"a", "b"' if _admits(_item_entry(entry), "string") else "1, 2"
        return f"'[{item}]'"
    for kind, sample in (("integer", "3"), ("number", "0.5"), ("boolean", "true")):
        if kind in types:
            return sample
    return '\'{"some": "JSON"}\''


def describe_parameters(parameters: Parameters) -> list[tuple[str, str]]:
    """One row per parameter for a help text: the option with its kind, and what is known of it."""
    rows = []
    for name, entry in parameters.items():
        schema = entry.get("schema", {})
        kinds = "|".join(sorted(_types(entry) - {"null"})) or "JSON"
        words = [str(schema["description"])] if schema.get("description") else []
        words.append("required" if entry.get("required") else f"default: {json.dumps(schema.get('default'))}")
        rows.append((f"--{name.replace('_', '-')} {kinds.upper()}", "; ".join(words)))
    return rows
