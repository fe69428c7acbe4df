"""Ids that are the same in every replay, and the numbers of priorities."""

from typing import get_args
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentq.core.ids import new_run_id, step_id, step_key
from agentq.core.lanes import DEFAULT_PRIORITY, PRIORITIES, RABBIT_PRIORITIES, Priority, lane_of, priority_of

RUN = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def test_run_ids_are_random_uuids() -> None:
    assert len({new_run_id() for _ in range(100)}) == 100
    assert UUID(new_run_id()).version == 4


@given(st.text(), st.integers(0, 1000))
def test_a_step_id_depends_on_run_and_key_alone(name: str, occurrence: int) -> None:
    key = step_key(name, "0123456789abcdef", occurrence)
    assert step_id(RUN, key) == str(uuid5(UUID(RUN), key)) == step_id(RUN, key)
    assert step_id("another run", key) != step_id(RUN, key)
    assert step_id(RUN, key + "x") != step_id(RUN, key)


def test_run_ids_that_callers_choose_may_be_any_text() -> None:
    assert step_id("order-42", "k") == step_id("order-42", "k")
    assert UUID(step_id("order-42", "k"))


def test_a_step_key_names_its_parts() -> None:
    assert step_key("answer", "00ff", 2) == "answer/00ff/2"


def test_both_brokers_know_the_same_priorities_in_opposite_order() -> None:
    assert tuple(PRIORITIES) == get_args(Priority) == tuple(RABBIT_PRIORITIES)
    assert sorted(PRIORITIES, key=PRIORITIES.__getitem__) == list(PRIORITIES)
    assert sorted(RABBIT_PRIORITIES, key=RABBIT_PRIORITIES.__getitem__, reverse=True) == list(PRIORITIES)
    assert all(PRIORITIES[name] + RABBIT_PRIORITIES[name] == 9 for name in PRIORITIES)
    assert PRIORITIES == {"critical": 0, "high": 3, "normal": 6, "low": 9}
    assert DEFAULT_PRIORITY in PRIORITIES


@pytest.mark.parametrize(
    ("number", "name", "lane"),
    [
        (-1, "critical", 0), (0, "critical", 0), (2, "critical", 0), (3, "high", 3), (5, "high", 3),
        (6, "normal", 6), (8, "normal", 6), (9, "low", 9), (10, "low", 9), (255, "low", 9),
    ],
)  # fmt: skip
def test_every_number_has_a_lane(number: int, name: str, lane: int) -> None:
    assert priority_of(number) == name
    assert lane_of(number) == lane
