"""Which attempts are told to stop: those whose step another holds, unless they have only just ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from agentq.engine.recall import Recaller
from agentq.store import Store
from agentq.store.refs import Holder

HOLDER = Holder(root="r", id="s", worker="w", take=7)


@dataclass
class Request:
    holder: Holder
    seat: str | None = None


class Says:
    """A store that gives the same verdict of everything."""

    def __init__(self, verdict: str) -> None:
        self.verdict = verdict
        self.ends: list[Request] = []

    def recalled(self, running: list[Holder], _seats: list[str | None]) -> list[str]:
        # What ends while the question is under way.
        for request in self.ends:
            request.holder = Holder(root="r", id="other", worker="w", take=8)
        return [self.verdict] * len(running)


def asked(store: Says, running: list[Request], *, times: int) -> list[Request]:
    """Return what was told to stop in so many questions."""
    stopped: list[Request] = []
    recaller = Recaller(
        cast(Store, store), running=lambda: cast(Any, running), stop=stopped.append, look=lambda: None, every_s=1.0
    )
    for _ in range(2 * times):  # every second look asks
        recaller._ask()
    return stopped


def test_a_turn_whose_end_is_on_its_way_is_left_alone() -> None:
    assert asked(Says("another's"), [Request(HOLDER)], times=1) == []


def test_what_another_holds_for_two_looks_stops() -> None:
    running = [Request(HOLDER)]
    assert asked(Says("another's"), running, times=2) == running


def test_what_nobody_wants_stops_at_once() -> None:
    running = [Request(HOLDER)]
    assert asked(Says("not wanted"), running, times=1) == running


def test_what_ended_meanwhile_is_not_stopped() -> None:
    store, running = Says("not wanted"), [Request(HOLDER)]
    store.ends = running
    assert asked(store, running, times=1) == []
