"""A lazy list reads chunks, and is a sequence otherwise."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from inspect import Parameter
from typing import Any

import pytest

from agentq.core.boundary import Boundary
from agentq.core.codec import to_jsonable
from agentq.core.lazy import LazyList


@pytest.fixture
def reads() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def numbers(reads: list[tuple[int, int]]) -> LazyList[int]:
    def read(start: int, stop: int) -> list[int]:
        reads.append((start, stop))
        return list(range(start, stop))

    return LazyList(10, read, chunk=4)


def test_it_reads_nothing_until_it_is_used(numbers: LazyList[int], reads: list[tuple[int, int]]) -> None:
    assert (len(numbers), bool(numbers), repr(numbers)) == (10, True, "<LazyList of 10 items>")
    assert reads == []


def test_it_reads_each_chunk_once_in_a_pass(numbers: LazyList[int], reads: list[tuple[int, int]]) -> None:
    assert list(numbers) == list(range(10))
    assert reads == [(0, 4), (4, 8), (8, 10)]


def test_it_holds_one_chunk(numbers: LazyList[int], reads: list[tuple[int, int]]) -> None:
    assert (numbers[5], numbers[6], numbers[-1], numbers[5]) == (5, 6, 9, 5)
    assert reads == [(4, 8), (8, 10), (4, 8)]


def test_it_is_a_sequence(numbers: LazyList[int]) -> None:
    assert numbers[2:9:3] == [2, 5, 8]
    assert list(reversed(numbers)) == list(range(9, -1, -1))
    assert (7 in numbers, numbers.index(3), numbers.count(11)) == (True, 3, 0)
    assert to_jsonable(numbers) == list(range(10))
    for place in (10, -11):
        with pytest.raises(IndexError, match="among 10"):
            numbers[place]
    empty: LazyList[int] = LazyList(0, lambda start, stop: [])
    assert (list(empty), empty[:]) == ([], [])


@pytest.mark.parametrize("hint", [Sequence[str], Sequence, Collection[str]])
def test_a_boundary_of_a_sequence_leaves_it_lazy(hint: Any) -> None:
    crossed = Boundary("items", hint, required=True).read(LazyList(2, lambda start, stop: ["a", "b"]))
    assert isinstance(crossed, LazyList)
    assert list(crossed) == ["a", "b"]


def test_a_boundary_reads_each_item_by_its_hint() -> None:
    crossed = Boundary("items", Sequence[int], required=True).read(LazyList(2, lambda start, stop: [1, "no"]))
    with pytest.raises(ValueError, match="valid integer"):
        crossed[0]


@pytest.mark.parametrize("hint", [list[int], list, Any, Parameter.empty, tuple[int, ...]])
def test_any_other_boundary_makes_a_list_of_it(numbers: LazyList[int], hint: Any) -> None:
    assert list(Boundary("items", hint, required=True).read(numbers)) == list(range(10))
    assert not isinstance(Boundary("items", hint, required=True).read(numbers), LazyList)


def test_a_hint_of_an_iterable_is_a_list() -> None:
    from agentq.core.schema import CallSchema

    def body(items: Iterable[int]) -> None:
        """Reads once."""

    (read,), _ = CallSchema.of(body).decode([LazyList(2, lambda start, stop: [1, 2])], {})
    assert read == [1, 2]
