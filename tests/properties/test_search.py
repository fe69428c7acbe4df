"""Every order of a few takes, commits, deaths, lost replies and duplicates: what must hold holds in each state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.kit.server import PrivateServer
from tests.properties.search import Search, World
from tests.properties.worlds import JoinWorld, StepWorld, TurnWorld
from tests.store.bench import Bench, break_rule

logger = logging.getLogger(__name__)

Make = Callable[[], World]

SMALL: dict[str, Make] = {
    "a step that is tried again": lambda: StepWorld(takes=2, hand_backs=0),
    "a step that is handed back": lambda: StepWorld(takes=2, retries=0),
    "a join and a death": lambda: JoinWorld(takes=2, duplicates=0),
    "a join that needs one": lambda: JoinWorld(takes=2, need=1, lost=0, duplicates=0),
    "a turn and a death": lambda: TurnWorld(takes=1, lost=0, words=1, parks=1),
    "a turn and a lost reply": lambda: TurnWorld(takes=1, deaths=0, words=1, parks=1),
}

LARGE: dict[str, Make] = {
    "a step": lambda: StepWorld(),
    "a join": lambda: JoinWorld(),
    "a join that needs one": lambda: JoinWorld(need=1),
    "a turn": lambda: TurnWorld(takes=2),
}

HELD = "if f[1] ~= 'h' or f[2] ~= h.worker or f[3] ~= tostring(h.take) then\n  return { 0"

BROKEN: dict[str, tuple[Make, str, str]] = {
    "take whatever is there": (StepWorld, "taken = f[1] == 'q' and f[2] == generation", "taken = true"),
    "take an old generation": (
        lambda: StepWorld(lost=0, deaths=0, hand_backs=0),
        "taken = f[1] == 'q' and f[2] == generation",
        "taken = f[1] == 'q'",
    ),
    "take by the dead": (StepWorld, "if redis.call('EXISTS', K.dead(worker)) == 1 then return { 0 } end", ""),
    "take anew for an old token": (StepWorld, "if c[1] == token then", "if false then"),
    "commit by anybody": (StepWorld, HELD, "if false then\n  return { 0"),
    "commit twice for one token": (StepWorld, "if f[4] == h.token then return { 1 } end", ""),
    "release the same generation": (
        StepWorld,
        "local generation = tonumber(f[4]) + 1\n  redis.call('HSET', rec, 'g', generation)",
        "local generation = tonumber(f[4])",
    ),
    "forget what the dead held": (
        StepWorld,
        "released = released + give_back(worker, takes[i], true, now)",
        "redis.call('HDEL', K.held(worker), takes[i])",
    ),
    "keep what was committed": (StepWorld, "redis.call('HDEL', K.held(h.worker), h.take)\n", ""),
    "count every arrival": (
        lambda: JoinWorld(lost=0, deaths=0, duplicates=0),
        "if place < 0 or place >= size or redis.call('SETBIT', bits, place, 1) == 1 then return end",
        "",
    ),
    "release again": (
        lambda: JoinWorld(need=1, lost=0, deaths=0, duplicates=0),
        "if f[3] ~= '0' then return end",
        "",
    ),
    "ignore need": (
        lambda: JoinWorld(need=1, lost=0, deaths=0, duplicates=0),
        " and not (f[2] and ok >= tonumber(f[2]))",
        "",
    ),
    "tell without a wake": (
        lambda: JoinWorld(lost=0, deaths=0, duplicates=0),
        "stamped(entry, now))\n  wake(root, run, now)",
        "stamped(entry, now))",
    ),
    "park over what has come": (
        lambda: TurnWorld(lost=0, deaths=0),
        "if redis.call('LLEN', K.log(root, run)) > seen then return 0 end",
        "",
    ),
    "park anew for an old word": (
        lambda: TurnWorld(takes=1, deaths=0, words=1, parks=1),
        "if f[5] == worker .. '|' .. take then return 1 end",
        "",
    ),
    "wake by no signal": (
        lambda: TurnWorld(lost=0, deaths=0),
        "if waited == name then wake(root, run, now) break end",
        "",
    ),
    "append a signal twice": (lambda: TurnWorld(lost=0, deaths=0), "if seen then return", "if false then return"),
    "send twice for one token": (TurnWorld, "if f[4] == h.token then return reply() end", ""),
    "send by anybody": (TurnWorld, HELD, "if false then\n  return { 0"),
}


@pytest.fixture
def bench(module_server: PrivateServer) -> Iterator[Bench]:
    made = Bench(module_server)
    yield made
    module_server.flush()
    made.store.close()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_in_every_order(bench: Bench, name: str) -> None:
    explore(bench, name, SMALL[name])


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", sorted(LARGE))
def test_in_every_order_of_more(bench: Bench, name: str) -> None:
    explore(bench, name, LARGE[name])


def explore(bench: Bench, name: str, make: Make) -> None:
    search = Search(bench)
    search.explore(make(), drain_every=20)
    logger.info("%s: %d states, %d moves", name, search.states, search.moves)


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_missing_rule_is_found(bench: Bench, name: str) -> None:
    make, rule, instead = BROKEN[name]
    break_rule(bench, rule, instead)
    search = Search(bench)
    with pytest.raises(AssertionError, match="after"):
        search.explore(make())
    logger.info("%s: found in %d moves", name, search.moves)
