"""A part of each file of this folder once more, behind RabbitMQ: ``TEST_TRANSPORT=split`` runs all of them so."""

from __future__ import annotations

import pytest

from tests.crash.test_keeper import TestMainProcessGone as _Gone
from tests.crash.test_keeper import test_a_keeper_that_dies_is_replaced_and_nothing_is_lost
from tests.crash.test_kill_runs import (
    test_a_canvas_chord_survives,
    test_a_map_of_200_survives,
    test_a_warm_stop_hands_back_and_loses_nothing,
    test_killed_children_lose_nothing,
    test_other_pools_survive_too,
    test_signals_survive,
)
from tests.crash.test_parked import LARGEST_BYTES, start_parked
from tests.crash.test_scale import test_a_hundred_parked_runs_hold_nothing
from tests.crash.test_server_restart import test_a_run_goes_on_after_the_server_restarts
from tests.kit.broker import PrivateBroker
from tests.kit.field import Field
from tests.kit.mode import settings_of

__all__ = [
    "test_a_canvas_chord_survives",
    "test_a_hundred_parked_runs_hold_nothing",
    "test_a_keeper_that_dies_is_replaced_and_nothing_is_lost",
    "test_a_map_of_200_survives",
    "test_a_run_goes_on_after_the_server_restarts",
    "test_a_warm_stop_hands_back_and_loses_nothing",
    "test_killed_children_lose_nothing",
    "test_other_pools_survive_too",
    "test_signals_survive",
]


@pytest.fixture(scope="session")
def mode_env(rabbitmq: PrivateBroker) -> dict[str, str]:
    """The settings of split mode, whatever TEST_TRANSPORT says."""
    return settings_of("split", rabbitmq)


class TestMainProcessGone:
    """Of the keeper's tests the one in which nobody of the worker is left to speak for it."""

    test_with_its_whole_tree_within_four = _Gone.test_with_its_whole_tree_within_four


@pytest.mark.leaves(r".*")
def test_a_parked_run_is_as_small(empty_field: Field) -> None:
    """How fast they wake and that none is lost, the long test of fused mode tells; here a hundred of them do."""
    assert start_parked(empty_field, 2000)[1] <= LARGEST_BYTES
