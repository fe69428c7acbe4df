"""Code that takes too long is interrupted; code that is through is left alone."""

from __future__ import annotations

import threading
import time

import pytest

from agentq.runtime.overrun import Overran, at_most

pytestmark = pytest.mark.timeout(30)


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_what_takes_too_long_is_interrupted() -> None:
    began = time.monotonic()
    with pytest.raises(Overran), at_most(0.05):
        spin(20)
    assert time.monotonic() - began < 10


def test_whoever_holds_it_up_gets_it_again() -> None:
    caught = 0
    with at_most(0.05):
        while caught < 2:
            try:
                spin(20)
            except Overran:
                caught += 1


def test_each_thread_has_its_own_time() -> None:
    ended: list[str] = []

    def slow() -> None:
        try:
            with at_most(0.1):
                spin(20)
        except Overran:
            ended.append("slow")

    thread = threading.Thread(target=slow)
    thread.start()
    with at_most(20):
        thread.join()
        ended.append("patient")
    assert ended == ["slow", "patient"]


def test_what_ends_as_its_time_does_is_left_alone() -> None:
    for attempt in range(300):
        seconds = 0.0005 * (1 + attempt % 4)
        try:
            with at_most(seconds):
                spin(seconds - 0.0002)
        except Overran:
            pass
        # Raised here, it would be in code that has done nothing wrong.
        spin(0.0002)
