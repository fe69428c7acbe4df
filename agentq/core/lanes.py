"""The four priorities, and the numbers that brokers know them by. No other Python file spells such a number."""

from typing import Final, Literal, get_args

Priority = Literal["critical", "high", "normal", "low"]

PRIORITIES: Final[dict[str, int]] = {"critical": 0, "high": 3, "normal": 6, "low": 9}
"""Redis: the lane of each priority, in the order of taking. kombu's `priority_steps`; 0 goes first."""

RABBIT_PRIORITIES: Final[dict[str, int]] = {"critical": 9, "high": 6, "normal": 3, "low": 0}
"""RabbitMQ counts the other way: the greatest number goes first."""

DEFAULT_PRIORITY: Final[Priority] = "normal"

_NAMES: Final[tuple[Priority, ...]] = get_args(Priority)


def priority_of(number: int) -> Priority:
    """The priority whose lane holds messages of this Redis number, 0 to 9.

    Numbers between two lanes belong to the lane before them, as kombu has it; what lies outside is held to be
    the nearest end.
    """
    return _NAMES[min(max(number, 0), 9) // 3]


def lane_of(number: int) -> int:
    """The lane's own number for any Redis priority, 0 to 9: 0, 3, 6 or 9."""
    return PRIORITIES[priority_of(number)]
