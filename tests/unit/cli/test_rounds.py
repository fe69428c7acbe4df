"""What a controller's rounds come to in words, also while the store is away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from agentq.cli.scaling import Rounds, words_of
from agentq.core.errors import StoreUnavailable
from agentq.core.scaling import PoolLoad, Size
from agentq.core.sizing import Decision


def decision(had: int, desired: int, trouble: str | None = None) -> Decision:
    size = Size(workers=desired, asked=desired, why="3 waiting")
    return Decision(
        pool="tools", at_ms=1, fence=1, had=had, desired=desired, load=PoolLoad(), size=size, trouble=trouble
    )


class Controller:
    """Answers as it is told."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.leading = SimpleNamespace(leaders={})
        self.controls = {"tools": None}
        self.troubles: dict[str, str] = {}
        self.ticks = 0

    def let_time_pass(self) -> None:
        self.ticks += 1
        raise StoreUnavailable(url="redis://x", reason="refused")

    def round(self) -> list[Decision]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            self.leading.leaders = {"tools": answer}
            return []
        self.leading.leaders = {}
        return [answer]


def run(*answers: Any) -> tuple[list[str], list[str]]:
    told: list[str] = []
    said: list[str] = []
    controller: Any = Controller(*answers)
    rounds = Rounds(controller, tell=lambda each: told.append(words_of(each)), say=said.append)
    for _ in answers:
        rounds._next = 0.0
        rounds.tend()
    return told, said


def test_only_what_changes_is_told() -> None:
    told, _ = run(decision(0, 3), decision(3, 3), decision(3, 1), decision(1, 1, "quota used up"))
    assert told == [
        "tools: 0 → 3 workers: 3 waiting",
        "tools: 3 → 1 worker: 3 waiting",
        "tools: 1 worker: 3 waiting; quota used up",
    ]


def test_a_store_that_is_away_is_told_once_and_when_it_is_back() -> None:
    away = StoreUnavailable(url="redis://x", reason="refused")
    told, said = run(decision(0, 3), away, away, away, decision(3, 3))
    assert len(told) == 1
    assert len(said) == 2
    assert said[0].endswith("The workers go on as they are.")
    assert said[1] == "The store is reached again."


def test_who_leads_is_told_when_it_changes() -> None:
    _, said = run("host:1", "host:1", decision(0, 1))
    assert said == [
        "Pool tools is led by host:1; this controller takes over when that one is gone.",
        "Pool tools is led by this controller now.",
    ]


def test_time_passes_between_rounds_and_a_store_that_is_away_ends_nothing() -> None:
    controller: Any = Controller(decision(0, 1))
    rounds = Rounds(controller, tell=lambda each: None, say=lambda words: None)
    rounds.tend()
    rounds._next = float("inf")
    rounds.tend()
    rounds.tend()
    assert controller.ticks == 2


def test_the_trouble_of_a_pool_of_which_nothing_was_decided_is_told_once() -> None:
    said: list[str] = []
    controller: Any = Controller(decision(1, 1), decision(1, 1), decision(1, 1))
    controller.troubles = {"tools": "in its decision", "other": "it stays as it is"}
    rounds = Rounds(controller, tell=lambda each: None, say=said.append)
    for _ in range(3):
        rounds._next = 0.0
        rounds.tend()
    assert said == ["Pool other: it stays as it is."]
