"""Local calls in threads: all end, none is heard of twice, and none takes its worker with it."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from typing import Any

from agentq.core.errors import InvalidArguments
from agentq.core.journal import Ask, Result
from agentq.runtime.effects import Effect
from agentq.runtime.local_calls import LocalCalls


def effect(number: int, function: Callable[..., Any], **more: Any) -> Effect:
    ask = Ask(id=str(number), key=f"f/0/{number}", kind="local", name="f", after=1)
    return Effect(ask, number, target=function, **more)


def calls() -> LocalCalls:
    return LocalCalls(lambda each: each.target())


def all_of(local_calls: LocalCalls, count: int) -> dict[str, Result]:
    found: dict[str, Result] = {}
    while len(found) < count:
        results = local_calls.wait(10)
        assert results, "nothing has ended in 10 s"
        found.update((result.id, result) for result in results)
    return found


def test_more_calls_than_threads_all_end() -> None:
    local_calls = calls()
    for number in range(200):
        local_calls.start(effect(number, lambda number=number: number * 2))
    found = all_of(local_calls, 200)
    assert {result.value for result in found.values()} == {2 * number for number in range(200)}
    assert len(local_calls) == 0
    local_calls.close()


def test_a_call_that_is_under_way_is_not_started_again() -> None:
    made: list[int] = []
    gate = threading.Event()
    local_calls = calls()

    def make() -> None:
        gate.wait(10)
        made.append(1)

    first = effect(1, make)
    local_calls.start(first)
    local_calls.start(first)
    gate.set()
    all_of(local_calls, 1)
    assert local_calls.wait(0.01) == []
    assert made == [1]
    local_calls.close()


def test_a_forgotten_call_is_not_heard_of() -> None:
    gate = threading.Event()
    local_calls = calls()
    kept = effect(2, lambda: "kept")
    local_calls.start(effect(1, lambda: gate.wait(10)))
    local_calls.start(kept)
    local_calls.forget({"2": kept})
    assert [result.value for result in all_of(local_calls, 1).values()] == ["kept"]
    gate.set()
    assert local_calls.wait(0.05) == []
    local_calls.close()


def test_every_kind_of_failure_is_an_outcome() -> None:
    def refuse() -> None:
        raise InvalidArguments(step="f", parameter="x", value=1, reason="no")

    local_calls = calls()
    local_calls.start(effect(1, lambda: 1 / 0))
    local_calls.start(effect(2, lambda: sys.exit(3)))
    local_calls.start(effect(3, refuse))
    local_calls.start(effect(4, lambda: 5, write=lambda value: (_ for _ in ()).throw(ValueError("unwritable"))))
    found = all_of(local_calls, 4)
    assert {result.status for result in found.values()} == {"error"}
    told = {key: (result.value["code"], result.value["fields"].get("error_type")) for key, result in found.items()}
    assert told["1"] == ("step_failed", "ZeroDivisionError")
    assert told["2"] == ("step_failed", "SystemExit")
    assert told["3"] == ("invalid_arguments", None)
    assert told["4"] == ("step_failed", "ValueError")
    local_calls.close()


def test_a_call_sees_the_context_of_its_turn() -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="none")
    name.set("turn")
    local_calls = calls()
    local_calls.start(effect(1, name.get))
    assert all_of(local_calls, 1)["1"].value == "turn"
    local_calls.close()


def test_waiting_ends_with_its_time() -> None:
    assert calls().wait(0.0) == []
    assert calls().wait(0.01) == []
