"""Durations as people write them."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from agentq.core.units import Duration, Size

DURATIONS: TypeAdapter[timedelta] = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("250ms", 0.25), ("3", 3), ("3s", 3), (" 1.5 s ", 1.5), ("10m", 600), ("10min", 600), ("2h", 7200),
        ("7d", 604_800), ("7 days", 604_800), (3, 3), (0.5, 0.5), ("PT1M", 60), ("0", 0),
        (timedelta(seconds=2), 2),
    ],
)  # fmt: skip
def test_durations_are_read(given: Any, seconds: float) -> None:
    assert DURATIONS.validate_python(given) == timedelta(seconds=seconds)


@pytest.mark.parametrize("given", ["", "soon", "3 parsecs", "-", "s", True, False, None, []])
def test_what_is_no_duration_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError):
        DURATIONS.validate_python(given)


def test_sizes_are_read() -> None:
    assert TypeAdapter(Size).validate_python("64KiB") == 65_536
    assert TypeAdapter(Size).validate_python(10) == 10
