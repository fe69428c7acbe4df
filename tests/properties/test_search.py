"""Every order of a few takes, commits, deaths, lost replies and duplicates: what must hold holds in each state."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.kit.server import PrivateServer
from tests.properties.rules import GOING_ON_RULES, JOIN_RULES, OWN_STEP_RULES, RARE_RULES, RUN_RULES, STEP_RULES, Rules
from tests.properties.run_worlds import JoinWorld, OwnStepWorld, TurnWorld
from tests.properties.search import Search, World
from tests.properties.worlds import GoingOnWorld, StepWorld
from tests.store.bench import Bench, break_rule

logger = logging.getLogger(__name__)

Make = Callable[[], World]

SMALL: dict[str, Make] = {
    "a step that is tried again": lambda: StepWorld(takes=2, hand_backs=0),
    "a step that is handed back": lambda: StepWorld(takes=2, retries=0),
    "two steps, gone on with": lambda: GoingOnWorld(takes=2, duplicates=0),
    "a join and a death": lambda: JoinWorld(takes=2, duplicates=0),
    "a join that needs one": lambda: JoinWorld(takes=2, need=1, lost=0, duplicates=0),
    "a step in its turn's slot": lambda: OwnStepWorld(),
    "a turn and a death": lambda: TurnWorld(takes=1, lost=0, words=1, parks=1),
    "a turn and a lost reply": lambda: TurnWorld(takes=1, deaths=0, words=1, parks=1),
}

LARGE: dict[str, Make] = {
    "a step": lambda: StepWorld(),
    "two steps, gone on with": lambda: GoingOnWorld(),
    "a join": lambda: JoinWorld(),
    "a join that needs one": lambda: JoinWorld(need=1),
    "a turn": lambda: TurnWorld(takes=2),
}

NEEDED: list[tuple[Rules, str, Make]] = [
    *(
        (STEP_RULES, name, StepWorld)
        for name in sorted(STEP_RULES)
        if name not in ("record what is known", "fire no timers")
    ),
    (RARE_RULES, "take an old generation", lambda: StepWorld(lost=0, deaths=0, hand_backs=0)),
    *((GOING_ON_RULES, name, lambda: GoingOnWorld(takes=2)) for name in sorted(GOING_ON_RULES)),
    *((OWN_STEP_RULES, name, OwnStepWorld) for name in sorted(OWN_STEP_RULES)),
    (JOIN_RULES, "count every word", lambda: JoinWorld(lost=0, deaths=0, duplicates=0)),
    (JOIN_RULES, "release again", lambda: JoinWorld(need=1, lost=0, deaths=0, duplicates=0)),
    (JOIN_RULES, "ignore need", lambda: JoinWorld(need=1, lost=0, deaths=0, duplicates=0)),
    (RUN_RULES, "tell without a wake", lambda: JoinWorld(lost=0, deaths=0, duplicates=0)),
    (RUN_RULES, "park over what has come", lambda: TurnWorld(lost=0, deaths=0)),
    (RUN_RULES, "park anew for an old word", lambda: TurnWorld(takes=1, deaths=0, words=1, parks=1)),
    (RUN_RULES, "wake by no signal", lambda: TurnWorld(lost=0, deaths=0)),
    (RUN_RULES, "append a signal twice", lambda: TurnWorld(lost=0, deaths=0)),
    (RUN_RULES, "send twice for one token", TurnWorld),
    (RUN_RULES, "send by anybody", TurnWorld),
]


@pytest.fixture
def bench(module_server: PrivateServer) -> Iterator[Bench]:
    made = Bench(module_server)
    yield made
    module_server.empty()
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


@pytest.mark.parametrize(("rules", "name", "make"), NEEDED, ids=[name for _, name, _ in NEEDED])
def test_a_missing_rule_is_found(bench: Bench, rules: Rules, name: str, make: Make) -> None:
    break_rule(bench, *rules[name])
    search = Search(bench)
    with pytest.raises(AssertionError, match="after"):
        search.explore(make())
    logger.info("%s: found in %d moves", name, search.moves)
