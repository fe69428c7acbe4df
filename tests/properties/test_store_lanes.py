"""Lanes and tenants in any order of offers, takes, retries and hand-backs: who goes first, who waits how long."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agentq.store.runner import Weights
from agentq.store.unsent import Hint, Post
from tests.kit.server import PrivateServer
from tests.properties.rules import LANE_RULES
from tests.store.bench import Bench, Got, break_rule, gots

TENANTS = ("", "a", "b", "big")
WEIGHTS = {"big": 3}
SHARE = 3
NUMBERS = st.integers(0, 10_000)
Place = tuple[int, str]
"""Lane and tenant."""


class Lanes(RuleBasedStateMachine):
    """Producers and one worker; ``bench`` is set by the test."""

    bench: ClassVar[Bench]

    @initialize()
    def begin(self) -> None:
        """Start with an empty server and one worker."""
        self.bench.client.flushall()
        self.bench.worker("w1")
        self.made = 0
        self.takes = 0
        self.places: dict[str, Place] = {}
        self.waiting: defaultdict[Place, list[str]] = defaultdict(list)
        self.running: list[Got] = []
        # Of each that waits: how many of each other tenant's in its lane began since it is there or had a turn.
        self.passed: dict[Place, Counter[str]] = {}
        self.returned: dict[Place, Counter[str]] = {}

    def lanes(self) -> list[int]:
        """Return the lane of each step that waits, the most urgent first."""
        return sorted(lane for (lane, _), ids in self.waiting.items() for _ in ids)

    def queue(self, step_id: str, *, front: bool = False) -> None:
        """Note that a step waits from now on."""
        place = self.places[step_id]
        if not self.waiting[place]:
            self.passed[place], self.returned[place] = Counter(), Counter()
        self.waiting[place].insert(0 if front else len(self.waiting[place]), step_id)
        if front:
            for (lane, tenant), counts in self.returned.items():
                if lane == place[0] and tenant != place[1]:
                    counts[place[1]] += 1

    # -- producers

    @rule(tenant=st.sampled_from(TENANTS), lane=st.sampled_from([0, 6, 9]), count=st.integers(1, 5))
    def offer(self, tenant: str, lane: int, count: int) -> None:
        """Offer some steps of one tenant."""
        ids = [f"s{self.made + at}" for at in range(count)]
        self.made += count
        card = {"tenant": tenant} if tenant else {}
        self.bench.store.offer([self.bench.step(step_id, lane=lane, card=card) for step_id in ids])
        for step_id in ids:
            self.places[step_id] = (lane, tenant)
            self.queue(step_id)

    # -- the worker

    @rule(slots=st.integers(1, 4))
    def take(self, slots: int) -> None:
        """Take: the most urgent first, and every so many the lowest."""
        lanes = self.lanes()
        slots_of_share = (self.takes + slots) // SHARE - self.takes // SHARE
        most = lanes[: slots - slots_of_share]
        wanted = most + lanes[len(most) :][::-1][:slots_of_share]
        taken = self.bench.take(slots=slots, low_share=SHARE)
        assert [self.places[got.holder.id][0] for got in taken] == wanted, "the lanes have another order"
        self.takes += len(taken)
        for got in taken:
            self.start(got)

    def start(self, got: Got) -> None:
        """Note an attempt: of its tenant the first, and its tenant's turn."""
        place = self.places[got.holder.id]
        lane, tenant = place
        assert got.holder.id in self.waiting[place], f"{got.holder.id} is taken and does not wait"
        assert self.waiting[place].pop(0) == got.holder.id, "a tenant's steps have another order"
        self.running.append(got)
        for other, counts in self.passed.items():
            if other[0] == lane and other != place and self.waiting[other]:
                counts[tenant] += 1
                most = WEIGHTS.get(tenant, 1) + self.returned[other][tenant]
                assert counts[tenant] <= most, f"{other} waits while {tenant!r} has {counts[tenant]} of {most}"
        self.passed[place], self.returned[place] = Counter(), Counter()

    @rule(number=NUMBERS)
    def finish(self, number: int) -> None:
        """Commit any attempt."""
        if self.running:
            self.bench.finish(self.running.pop(number % len(self.running)).holder)

    @rule(number=NUMBERS)
    def retry(self, number: int) -> None:
        """Commit that a step is tried again; it goes to the end of its line."""
        if self.running:
            got = self.running.pop(number % len(self.running))
            lane, _ = self.places[got.holder.id]
            offer = self.bench.step(got.holder.id, lane=lane)
            self.bench.store.commit(got.holder, mode="again", status="RETRY", offers=[offer])
            self.queue(got.holder.id)

    @rule(number=NUMBERS)
    def hand_back(self, number: int) -> None:
        """Hand an attempt back: it is its tenant's next one."""
        if self.running:
            got = self.running.pop(number % len(self.running))
            self.bench.store.requeue("w1", got.holder.take)
            self.queue(got.holder.id, front=True)

    # -- what holds at every moment

    @invariant()
    def everything_is_in_its_one_place(self) -> None:
        """Each step is where its record says, lines and turns agree, and what waits is counted."""
        assert self.bench.look().misplaced() == []
        lanes = Counter(self.lanes())
        assert list(self.bench.store.waiting("q").values()) == [lanes[number] for number in (0, 3, 6, 9)]

    def teardown(self) -> None:
        """Take all that waits: what a script has lost is missed, and nothing is left of lines and turns."""
        if hasattr(self, "places"):
            while left := self.lanes():
                self.take(4)
                assert len(self.lanes()) < len(left), f"{left} wait, and nothing comes"
            assert [self.bench.look().parts(kind) for kind in ("line", "turns", "shared", "queued")] == [[]] * 4
            for got in self.running:
                self.bench.finish(got.holder)


