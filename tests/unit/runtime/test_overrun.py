"""Code that takes too long is interrupted; code that is through is left alone."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest

from agentq.runtime.overrun import Overran, within

pytestmark = pytest.mark.timeout(30)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_what_takes_too_long_is_interrupted() -> None:
    began = time.monotonic()
    with pytest.raises(Overran):
        within(0.05, lambda: spin(20))
    assert time.monotonic() - began < 10


def test_what_it_returns_is_returned() -> None:
    assert within(20, lambda: 3) == 3


def test_whoever_holds_it_up_gets_it_again() -> None:
    def stubborn() -> int:
        caught = 0
        while caught < 2:
            try:
                spin(20)
            except Overran:
                caught += 1
        return caught

    assert within(0.05, stubborn) == 2


def test_each_thread_has_its_own_time() -> None:
    ended: list[str] = []

    def slow() -> None:
        try:
            within(0.1, lambda: spin(20))
        except Overran:
            ended.append("slow")

    thread = threading.Thread(target=slow)
    thread.start()
    within(20, thread.join)
    assert ended == ["slow"]


def test_what_ends_as_its_time_does_is_left_alone() -> None:
    for attempt in range(300):
        seconds = 0.0005 * (1 + attempt % 4)
        with suppress(Overran):
            within(seconds, lambda seconds=seconds: spin(seconds - 0.0002))  # type: ignore[misc]
        # Raised here, it would be in code that has done nothing wrong.
        spin(0.0002)
