"""The controller on a real store: who leads, what is decided and kept, and what a driver is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from math import inf
from time import monotonic
from typing import Any

import pytest

from agentq.core.errors import DriverFailed, StoreUnavailable
from agentq.core.guards import Breaker
from agentq.core.pools import PoolSpec
from agentq.core.sizing import Decision
from agentq.engine.options import StepOptions
from agentq.fleet import control
from agentq.fleet.bounds import gates_of
from agentq.fleet.controller import ORDERS_S, Controller, Terms
from agentq.fleet.drivers import Observed
from agentq.fleet.drivers.pull import Pull
from agentq.store.admissions import Admission, breaker_wish
from agentq.store.sensing import Question
from agentq.store.workers import TickReply
from tests.fleet.platform import Platform
from tests.kit.waiting import wait_until
from tests.store.bench import Bench
from tests.store.test_leading import end_lease


@pytest.fixture
def platform(bench: Bench) -> Platform:
    for worker in ("w1", "w2"):
        bench.store.leave(worker)
    return Platform(bench)


@pytest.fixture
def spec() -> PoolSpec:
    return PoolSpec(name="q", max=8, best_effort=True, idle_to_zero=timedelta(0), shrink_after=timedelta(0))


def make(bench: Bench, platform: Platform, spec: PoolSpec, **terms: Any) -> Controller:
    return Controller(bench.store, platform, Terms(pools=lambda: {spec.name: spec}, **terms))


def settle(controller: Controller, platform: Platform) -> Decision:
    """One round after another, with all workers as quick as can be, until nothing changes."""
    before = None
    for _ in range(20):
        (decision,) = controller.round()
        platform.come_up()
        platform.hear()
        now = (list(platform.instances.get("q", ())), platform.bench.store.drains(), decision.load.starting)
        if now == before:
            return decision
        before = now
    raise AssertionError(f"it does not come to rest: {before}")


def test_a_backlog_gets_workers_and_an_empty_pool_gives_them_back(
    bench: Bench, platform: Platform, spec: PoolSpec
) -> None:
    controller = make(bench, platform, spec)
    bench.store.offer([bench.step() for _ in range(5)])
    (first,) = controller.round()
    assert (first.had, first.desired) == (0, 5)
    assert platform.calls == [("apply", "q", 5)]
    assert settle(controller, platform).load.ready == 5
    for worker in list(platform.instances["q"]):
        bench.finish(bench.take_one(worker).holder)
    settle(controller, platform)
    assert platform.instances["q"] == []
    assert {call[0] for call in platform.calls[1:]} == {"drain"}, "nobody is sent away by a number"


def test_who_runs_something_is_drained_last_and_ends_when_it_is_done(
    bench: Bench, platform: Platform, spec: PoolSpec
) -> None:
    controller = make(bench, platform, spec)
    bench.store.offer([bench.step() for _ in range(3)])
    settle(controller, platform)
    busy = platform.instances["q"][0]
    got = bench.take_one(busy)
    for worker in platform.instances["q"][1:]:
        bench.finish(bench.take_one(worker).holder)
    settle(controller, platform)
    assert platform.instances["q"] == [busy]
    bench.store.drain(f"worker|{busy}", by="autoscale")
    platform.hear()
    controller.round()
    assert platform.instances["q"] == [busy], "it still holds a step"
    bench.finish(got.holder)
    settle(controller, platform)
    assert platform.instances["q"] == []


def test_work_that_comes_while_somebody_drains_is_given_back_to_that_one(
    bench: Bench, platform: Platform, spec: PoolSpec
) -> None:
    controller = make(bench, platform, spec)
    bench.store.offer([bench.step() for _ in range(2)])
    settle(controller, platform)
    first, second = platform.instances["q"]
    got = bench.take_one(first)
    bench.finish(bench.take_one(second).holder)
    for worker in (first, second):
        bench.store.drain(f"worker|{worker}", by="autoscale")
    platform.hear()
    bench.store.offer([bench.step() for _ in range(3)])
    platform.calls.clear()
    controller.round()
    assert bench.store.drains() == {}
    assert all(call[0] == "apply" for call in platform.calls)
    bench.finish(got.holder)


class TestLeading:
    def test_one_leads_and_another_follows_when_it_is_gone(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        first, second = make(bench, platform, spec), make(bench, platform, spec)
        assert first.round()
        assert second.round() == []
        assert second.leading.leaders == {"q": first.leading.label}
        end_lease(bench, "q")
        (decision,) = second.round()
        assert decision.leader == second.leading.label
        assert first.round() == []

    def test_one_that_stood_still_since_it_decided_changes_nothing(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = make(bench, platform, spec), make(bench, platform, spec)
        bench.store.offer([bench.step() for _ in range(5)])
        act = first._act

        def after_a_long_stop(*given: Any) -> None:
            end_lease(bench, "q")
            second.round()
            platform.calls.clear()
            act(*given)

        monkeypatch.setattr(first, "_act", after_a_long_stop)
        first.round()
        assert platform.calls == [], "the platform has seen a newer fence"
        assert first.round() == []

    @pytest.mark.parametrize("word", ["observe", "apply"])
    def test_one_whose_platform_takes_longer_than_the_lease_goes_on_leading(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch, word: str
    ) -> None:
        call = getattr(platform, word)

        def lease_ends_ms() -> int:
            return int(bench.client.hget(bench.keys.of("leaders"), "q").decode().split("|")[1])

        def slowly(*given: Any, **named: Any) -> Any:
            # Without a renewal the wait would last for ever.
            before = lease_ends_ms()
            wait_until(lambda: lease_ends_ms() > before, description="the lease lasts longer")
            return call(*given, **named)

        bench.store.offer([bench.step() for _ in range(5)])
        controller = make(bench, platform, spec, lease_s=0.3)
        monkeypatch.setattr(platform, word, slowly)
        controller.round()
        assert platform.calls == [("apply", "q", 5)]
        controller.close(keep=True)
        assert bench.store.leaders()["q"].left_ms == 0, "who has given it back does not take it again"

    def test_a_decision_is_refused_by_the_store_too(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = make(bench, platform, spec), make(bench, platform, spec)
        bench.store.offer([bench.step() for _ in range(5)])
        sense = bench.store.sense

        def after_a_long_stop(questions: list[Question]) -> Any:
            found = sense(questions)
            monkeypatch.setattr(bench.store, "sense", sense)
            end_lease(bench, "q")
            second.round()
            platform.calls.clear()
            return found

        monkeypatch.setattr(bench.store, "sense", after_a_long_stop)
        first.round()
        assert platform.calls == []
        assert bench.store.decisions()["q"].fence == bench.store.leaders()["q"].fence
        assert len(bench.store.decision_history("q")) == 1

    def test_who_takes_over_goes_on_with_what_was_begun(self, bench: Bench, platform: Platform, spec: PoolSpec) -> None:
        first = make(bench, platform, spec)
        bench.store.offer([bench.step() for _ in range(3)])
        settle(first, platform)
        for worker in list(platform.instances["q"]):
            bench.finish(bench.take_one(worker).holder)
        first.round()
        assert len(bench.store.drains()) == 3, "it has marked them, and is killed before they have heard of it"
        end_lease(bench, "q")
        settle(make(bench, platform, spec), platform)
        assert platform.instances["q"] == []

    def test_one_that_wakes_to_its_end_takes_no_worker_of_its_successor_along(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both = {"q": spec, "other": replace_name(spec, "other")}
        observed: list[list[str]] = []
        observe = platform.observe

        def noted(pools: list[str]) -> Any:
            observed.append(list(pools))
            return observe(pools)

        monkeypatch.setattr(platform, "observe", noted)
        for lost, kept in ((["q"], ["other"]), (["q", "other"], [])):
            first = Controller(bench.store, platform, Terms(pools=lambda: both))
            second = Controller(bench.store, platform, Terms(pools={name: both[name] for name in lost}.copy))
            assert {each.pool for each in first.round()} == set(both)
            for pool in lost:
                end_lease(bench, pool)
            assert {each.pool for each in second.round()} == set(lost)
            platform.calls.clear()
            observed.clear()
            first.close(keep=False)
            assert platform.calls == [("close", not kept)]
            assert observed == [kept] * bool(kept), "the driver ends what it was last asked for"
            assert all(second.controls[pool].fence == bench.store.leaders()[pool].fence for pool in lost)
            second.close(keep=True)

    def test_two_with_different_pools_each_lead_their_own(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        other = replace_name(spec, "other")
        first = make(bench, platform, spec)
        second = Controller(bench.store, platform, Terms(pools=lambda: {"q": spec, "other": other}))
        assert [each.pool for each in first.round()] == ["q"]
        assert [each.pool for each in second.round()] == ["other"]

    def test_of_two_with_different_sizes_for_one_pool_only_the_leaders_counts(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        small, large = make(bench, platform, spec.model_copy(update={"max": 2})), make(bench, platform, spec)
        bench.store.offer([bench.step() for _ in range(6)])
        for _ in range(3):
            small.round()
            large.round()
        assert len(platform.instances["q"]) == 2

    def test_a_dry_one_says_and_does_nothing(self, bench: Bench, platform: Platform, spec: PoolSpec) -> None:
        bench.store.offer([bench.step() for _ in range(4)])
        (decision,) = make(bench, platform, spec, is_dry=True).round()
        assert (decision.desired, decision.mode) == (4, "dry")
        assert platform.calls == []
        assert bench.store.leaders() == {}
        assert bench.store.decisions() == {}


class TestWhatIsKept:
    def test_controllers_that_take_turns_do_not_fill_the_events(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        controllers = [make(bench, platform, spec.model_copy(update={"min": 1})) for _ in range(2)]
        controllers[0].round()
        platform.come_up()
        kept = len(bench.store.decision_history("q"))
        for turn in range(6):
            end_lease(bench, "q")
            (decision,) = controllers[1 - turn % 2].round()
            assert bench.store.decisions()["q"].leader == decision.leader
        assert len(bench.store.decision_history("q")) == kept

    def test_a_decision_has_its_inputs_and_its_reason(self, bench: Bench, platform: Platform, spec: PoolSpec) -> None:
        controller = make(bench, platform, spec)
        bench.store.offer([bench.step() for _ in range(5)])
        controller.round()
        (kept,) = bench.store.decision_history("q")
        assert (kept.desired, kept.load.waiting, kept.leader) == (5, 5, controller.leading.label)
        assert kept.why

    def test_what_changes_nothing_is_no_event(self, bench: Bench, platform: Platform, spec: PoolSpec) -> None:
        controller = make(bench, platform, spec)
        for _ in range(5):
            controller.round()
        assert len(bench.store.decision_history("q")) == 1
        assert bench.store.decisions()["q"].desired == 0


class TestTrouble:
    def test_a_platform_that_does_not_answer_is_told_and_nothing_is_guessed(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        controller = make(bench, platform, spec)
        bench.store.offer([bench.step() for _ in range(5)])
        platform.broken = "no network"
        (decision,) = controller.round()
        assert "no network" in decision.why
        assert platform.calls == []
        platform.broken = None
        controller._driving._look_at = 0.0
        controller.round()
        assert platform.calls == [("apply", "q", 5)]

    def test_an_order_that_fails_is_tried_again_after_a_pause(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        controller = make(bench, platform, spec)
        bench.store.offer([bench.step() for _ in range(5)])
        apply = platform.apply
        tried: list[Any] = []

        def fail(*given: Any, **named: Any) -> None:
            tried.append(given)
            raise DriverFailed(driver="platform", pool="q", reason="quota used up")

        monkeypatch.setattr(platform, "apply", fail)
        controller.round()
        (decision,) = controller.round()
        assert len(tried) == 1, "not again at once"
        assert "quota used up" in decision.why
        monkeypatch.setattr(platform, "apply", apply)
        controller.controls["q"].retry_at = 0.0
        controller.round()
        assert len(platform.instances["q"]) == 5

    def test_a_platform_that_is_slow_to_hear_is_told_of_each_pool_in_its_turn(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now, told = monotonic(), []

        def slowly(pool: str, instances: int, *, fence: int) -> None:
            nonlocal now
            now += ORDERS_S
            told.append(pool)

        monkeypatch.setattr("agentq.fleet.controller.monotonic", lambda: now)
        monkeypatch.setattr(platform, "apply", slowly)
        names = ("a", "b", "c")
        pools = {name: replace_name(spec, name).model_copy(update={"min": 1}) for name in names}
        controller = Controller(bench.store, platform, Terms(pools=lambda: pools))
        for turn in (1, 2, 3):
            assert len(controller.round()) == 3
            assert told == list(names[:turn]), "none comes up, so that each is to be told each time"

    def test_an_instance_that_does_not_come_up_is_told(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        controller = make(bench, platform, spec)
        bench.store.offer([bench.step()])
        controller.round()
        observe = platform.observe

        def later(pools: list[str]) -> Any:
            return {
                pool: replace(seen, instances=tuple(replace(each, age_s=95.0) for each in seen.instances or ()))
                for pool, seen in observe(pools).items()
            }

        monkeypatch.setattr(platform, "observe", later)
        (decision,) = controller.round()
        assert decision.trouble == "q-1 has not come up in 90 s"

    def test_what_is_not_asked_for_any_more_is_no_trouble_any_more(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        controller = make(bench, platform, spec)
        steps = [bench.step() for _ in range(2)]
        bench.store.offer(steps)
        monkeypatch.setattr(platform, "apply", refuse)
        controller.round()
        (decision,) = controller.round()
        assert "quota is used up" in decision.why
        bench.worker("by hand")
        for _ in steps:
            bench.finish(bench.take_one("by hand").holder)
        controller.controls["q"].retry_at = 0.0
        controller.round()
        (decision,) = controller.round()
        assert decision.trouble is None

    def test_a_look_that_fails_is_repeated_ever_more_seldom(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks = []

        def count(pools: list[str]) -> Any:
            looks.append(pools)
            raise DriverFailed(driver="platform", pool="q", reason="the rate limit is used up")

        observe = platform.observe
        monkeypatch.setattr(platform, "observe", count)
        controller = make(bench, platform, spec)
        bench.store.offer([bench.step()])
        for _ in range(20):
            (decision,) = controller.round()
        assert len(looks) < 10
        assert "the rate limit is used up" in decision.why
        monkeypatch.setattr(platform, "observe", observe)
        controller._driving._look_at = 0.0
        (decision,) = controller.round()
        assert (decision.trouble, platform.calls) == (None, [("apply", "q", 1)])

    @pytest.mark.parametrize("word", ["observe", "apply"])
    def test_a_mistake_in_somebodys_driver_stops_no_controller(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch, word: str
    ) -> None:
        def broken(*_: Any, **__: Any) -> Any:
            raise KeyError("a secret")

        controller = make(bench, platform, spec)
        bench.store.offer([bench.step()])
        with monkeypatch.context() as patch:
            patch.setattr(platform, word, broken)
            controller.round()
            (decision,) = controller.round()
        assert "it raised KeyError at test_controller.py" in decision.why
        assert "a secret" not in decision.why
        controller._driving._look_at = controller.controls["q"].retry_at = 0.0
        controller.round()
        assert platform.instances["q"] == ["q-1"]

    def test_a_pool_of_which_the_platform_says_nothing_is_left_alone_and_the_others_are_served(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        observe = platform.observe

        def partly(pools: list[str]) -> Any:
            return {**observe(pools), "q": Observed(None, trouble="no right to look (403)", is_unknown=True)}

        monkeypatch.setattr(platform, "observe", partly)
        both = {"q": spec, "other": replace_name(spec, "other").model_copy(update={"min": 1})}
        bench.store.offer([bench.step()])
        decisions = Controller(bench.store, platform, Terms(pools=lambda: both)).round()
        assert platform.calls == [("apply", "other", 1)]
        assert {each.pool: each.trouble for each in decisions} == {"q": "no right to look (403)", "other": None}

    def test_a_pool_that_cannot_be_decided_on_stays_as_it_is_and_the_others_are_served(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        other = replace_name(spec, "other").model_copy(update={"min": 1})
        pools = {"q": spec.model_copy(update={"cost_per_hour": inf}), "other": other}
        bench.store.offer([bench.step()])
        controller = Controller(bench.store, platform, Terms(pools=lambda: dict(pools)))
        for _ in range(2):
            assert [each.pool for each in controller.round()] == ["other"]
        assert platform.calls == [("apply", "other", 1)]
        assert "it cannot be decided on (ValidationError)" in controller.troubles["q"]
        pools["q"] = spec
        controller.round()
        assert platform.calls[1:] == [("apply", "q", 1)]
        assert controller.troubles == {}


def wants_someone(controller: Controller) -> bool:
    """Whether a step waits after the time that has passed."""
    controller.let_time_pass()
    return controller.round()[0].load.waiting == 1


class TestDeserted:
    """No worker lives whose keeper would let time pass."""

    def test_what_the_last_worker_held_is_done_by_the_next(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        controller = make(bench, platform, spec, worker_lease_s=0.2)
        bench.store.offer([bench.step()])
        bench.worker("last")
        bench.take_one("last")
        bench.expire_lease("last")
        (decision,) = controller.round()
        assert decision.desired == 1, "what it holds waits"

        def is_given_back() -> bool:
            controller.let_time_pass()
            return not bench.look().parts("held")

        wait_until(is_given_back, description="the lost worker's step is given back")
        settle(controller, platform)
        assert [each.holder.worker for each in bench.take(platform.instances["q"][0])] == platform.instances["q"]

    def test_a_step_in_a_breakers_line_is_called_and_wakes_its_pool(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        controller = make(bench, platform, spec)
        wish = breaker_wish("llm", rate=0.5, volume=10, window_ms=30_000, reset_ms=600_000, jitter=0.0, probes=1)
        bench.store.offer([bench.step(), bench.step()])
        for worker in ("one", "two"):
            bench.worker(worker)
        first = bench.take_one("one").holder
        bench.store.admit(first, Admission(gates=[wish]), token="a")
        bench.store.trip_breaker("llm")
        assert bench.store.admit(bench.take_one("two").holder, Admission(gates=[wish]), token="b").verdict == "waits"
        bench.finish(first)
        bench.store.trip_breaker("llm", span_ms=1)
        for worker in ("one", "two"):
            bench.store.leave(worker)

        wait_until(lambda: wants_someone(controller), description="the step is called out of the breaker's line")
        assert platform.instances["q"] == ["q-1"]

    def test_what_a_person_resumes_wakes_its_pool(self, bench: Bench, platform: Platform, spec: PoolSpec) -> None:
        controller = make(bench, platform, spec)
        bench.store.offer([bench.agent("run")])
        bench.store.stop("run", "run", "why", rule="person")
        bench.worker("last")
        assert bench.take("last") == [], "it stands still"
        bench.store.leave("last")
        assert not wants_someone(controller)
        bench.store.resume("run", "run")
        wait_until(lambda: wants_someone(controller), description="its turn comes out of the line")
        assert platform.instances["q"] == ["q-1"]

    def test_what_stands_below_a_run_that_was_ended_wakes_its_pool(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        controller = make(bench, platform, spec)
        for worker in ("one", "two"):
            bench.worker(worker)
        parent = bench.run_agent("run", "one")
        bench.store.send(
            parent, token="t", seen=1, offers=[bench.agent("child", root="run", parent="run", ask="child")]
        )
        child = bench.take_one("two").holder
        assert bench.store.park(child, seen=1, due_ms=None, waits=["go"])
        bench.store.commit(parent, mode="done", status="FAILURE")
        for worker in ("one", "two"):
            bench.store.leave(worker)
        assert bench.kinds("child", "run") == ["start"], "it has not heard of it yet"
        wait_until(lambda: wants_someone(controller), description="it is called to take its end")
        assert bench.kinds("child", "run")[-1] == "cancel"
        assert platform.instances["q"] == ["q-1"]

    def test_where_a_worker_lives_its_keeper_does_it(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ticks: list[int] = []

        def tick(lease_ms: int) -> TickReply:
            ticks.append(lease_ms)
            return TickReply(0, 0, 0, 0)

        monkeypatch.setattr(bench.store, "tick", tick)
        bench.worker("alive")
        controller = make(bench, platform, spec)
        controller.round()
        controller.let_time_pass()
        assert ticks == []
        bench.store.leave("alive")
        make(bench, platform, spec, is_dry=True).round()
        assert ticks == []
        controller.round()
        assert ticks == [3000]


def refuse(*_: Any, **__: Any) -> None:
    raise DriverFailed(driver="platform", pool="q", reason="the quota is used up")


class TestStoreAway:
    def test_a_time_in_which_nobody_could_look_is_no_lull(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        minute = timedelta(minutes=1)
        pool = spec.model_copy(update={"shrink_after": minute, "idle_to_zero": minute})
        controller = make(bench, platform, pool)
        bench.store.offer([bench.step() for _ in range(4)])
        settle(controller, platform)
        for worker in list(platform.instances["q"]):
            bench.finish(bench.take_one(worker).holder)
        later_ms, sense = 0, bench.store.sense

        def at_a_later_time(questions: list[Question]) -> Any:
            if later_ms < 0:
                raise StoreUnavailable(url="redis://here", reason="refused")
            now_ms, glances = sense(questions)
            return now_ms + later_ms, glances

        monkeypatch.setattr(bench.store, "sense", at_a_later_time)
        assert settle(controller, platform).desired == 4
        later_ms = -1
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                controller.round()
        later_ms = 300_000
        (decision,) = controller.round()
        assert decision.desired == 4, "five minutes without a store are no five minutes without work"
        assert decision.load.idle_s == 0
        for seconds in (302, 365, 366, 367):
            later_ms = seconds * 1000
            controller.round()
            platform.hear()
        assert platform.instances["q"] == [], "the time after it counts"

    def test_workers_that_had_no_time_to_say_that_they_live_are_not_replaced(
        self, bench: Bench, platform: Platform, spec: PoolSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(control, "RETURN_S", 600.0)
        controller = make(bench, platform, spec.model_copy(update={"min": 1}))
        bench.worker("by hand")
        controller.round()
        assert platform.calls == []
        with monkeypatch.context() as patch:
            patch.setattr(controller, "_round", raise_away)
            with pytest.raises(StoreUnavailable):
                controller.round()
        bench.store.leave("by hand")
        controller.round()
        controller.round()
        assert platform.calls == []
        controller.controls["q"]._settles_ms = bench.store.now_ms()
        controller.round()
        assert platform.calls == [("apply", "q", 1)]


def raise_away() -> None:
    raise StoreUnavailable(url="redis://here", reason="refused")


class TestOnce:
    """Each round is another controller's, as in `--once` each minute; the clock is the test's."""

    @pytest.fixture
    def once(self, bench: Bench, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Decision]:
        sense = bench.store.sense
        later_ms = 0

        def at_that_time(questions: list[Question]) -> Any:
            now_ms, glances = sense(questions)
            return now_ms + later_ms, glances

        monkeypatch.setattr(bench.store, "sense", at_that_time)

        def decide(spec: PoolSpec, at_s: float, **terms: Any) -> Decision:
            nonlocal later_ms
            controller = make(bench, platform, spec, is_once=True, **terms)
            later_ms = int(at_s * 1000)
            controller.look()
            later_ms += 1000
            (decision,) = controller.round()
            controller.close(keep=True)
            platform.come_up()
            platform.hear()
            return decision

        return decide

    def test_a_pool_without_work_shrinks_after_its_window(
        self, bench: Bench, platform: Platform, spec: PoolSpec, once: Callable[..., Decision]
    ) -> None:
        pool = spec.model_copy(update={"min": 1, "shrink_after": timedelta(minutes=3)})
        bench.store.offer([bench.step() for _ in range(4)])
        assert once(pool, 0).desired == 4
        for worker in list(platform.instances["q"]):
            bench.finish(bench.take_one(worker).holder)
        assert [once(pool, at).desired for at in (60, 120, 150)] == [4, 4, 4], "within the window"
        assert once(pool, 240).desired == 1
        once(pool, 300)
        assert len(platform.instances["q"]) == 1

    def test_what_one_look_alone_does_not_see_is_not_gone(
        self, bench: Bench, platform: Platform, spec: PoolSpec, once: Callable[..., Decision]
    ) -> None:
        pool = spec.model_copy(update={"min": 1, "shrink_after": timedelta(seconds=5)})
        bench.store.offer([bench.step() for _ in range(4)])
        once(pool, 0)
        for worker in list(platform.instances["q"]):
            bench.finish(bench.take_one(worker).holder)
        assert [once(pool, at).desired for at in (60, 120)] == [4, 1]

    def test_a_pool_that_rests_for_its_time_sleeps(
        self, bench: Bench, platform: Platform, spec: PoolSpec, once: Callable[..., Decision]
    ) -> None:
        pool = spec.model_copy(update={"idle_to_zero": timedelta(seconds=150)})
        bench.store.offer([bench.step()])
        once(pool, 0)
        bench.finish(bench.take_one(platform.instances["q"][0]).holder)
        once(pool, 60)
        bench.store.offer([bench.step()])
        got = bench.take_one(platform.instances["q"][0])
        bench.client.hset(bench.keys.step(got.holder.root, got.holder.id), "b", bench.store.now_ms() - 1000)
        bench.finish(got.holder)
        assert once(pool, 120).load.idle_s < 10, "something came and ended between two looks"
        assert [once(pool, at).desired for at in (180, 240, 300)] == [1, 1, 0]
        once(pool, 360)
        assert platform.instances["q"] == []

    def test_a_dry_one_says_the_same(
        self, bench: Bench, platform: Platform, spec: PoolSpec, once: Callable[..., Decision]
    ) -> None:
        bench.store.offer([bench.step() for _ in range(4)])
        once(spec, 0)
        for worker in list(platform.instances["q"]):
            bench.finish(bench.take_one(worker).holder)
        once(spec.model_copy(update={"shrink_after": timedelta(minutes=1)}), 60)
        assert once(spec, 600, is_dry=True).desired == 0
        assert len(platform.instances["q"]) == 4


class TestBounds:
    def test_a_pool_that_a_person_drained_is_left_alone(self, bench: Bench, platform: Platform, spec: PoolSpec) -> None:
        bench.store.drain("pool|q")
        bench.store.offer([bench.step() for _ in range(5)])
        (decision,) = make(bench, platform, spec).round()
        assert platform.calls == []
        assert decision.why == "a person has drained the pool"
        bench.store.undrain("pool|q")

    def test_who_runs_something_in_a_pool_that_a_person_drained_is_not_sent_away_by_a_platform_that_pulls(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        controller = Controller(bench.store, Pull(), Terms(pools=lambda: {"q": spec}))
        bench.store.offer([bench.step()])
        bench.worker("w9")
        got = bench.take_one("w9")
        controller.round()
        bench.store.drain("pool|q")
        (decision,) = controller.round()
        assert (decision.had, decision.desired) == (1, 1)
        bench.store.undrain("pool|q")
        bench.finish(got.holder)

    def test_an_open_breaker_freezes_growth(self, bench: Bench, platform: Platform, spec: PoolSpec) -> None:
        class Task:
            agentq = StepOptions(breaker=Breaker("llm"))

        bench.store.offer([bench.step()])
        bench.worker("w9")
        got = bench.take_one("w9")
        wish = breaker_wish("llm", rate=0.5, volume=10, window_ms=30_000, reset_ms=600_000, jitter=0.0, probes=1)
        bench.store.admit(got.holder, Admission(gates=[wish]), token="t")
        bench.client.hset(bench.keys.step(got.holder.root, got.holder.id), "b", bench.store.now_ms() - 1000)
        bench.finish(got.holder)
        bench.store.trip_breaker("llm")
        bench.store.offer([bench.step() for _ in range(40)])
        (decision,) = make(bench, platform, spec, gates=gates_of({"read": Task()})).round()
        assert decision.desired == 1, "the one by hand; no other is ordered"
        assert decision.why == "breaker llm is open: more would only wait"
        assert platform.calls == []
        bench.store.reset_breaker("llm")

    def test_workers_by_hand_count_and_are_not_touched(self, bench: Bench, platform: Platform, spec: PoolSpec) -> None:
        bench.worker("by hand")
        bench.store.offer([bench.step() for _ in range(3)])
        controller = make(bench, platform, spec)
        controller.round()
        assert platform.calls == [("apply", "q", 2)]

    def test_the_pools_may_change_while_it_runs(self, bench: Bench, platform: Platform, spec: PoolSpec) -> None:
        pools = {"q": spec}
        controller = Controller(bench.store, platform, Terms(pools=lambda: dict(pools)))
        bench.store.offer([bench.step() for _ in range(6)])
        settle(controller, platform)
        assert len(platform.instances["q"]) == 6
        pools["q"] = spec.model_copy(update={"max": 2})
        settle(controller, platform)
        assert len(platform.instances["q"]) == 2
        pools.clear()
        assert controller.round() == []
        assert bench.store.leaders()["q"].left_ms == 0, "who has the pool in its file may lead it now"


class TestOtherPlatforms:
    def test_one_that_picks_by_itself_is_told_the_number(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        platform.chooses = False
        controller = make(bench, platform, spec)
        bench.store.offer([bench.step() for _ in range(3)])
        settle(controller, platform)
        for worker in list(platform.instances["q"]):
            bench.finish(bench.take_one(worker).holder)
        settle(controller, platform)
        assert platform.instances["q"] == []
        assert [call[0] for call in platform.calls if call[0] == "drain"] == []
        assert bench.store.drains() == {}

    def test_one_that_lists_nothing_is_measured_by_who_comes(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        platform.chooses = platform.lists = False
        controller = make(bench, platform, spec)
        bench.store.offer([bench.step() for _ in range(3)])
        (decision,) = controller.round()
        assert decision.desired == 3
        (decision,) = controller.round()
        assert (decision.load.ready, decision.load.starting, decision.desired) == (0, 3, 3)
        platform.come_up()
        (decision,) = controller.round()
        assert (decision.load.ready, decision.load.starting) == (3, 0)
        assert decision.load.startup_s < 5

    def test_one_that_pulls_is_told_nothing(self, bench: Bench, platform: Platform, spec: PoolSpec) -> None:
        platform.chooses = platform.acts = platform.lists = False
        bench.store.offer([bench.step() for _ in range(3)])
        (decision,) = make(bench, platform, spec).round()
        assert (decision.mode, decision.desired) == ("pulled", 3)
        assert bench.store.decisions()["q"].desired == 3
        assert platform.calls == []

    def test_one_that_pulls_is_told_who_rests_as_well_as_far_as_there_is_room(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        for worker in ("w8", "w9"):
            bench.worker(worker)
        bench.client.hset(bench.keys.worker("w9"), "report", json.dumps({"why": "memory"}))
        bench.store.offer([bench.step() for _ in range(3)])
        controller = Controller(bench.store, Pull(), Terms(pools=lambda: {"q": spec}))
        for _ in range(2):
            (decision,) = controller.round()
            assert (decision.desired, decision.resting, decision.replicas) == (3, 1, 4)
        assert (decision.load.ready, decision.load.starting) == (1, 2), "what it will have is what it was told"
        assert bench.store.decisions()["q"].replicas == 4
        small = spec.model_copy(update={"max": 3})
        end_lease(bench, "q")
        (decision,) = Controller(bench.store, Pull(), Terms(pools=lambda: {"q": small})).round()
        assert (decision.desired, decision.replicas) == (3, 3)

    def test_of_one_that_pulls_start_up_times_are_measured_from_what_was_published(
        self, bench: Bench, platform: Platform, spec: PoolSpec
    ) -> None:
        platform.chooses = platform.acts = False
        silent = Pull()
        controller = Controller(bench.store, silent, Terms(pools=lambda: {"q": spec}))
        bench.store.offer([bench.step() for _ in range(3)])
        controller.round()
        (decision,) = controller.round()
        assert (decision.load.ready, decision.load.starting) == (0, 3), "the platform has read it, or will"
        platform.instances["q"] = ["a", "b", "c"]
        platform.come_up()
        (decision,) = controller.round()
        assert (decision.load.ready, decision.load.starting) == (3, 0)
        assert decision.load.startup_s < 5, "it is known, and no more what is assumed"


def replace_name(spec: PoolSpec, name: str) -> PoolSpec:
    return spec.model_copy(update={"name": name})
