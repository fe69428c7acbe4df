"""Calls of agents whose code is elsewhere are checked by what was announced."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agentq.core.errors import InvalidArguments
from agentq.core.schema import CallSchema, check_call, check_value
from tests.unit.core.test_schema import AT, Passage, Stranger, everything


def test_a_call_by_the_announced_schema_is_checked_as_here() -> None:
    schema = CallSchema.of(everything)
    announced = json.loads(json.dumps(schema.json_schema()))
    good: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("a", [{"text": "t"}]), {}),
        (("a", [Passage(text="t", at=AT)], None, AT, 1, 2), {"limit": 3, "extra": Decimal("1.5")}),
        (("a", []), {"either": ["x"], "where": Path("p")}),
    ]
    for args, kwargs in good:
        written = check_call(announced, "everything", args, kwargs)
        assert schema.decode(*written) == schema.decode(*schema.encode(args, kwargs))
    bad: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((), {}, "first"),
        (("a",), {}, "passages"),
        (("a", [{"line": 1}]), {}, "passages"),
        (("a", []), {"limit": 0}, "limit"),
        (("a", [], None, AT, "x"), {}, "rest"),
        (("a", []), {"extra": [1]}, "extra"),
        (("a", [b"x"]), {}, "passages"),
    ]
    for args, kwargs, parameter in bad:
        with pytest.raises(InvalidArguments) as refused:
            check_call(announced, "everything", args, kwargs)
        assert refused.value.parameter == parameter
        assert refused.value.step == "everything"


def test_an_announced_signature_without_a_catch_all_refuses_what_is_too_much() -> None:
    def agent(question: str, depth: int = 1) -> None: ...

    announced = CallSchema.of(agent).json_schema()
    assert check_call(announced, "agent", ("q",), {"depth": 2}) == (["q"], {"depth": 2})
    with pytest.raises(InvalidArguments, match='Did you mean "depth"'):
        check_call(announced, "agent", ("q",), {"dept": 2})
    with pytest.raises(InvalidArguments, match="takes 2"):
        check_call(announced, "agent", ("q", 1, 2), {})


def test_what_no_schema_exists_for_is_announced_as_anything() -> None:
    def agent(value: Stranger, call: Callable[[], int], plain) -> None: ...  # type: ignore[no-untyped-def]

    announced = CallSchema.of(agent).json_schema()
    assert [each["schema"] for each in announced.values()] == [{}, {}, {}]
    assert [each["position"] for each in announced.values()] == [0, 1, 2]


def test_a_value_is_checked_by_a_bare_schema() -> None:
    assert check_value({"type": "boolean"}, True, name="Publish?") is True
    with pytest.raises(InvalidArguments, match=r'"Publish\?" of "answer" is wrong: \'maybe\' is not of type'):
        check_value({"type": "boolean"}, "maybe", name="Publish?")
