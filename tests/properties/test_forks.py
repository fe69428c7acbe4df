"""A fork of any run from any of its steps goes on as if the run had come so far by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from agentq.core import forking
from agentq.core.errors import AgentqError
from agentq.core.forking import Prefix, journal_of, prefix_before
from agentq.core.ids import step_id
from agentq.core.journal import Ask, Signal, Start, decode, encode
from tests.conftest import SEED
from tests.properties.replay_agents import SIGNALS, part_of
from tests.properties.replay_world import World, undisturbed
from tests.properties.test_replay import check_again

NEW_ID = "5d0b6f0e-7f0a-4d0b-9d3c-0a6f5b1c9e42"
DAY_MS = 24 * 3600 * 1000


def forked(origin: World, prefix: Prefix, run_id: str) -> World:
    """The world of a fork, a day later."""
    world = World(origin.rng, kills=origin.rng.randint(0, 3))
    world.run_id = run_id
    world.clock_ms = origin.clock_ms + DAY_MS
    journal = journal_of(prefix, origin=origin.run_id, new=run_id, now_ms=world.clock_ms)
    world.log = [encode(entry).encode() for entry in journal]
    for ask in prefix.asks:
        if ask.id in origin._members:
            world._members[step_id(run_id, ask.key)] = origin._members[ask.id]
    return world


def check(rng: Random) -> None:
    body = part_of(rng, cancels=False)
    signals = [Signal(name=rng.choice(SIGNALS), id=str(number), payload=number) for number in range(3)]
    world = World(rng, signals=signals)
    first = world.live(body)
    run_id = NEW_ID
    for _ in range(2):
        entries = [decode(line) for line in world.log]
        asks = [entry for entry in entries if isinstance(entry, Ask) and entry.kind != "emit"]
        if not asks:
            return
        prefix = prefix_before(entries, frozenset({rng.choice(asks).id}))
        settled = {step_id(run_id, ask.key) for ask in prefix.asks if ask.id in prefix.settled()}
        heard = Counter(entry.id for entry in entries if isinstance(entry, Signal))
        world = forked(world, prefix, run_id)
        end = world.live(body)
        assert end.kind == first.kind, end.error
        assert not settled & set(world.sent), "what is known was done again"
        assert max(Counter(world.sent).values(), default=1) == 1
        assert heard == Counter(entry.id for entry in map(decode, world.log) if isinstance(entry, Signal))
        machine, _ = undisturbed(body, world)
        assert machine.outcome is not None
        assert (machine.outcome.kind, machine.outcome.value) == (end.kind, end.value)
        check_again(world, body)
        run_id = step_id(run_id, "another")


def check_many(runs: int) -> None:
    """The same so many times, always the same runs."""
    for number in range(runs):
        check(Random(number))


@seed(SEED)
@given(st.integers(0, 2**32))
def test_a_fork_of_a_fork_goes_on(number: int) -> None:
    check(Random(number))


def _without_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = journal_of

    def forgetful(*args: Any, **more: Any) -> list[Any]:
        start, *rest = begin(*args, **more)
        assert isinstance(start, Start)
        return [replace(start, origin="somebody else"), *rest]

    monkeypatch.setattr("tests.properties.test_forks.journal_of", forgetful)


def _without_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentq.runtime.replay.Book._open_again", lambda self: [])


def _with_late_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asks = forking._asks
    monkeypatch.setattr(forking, "_asks", lambda entries: [replace(ask, after=1) for ask in asks(entries)])


@pytest.mark.parametrize("break_it", [_without_seeds, _without_marks, _with_late_asks])
def test_the_check_finds_a_broken_fork(
    break_it: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_it(monkeypatch)
    with pytest.raises((AssertionError, AgentqError)):
        check_many(200)
