"""What crosses a function's boundary, and what is refused there."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, ParamSpec, TypedDict, TypeVar, Unpack
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from agentq.core.errors import AgentqError, InvalidArguments, InvalidResult, UsageError
from agentq.core.schema import CallSchema
from tests.unit.core.test_codec import jsonables

if TYPE_CHECKING:
    from decimal import Context as Absent

P = ParamSpec("P")
T = TypeVar("T")


class Passage(BaseModel):
    text: str
    line: int = 1
    at: datetime | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)

    at: datetime
    places: tuple[int, ...] = ()


class Open(BaseModel):
    value: Any


class Key(BaseModel):
    key: SecretStr


@dataclass(frozen=True)
class Part:
    path: Path
    weight: Decimal


class Shape(Enum):
    ROUND = "round"


class Counts(TypedDict):
    all: int


class Stranger:
    """Pydantic knows nothing of it."""


def later(part: Later) -> Later:
    return part


@dataclass
class Later:
    """Defined below the function that names it."""

    number: int


def everything(
    first: str,
    passages: list[Passage],
    part: Part | None = None,
    /,
    when: datetime = datetime(2026, 1, 1, tzinfo=UTC),
    *rest: int,
    limit: Annotated[int, Field(gt=0)] = 1,
    where: Optional[Path] = None,  # noqa: UP045
    either: int | list[str] = 0,
    **more: Decimal,
) -> dict[str, Passage]:
    return {}


def roundtrip(schema: CallSchema, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    written = schema.encode(args, kwargs)
    return schema.decode(*json.loads(json.dumps(written)))


def one(hint: Any) -> CallSchema:
    def function(value):  # type: ignore[no-untyped-def]
        return value

    function.__annotations__ = {"value": hint, "return": hint}
    return CallSchema.of(function, name="one")


AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hint", "value", "written"),
    [
        (str, "a", "a"),
        (int, 3, 3),
        (bool, True, True),
        (float, 0.5, 0.5),
        (float, 3, 3.0),
        (int, "3", 3),
        (None, None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (object, 1, 1),
        (datetime, AT, "2026-03-04T05:06:07Z"),
        (timedelta, timedelta(minutes=3), "PT3M"),
        (Decimal, Decimal("1.10"), "1.10"),
        (Path, Path("a/b"), "a/b"),
        (UUID, UUID(int=1), str(UUID(int=1))),
        (bytes, b"text", "text"),
        (Shape, Shape.ROUND, "round"),
        (Literal["a", "b"], "b", "b"),
        (Passage, Passage(text="t", at=AT), {"text": "t", "line": 1, "at": "2026-03-04T05:06:07Z"}),
        (Part, Part(Path("p"), Decimal("0.1")), {"path": "p", "weight": "0.1"}),
        (Strict, Strict(at=AT, places=(1, 2)), {"at": "2026-03-04T05:06:07Z", "places": [1, 2]}),
        (list[Passage], [Passage(text="t")], [{"text": "t", "line": 1, "at": None}]),
        (dict[int, Path], {1: Path("p")}, {"1": "p"}),
        (tuple[int, str], (1, "a"), [1, "a"]),
        (set[int], {3}, [3]),
        (Sequence[Part], [Part(Path("p"), Decimal(1))], [{"path": "p", "weight": "1"}]),
        (Passage | Part | None, None, None),
        (Passage | Part | None, Part(Path("p"), Decimal(1)), {"path": "p", "weight": "1"}),
        ("list[Passage]", [Passage(text="t")], [{"text": "t", "line": 1, "at": None}]),
        (Annotated[list[int], Field(max_length=2)], [1], [1]),
    ],
)
def test_a_value_crosses_by_its_hint(hint: Any, value: Any, written: Any) -> None:
    schema = one(hint)
    assert schema.encode((value,), {}) == ([written], {})
    assert type(schema.encode((value,), {})[0][0]) is type(written)
    typed = schema.decode([written], {})[0][0]
    assert typed == value or typed == type(typed)(value)
    assert schema.encode_result(value) == written
    assert schema.decode_result(written) == typed
    if not isinstance(value, str):
        assert type(typed) is type(value) or (hint, type(typed)) == (float, float)


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (int, "abc", "valid integer"),
        (str, 3, "valid string"),
        (str, None, "valid string"),
        (float, float("nan"), "JSON"),
        (list[float], [float("inf")], "JSON"),
        (bool, 2, "valid boolean"),
        (Passage, {"line": "x"}, "text: Field required; line: Input should be a valid integer"),
        (list[int], list("abcde"), "and 2 more"),
        (Literal["a"], "b", "'a'"),
        (Any, b"x", "bytes"),
        (object, object(), "type object"),
        (Stranger, Stranger(), "type Stranger"),
        (Callable[[], int], print, "JSON"),
        (bytes, b"\xff", "JSON cannot hold it"),
        (Key, Key(key=SecretStr("hunter2")), "secret"),
        (list[Key], [Key(key=SecretStr("hunter2"))], "secret"),
        (dict[str, Any], {"a": float("nan")}, "JSON"),
        (list, [(float("inf"),)], "JSON"),
        (Open, Open(value=float("nan")), "JSON"),
    ],
)
def test_a_wrong_value_is_refused_by_name(hint: Any, value: Any, words: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        one(hint).encode((value,), {})
    assert refused.value.parameter == "value"
    assert refused.value.step == "one"
    assert words in str(refused.value)
    with pytest.raises(InvalidResult) as returned:
        one(hint).encode_result(value)
    assert words in str(returned.value)
    assert "hunter2" not in str(refused.value) + str(returned.value)


def test_a_mask_in_plain_text_is_no_secret() -> None:
    assert one(list[str]).encode((["*" * 10],), {}) == ([["*" * 10]], {})


def test_arguments_stay_where_they_were_given_and_defaults_are_not_filled_in() -> None:
    schema = CallSchema.of(everything)
    written = schema.encode(("a", [Passage(text="t")]), {"where": Path("w"), "extra": 1})
    assert written == (["a", [{"text": "t", "line": 1, "at": None}]], {"where": "w", "extra": "1"})


def test_all_kinds_of_parameters_cross() -> None:
    args = ("a", [Passage(text="t", at=AT)], Part(Path("p"), Decimal("0.5")), AT, 1, 2)
    kwargs = {"limit": 3, "where": Path("w"), "either": ["x"], "extra": Decimal("1.5")}
    assert roundtrip(CallSchema.of(everything), *args, **kwargs) == (args, kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "parameter", "words"),
    [
        ((), {}, "first", "it is missing"),
        (("a",), {}, "passages", "it is missing"),
        (("a", []), {"first": "b"}, "first", "valid decimal"),
        (("a", [], None, AT), {"when": AT}, "when", "twice"),
        (("a", [], None, AT, "x"), {}, "rest", "valid integer"),
        (("a", []), {"limit": 0}, "limit", "greater than 0"),
        (("a", []), {"extra": "x"}, "extra", "valid decimal"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any], parameter: str, words: str
) -> None:
    schema = CallSchema.of(everything)
    for cross in (schema.encode, schema.decode):
        with pytest.raises(InvalidArguments) as refused:
            cross(args, kwargs)
        assert refused.value.parameter == parameter
        assert words in str(refused.value)


def test_an_unknown_name_is_refused_with_the_near_one() -> None:
    def answer(question: str, *, depth: int = 1) -> None: ...

    schema = CallSchema.of(answer)
    with pytest.raises(InvalidArguments, match=r'known: question, depth\. Did you mean "question"'):
        schema.encode((), {"questoin": "?"})
    with pytest.raises(InvalidArguments, match="takes 1"):
        schema.encode(("?", 3), {})
    with pytest.raises(InvalidArguments, match="no such parameter"):
        CallSchema.of(lambda: None).encode((), {"a": 1})


def test_required_keywords_are_required() -> None:
    def answer(*, depth: int) -> None: ...

    with pytest.raises(InvalidArguments, match='"depth" of "answer" is wrong: it is missing'):
        CallSchema.of(answer).encode((), {})


def test_the_first_parameter_may_be_left_out_whatever_its_hint_names() -> None:
    async def agent(run: Absent, question: str) -> str:
        return question

    schema = CallSchema.of(agent, skip_first=True)
    assert schema.encode(("q",), {}) == (["q"], {})
    assert list(schema.json_schema()) == ["question"]
    assert schema.name == "agent"


@pytest.mark.parametrize(("function", "args"), [(time.time, ()), (time.sleep, (1,)), (max, (2, 3))])
def test_a_function_without_a_signature_takes_anything(function: Callable[..., Any], args: tuple[int, ...]) -> None:
    assert CallSchema.of(function).encode(args, {}) == (list(args), {})


def test_skipping_leaves_a_catch_all_alone() -> None:
    def task(*args: int) -> None: ...

    assert CallSchema.of(task, skip_first=True).encode((1, 2), {}) == ([1, 2], {})


def test_a_hint_may_name_what_is_defined_later() -> None:
    schema = CallSchema.of(later)
    assert roundtrip(schema, Later(3)) == ((Later(3),), {})
    assert schema.decode_result({"number": 3}) == Later(3)


def test_a_hint_may_name_what_the_function_closes_over() -> None:
    class Local(BaseModel):
        number: int

    def step(value: Local) -> Local:
        return Local(number=value.number)

    assert roundtrip(CallSchema.of(step), Local(number=1)) == ((Local(number=1),), {})


def test_a_hint_that_names_nothing_is_told() -> None:
    def step(fine: int, value: Absent) -> None: ...

    schema = CallSchema.of(step)
    with pytest.raises(UsageError) as refused:
        schema.encode((1, 2), {})
    for word in ('"value"', '"step"', "Absent", __name__, "TYPE_CHECKING"):
        assert word in str(refused.value)


def test_a_decorated_function_keeps_its_hints() -> None:
    def logged(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def inner(*args: P.args, **kwargs: P.kwargs) -> T:
            return function(*args, **kwargs)

        return inner

    @logged
    def step(part: Part) -> Part:
        return part

    value = Part(Path("p"), Decimal(1))
    assert roundtrip(CallSchema.of(step), value) == ((value,), {})


def test_a_wrapper_without_a_signature_of_its_own_lets_all_pass() -> None:
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None: ...  # type: ignore[valid-type]

    assert CallSchema.of(wrapper).encode((1, "a"), {"b": [2]}) == ([1, "a"], {"b": [2]})


def test_typed_keywords_pass_as_what_json_holds() -> None:
    def step(**options: Unpack[Counts]) -> None: ...

    assert CallSchema.of(step).encode((), {"all": 1}) == ([], {"all": 1})


def test_what_can_be_read_once_is_sent_as_a_list() -> None:
    def step(lines: Iterable[int], more: Iterator[Path], bare: Iterable = ()) -> None: ...  # type: ignore[type-arg]

    args = roundtrip(CallSchema.of(step), (n for n in range(3)), iter([Path("p")]))[0]
    assert args == ([0, 1, 2], [Path("p")])


def test_a_class_that_pydantic_cannot_check_passes_as_what_json_holds() -> None:
    def step(value: Counts, other: Stranger) -> None: ...

    assert CallSchema.of(step).encode(({"all": 1}, {"plain": 1}), {}) == ([{"all": 1}, {"plain": 1}], {})


@given(jsonables)
def test_without_a_hint_any_json_crosses(value: Any) -> None:
    def step(value):  # type: ignore[no-untyped-def]
        return value

    schema = CallSchema.of(step)
    assert roundtrip(schema, value) == ((value,), {})
    assert schema.decode_result(schema.encode_result(value)) == value


@given(
    st.lists(
        st.builds(
            Passage,
            text=st.text(st.characters(exclude_categories=["Cs"])),
            line=st.integers(),
            at=st.none() | st.datetimes(timezones=st.just(UTC)),
        )
    )
)
def test_models_are_read_back_as_they_were(passages: list[Passage]) -> None:
    def step(passages: list[Passage]) -> list[Passage]:
        return passages

    schema = CallSchema.of(step)
    assert roundtrip(schema, passages) == ((passages,), {})
    assert schema.decode_result(json.loads(json.dumps(schema.encode_result(passages)))) == passages


def test_a_result_of_another_version_is_told_not_guessed() -> None:
    with pytest.raises(InvalidResult, match="text: Field required"):
        one(Passage).decode_result({"title": "t"})


def test_making_a_schema_reads_no_hint() -> None:
    def step(value: Absent) -> None: ...

    assert CallSchema.of(step, name="shop.step").name == "shop.step"


def test_every_refusal_is_of_the_tree() -> None:
    with pytest.raises(AgentqError):
        one(int).decode(["x"], {})
