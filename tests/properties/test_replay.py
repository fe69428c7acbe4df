"""An agent that is killed and parked at random does what it would have done undisturbed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from agentq.core.errors import AgentqError
from agentq.core.journal import Ask, Cancel, Signal, decode
from agentq.runtime import loop
from tests.conftest import SEED
from tests.properties.replay_agents import SIGNALS, part_of
from tests.properties.replay_world import World, feed_all, machine_of, undisturbed


def check(rng: Random, *, cancels: bool) -> World:
    """One random agent under a random scheduler, against the undisturbed run of the same inputs."""
    body = part_of(rng, cancels=cancels)
    signals: list[Signal | Cancel] = [
        Signal(name=rng.choice(SIGNALS), id=str(number), payload=number) for number in range(3)
    ]
    if cancels and rng.random() < 0.3:
        signals.insert(rng.randint(0, 3), Cancel(why="enough"))
    world = World(rng, kills=rng.randint(0, 6), signals=signals)
    end = world.live(body)
    assert end.kind in ("value", "cancelled"), end.error

    machine, asked = undisturbed(body, world)
    assert machine.outcome is not None
    assert (machine.outcome.kind, machine.outcome.value) == (end.kind, end.value)

    twice = [ask_id for ask_id, times in Counter(world.sent + world.said).items() if times > 1]
    assert not twice, f"sent twice: {twice}"
    made = {effect.ask.id for effect in asked if effect.ask.kind in ("call", "map", "undo")}
    assert set(world.said) == {effect.ask.id for effect in asked if effect.ask.kind == "emit"}
    assert set(world.sent) <= made
    if not cancels:
        # Else a call may be given up, or outlived by the agent's end, before the turn comes to send it.
        assert set(world.sent) == made
    check_again(world, body)
    return world


def check_again(world: World, body: Any) -> None:
    """The finished log replays, and asks for nothing that it does not hold."""
    machine = machine_of(body, run_id=world.run_id)
    for entry in map(decode, world.log):
        if isinstance(entry, Ask):
            machine.record(entry)
    feed_all(machine, world)
    assert machine.outcome is not None
    assert not machine.asks.has_news


@seed(SEED)
@given(st.integers(0, 2**32), st.booleans())
def test_killed_and_parked_at_random_it_is_the_same_run(number: int, cancels: bool) -> None:
    check(Random(number), cancels=cancels)


@pytest.mark.long
@seed(SEED)
@settings(max_examples=500)
@given(st.integers(0, 2**32), st.booleans())
def test_five_hundred_runs(number: int, cancels: bool) -> None:
    check(Random(number), cancels=cancels)


def check_many(runs: int) -> None:
    """The same so many times, always the same runs."""
    for number in range(runs):
        check(Random(number), cancels=True)


def _by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (loop.Task, loop.Future):
        monkeypatch.setattr(kind, "__hash__", lambda self: Random(id(self)).getrandbits(60))


def _without_places(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Ask.__init__

    def placed(self: Ask, **fields: Any) -> None:
        ask(self, **{**fields, "after": 0})

    monkeypatch.setattr(Ask, "__init__", placed)


@pytest.mark.parametrize("break_it", [_by_address, _without_places])
def test_the_check_finds_a_broken_runtime(
    break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    with pytest.raises((AssertionError, AgentqError)):
        check_many(400)
