"""What `agentq pools` makes of how a pool stands."""

import pytest

from agentq.cli.pools import _full_for, _notes
from agentq.core.pools import PoolSpec
from agentq.store.survey import Standing


def standing(*waiting: int) -> Standing:
    return Standing(1, 0, 4, 4, tuple(waiting), (0, 0, 0, 0), None, None, 0.0)


@pytest.mark.parametrize(
    ("waiting", "refused"),
    [
        ((0, 0, 0, 9), []),
        ((0, 0, 0, 10), ["low"]),
        ((0, 5, 5, 0), ["normal", "low"]),
        ((10, 0, 0, 0), ["critical", "high", "normal", "low"]),
    ],
)
def test_a_pool_is_full_for_whom_it_would_refuse(waiting: tuple[int, ...], refused: list[str]) -> None:
    assert _full_for(PoolSpec(name="p", max_waiting=10), standing(*waiting)) == refused
    assert _full_for(PoolSpec(name="p"), standing(*waiting)) == []


@pytest.mark.parametrize(
    ("refused", "words"),
    [(["low"], "full for low (10 may wait)"), (["critical", "high", "normal", "low"], "full (10 may wait)")],
)
def test_it_says_for_whom(refused: list[str], words: str) -> None:
    row = {
        "drained": False, "whys": {}, "workers": ["w"], "unschedulable": 0, "devices": [], "suspects": 0,
        "full": True, "full_for": refused, "max_waiting": 10, "held_back": 0,
        "waiting": {"critical": 0, "high": 0, "normal": 0, "low": 0},
    }  # fmt: skip
    assert words in _notes(row)