class Hints(Lanes):
    """The same with a broker beside the store: it delivers in any order and loses nothing."""

    @initialize()
    def begin(self) -> None:
        """Start without any hint."""
        super().begin()
        self.hints: list[Post] = []

    @rule(chunk=st.integers(1, 4))
    def publish(self, chunk: int) -> None:
        """Have the broker hear of some of what is due."""
        self.hints += self.bench.store.publish(chunk=chunk, pause_ms=3_600_000)

    @rule(slots=st.integers(1, 4), number=NUMBERS)
    def claim(self, slots: int, number: int) -> None:
        """Claim for any hints: each brings what is next in its lane."""
        chosen = [self.hints.pop(number % len(self.hints)) for _ in range(min(slots, len(self.hints)))]
        waiting, wanted = Counter(self.lanes()), []
        for post in chosen:
            if waiting[post.lane]:
                waiting[post.lane] -= 1
                wanted.append(post.lane)
        asked = [Hint(post.name, post.queue, post.lane) for post in chosen]
        taken = gots("w1", self.bench.store.claim("w1", uuid.uuid4().hex, asked, label="w1"))
        assert [self.places[got.holder.id][0] for got in taken] == wanted, "a hint does not bring what is next"
        for got in taken:
            self.start(got)

    def take(self, slots: int) -> None:
        """Take by hints alone."""
        self.publish(1000)
        self.claim(slots, 0)

    @invariant()
    def for_each_step_there_is_a_hint(self) -> None:
        """As many hints of a lane lie with the broker, or are about to, as steps wait there."""
        unsent = self.bench.client.zrangebyscore(self.bench.keys.of("unsent"), "-inf", self.bench.store.now_ms())
        due = Counter(self.places[name.decode().split("|")[1]][0] for name in unsent)
        known = Counter(post.lane for post in self.hints)
        for lane, count in Counter(self.lanes()).items():
            assert known[lane] + due[lane] >= count, f"{count} wait in lane {lane}: {known} hints, {due} to come"


@pytest.fixture(params=[Lanes, Hints], ids=["fused", "split"])
def machine(request: pytest.FixtureRequest, module_server: PrivateServer) -> Iterator[Any]:
    bench = Bench(module_server, weights=Weights(WEIGHTS), split=request.param is Hints)
    yield type("Tested", (request.param,), {"bench": bench})
    module_server.empty()
    bench.store.close()


def test_lanes_and_tenants_go_in_turn(machine: Any) -> None:
    run_state_machine_as_test(machine, settings=settings(stateful_step_count=40))


SPLIT_RULES = {"tell no hint of what is taken"}
RISE = "let nothing rise"
"""The machine lets no minutes pass."""


@pytest.mark.parametrize("broken", [False, True])
def test_what_has_waited_too_long_rises(module_server: PrivateServer, broken: bool) -> None:
    bench = Bench(module_server)
    if broken:
        break_rule(bench, *LANE_RULES[RISE])
    bench.worker("w1")
    bench.store.offer([bench.step("c", lane=0), bench.step("old", lane=6), bench.step("low", lane=9)])
    bench.client.hset(bench.keys.step("old", "old"), "c", bench.store.now_ms() - 61_000)
    taken = [got.holder.id for got in bench.take(slots=2, low_share=2)]
    assert taken == ["c", "low" if broken else "old"]
    module_server.empty()
    bench.store.close()


@pytest.mark.parametrize("name", sorted(LANE_RULES.keys() - {RISE}))
def test_the_machine_notices_a_missing_rule(module_server: PrivateServer, name: str) -> None:
    split = name in SPLIT_RULES
    bench = Bench(module_server, weights=Weights(WEIGHTS), split=split)
    break_rule(bench, *LANE_RULES[name])
    quick = settings(
        max_examples=200,
        stateful_step_count=40,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(type("Tested", (Hints if split else Lanes,), {"bench": bench}), settings=quick)
    module_server.empty()
    bench.store.close()
