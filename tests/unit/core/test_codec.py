"""What JSON can hold of a value, and what is refused."""

import json
import subprocess
import sys
from collections import OrderedDict, UserDict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from agentq.core.codec import canonical, dumps, loads, short_hash, to_jsonable

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
jsonables = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Letter(Enum):
    A = "a"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Part:
    path: Path
    weight: Decimal


class Report(BaseModel):
    title: str
    parts: list[Part] = []
    at: datetime | None = None


class Open(BaseModel):
    value: Any


class Text(str):
    __slots__ = ()


@given(jsonables)
def test_what_is_json_already_stays_as_it_is(value: Any) -> None:
    assert to_jsonable(value) == value


@given(jsonables)
def test_text_of_a_value_is_read_back_as_the_same_value(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert loads(dumps(value).encode()) == value


@given(jsonables)
def test_canonical_text_is_read_back_as_the_same_value(value: Any) -> None:
    assert json.loads(canonical(value)) == value


@given(st.dictionaries(texts, scalars, min_size=2))
def test_canonical_text_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical(turned) == canonical(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, 2), [1, 2]),
        (deque([1]), [1]),
        (range(3), [0, 1, 2]),
        (Point(1, 2), [1, 2]),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({2, 10}), [10, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (UserDict(a=(1,)), {"a": [1]}),
        ({Colour.RED: Level.HIGH, Letter.A: None}, {"red": 3, "a": None}),
        (Colour.RED, "red"),
        ([Letter.A], ["a"]),
        (Text("t"), "t"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02T03:04:00Z"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(minutes=1), "PT1M"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("a/b"), "a/b"),
        ({"k": [Part(Path("p"), Decimal("0.1"))]}, {"k": [{"path": "p", "weight": "0.1"}]}),
        (
            Report(title="t", parts=[Part(Path("p"), Decimal(2))]),
            {"title": "t", "parts": [{"path": "p", "weight": "2"}], "at": None},
        ),
    ],
)
def test_values_become_plain_json(value: Any, expected: Any) -> None:
    written = to_jsonable(value)
    assert written == expected
    assert _types(written) <= {dict, list, str, int, float, bool, type(None)}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"x", "the value is bytes"),
        ({"a": [1, bytearray(b"x")]}, "the value['a'][1] is bytearray"),
        ({"a": {3: 1}}, "the value['a'][3] has a key of type int"),
        ([object()], "the value[0] is of type object"),
        (SecretStr("hunter2"), "is of type SecretStr"),
        (Report, "is of type ModelMetaclass"),
        ((part for part in "ab"), "is of type generator"),
        (Part(Path("p"), weight=b"1"), "the value['weight'] is bytes"),  # type: ignore[arg-type]
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_place(value: Any, words: str) -> None:
    with pytest.raises(TypeError) as refused:
        to_jsonable(value)
    assert words in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "value",
    [float("nan"), [float("inf")], {"a": float("-inf")}, Open(value={"a": [float("nan")]}), Open(value=float("inf"))],
)
def test_numbers_that_json_does_not_know_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON cannot hold"):
        dumps(value)
    with pytest.raises(ValueError, match="JSON cannot hold"):
        canonical(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = [1]
    value.append({"again": value})
    with pytest.raises(ValueError, match=r"the value\[1\]\['again'\] contains itself"):
        to_jsonable(value)


def test_a_value_may_stand_twice_beside_itself() -> None:
    part = [1]
    assert to_jsonable([part, part]) == [[1], [1]]


@pytest.mark.parametrize("text", ["", "{", "nan", "NaN", "[Infinity]", "{'a': 1}", b"\xff"])
def test_text_that_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        loads(text)


def test_text_is_compact_and_keeps_the_order_of_keys() -> None:
    assert dumps({"b": [1, None], "a": "é"}) == '{"b":[1,null],"a":"é"}'


def test_a_set_is_written_the_same_way_in_every_process() -> None:
    code = "from agentq.core.codec import dumps; print(dumps({'one', 'two', 'three', 'four'}))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert texts == {'["four","one","three","two"]\n'}


def test_a_hash_is_sixteen_digits_and_never_changes() -> None:
    assert short_hash("agentq") == "f252f60e03ff170c"
    assert short_hash("a") != short_hash("b")
    assert short_hash("\ud800") == short_hash("\ud800")


def _types(value: Any) -> set[type]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {type(value)}.union(*[_types(each) for each in inner])
