"""`--name value` becomes the agent's arguments, or is refused with the parameter's name and an example."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from agentq.cli.arguments import describe_parameters, example, parse_arguments
from agentq.cli.errors import CommandRefused

PARAMETERS: dict[str, dict[str, Any]] = {
    "question": {"schema": {"type": "string"}, "required": True, "position": 0},
    "max_files": {"schema": {"type": "integer", "default": 10}, "required": False, "position": 1},
    "publish": {"schema": {"type": "boolean", "default": False}, "required": False, "position": 2},
    "tags": {"schema": {"type": "array", "items": {"type": "string"}}, "required": False, "position": 3},
    "note": {"schema": {"anyOf": [{"type": "string"}, {"type": "null"}]}, "required": False, "position": 4},
    "colour": {
        "schema": {
            "$ref": "#/$defs/Colour",
            "$defs": {"Colour": {"type": "string", "enum": ["red", "blue"]}},
        },
        "required": False,
        "position": 5,
    },
    "point": {
        "schema": {"$ref": "#/$defs/Point", "$defs": {"Point": {"type": "object"}}},
        "required": False,
        "position": 6,
    },
}


def parse(*tokens: str) -> dict[str, Any]:
    return parse_arguments("research", PARAMETERS, ["--question", "Why?", *tokens])


@pytest.mark.parametrize(
    ("tokens", "name", "value"),
    [
        ((), "question", "Why?"),
        (("--max-files", "3"), "max_files", 3),
        (("--max_files=3",), "max_files", 3),
        (("--max-files", "-3"), "max_files", -3),
        (("--publish",), "publish", True),
        (("--no-publish",), "publish", False),
        (("--publish", "false"), "publish", False),
        (("--publish", "--max-files", "3"), "publish", True),
        (("--tags", '["a", "b"]'), "tags", ["a", "b"]),
        (("--tags", "a", "--tags", "b"), "tags", ["a", "b"]),
        (("--tags", "a"), "tags", ["a"]),
        (("--note", "7"), "note", "7"),
        (("--note=",), "note", ""),
        (("--note=--x",), "note", "--x"),
        (("--colour", "red"), "colour", "red"),
        (("--point", '{"x": 1}'), "point", {"x": 1}),
    ],
)
def test_values(tokens: tuple[str, ...], name: str, value: object) -> None:
    assert parse(*tokens)[name] == value


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (
            ["--question", "x", "--max-files", "many"],
            '"max_files" of agent "research" takes integer',
        ),
        (["--question", "x", "--max-file", "3"], 'no parameter "max_file". Did you mean "--max-files"?'),
        (
            ["--question", "x", "--max-files", "1", "--max-files", "2"],
            '"max_files" of agent "research" was given 2',
        ),
        (["--question", "x", "--no-max-files"], 'no parameter "no_max_files"'),
        (["--question"], 'Option "--question" needs a value'),
        (["x"], '"x" has none'),
        ([], 'needs "question", which was not given'),
    ],
)
def test_refusals_name_the_parameter(tokens: list[str], words: str) -> None:
    with pytest.raises(CommandRefused) as refusal:
        parse_arguments("research", PARAMETERS, tokens)
    assert words in str(refusal.value)
    if "times" not in str(refusal.value):
        assert 'Example: agentq run research --question "some text"' in str(refusal.value)


def test_agent_without_parameters() -> None:
    assert parse_arguments("tick", {}, []) == {}
    with pytest.raises(CommandRefused, match="Example: agentq run tick"):
        parse_arguments("tick", {}, ["--x", "1"])


def test_help_names_kind_and_default() -> None:
    rows = dict(describe_parameters(PARAMETERS))
    assert rows["--question STRING"] == "required"
    assert rows["--max-files INTEGER"] == "default: 10"
    assert rows["--note STRING"] == "default: null"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, '"some text"'),
        ({"type": "array", "items": {"type": "string"}}, """'["a", "b"]'"""),
        ({"type": "array", "items": {"type": "integer"}}, "'[1, 2]'"),
        ({"type": "integer"}, "3"),
        ({"enum": ["red", "blue"]}, "red"),
        ({"type": "object"}, """'{"some": "JSON"}'"""),
    ],
)
def test_the_example_would_be_understood(schema: dict[str, Any], words: str) -> None:
    parameters = {"given": {"schema": schema, "required": True, "position": 0}}
    assert example("a", parameters) == f"Example: agentq run a --given {words}"
    told = shlex.split(example("a", parameters).removeprefix("Example: agentq run a "))
    assert parse_arguments("a", parameters, told)["given"]
