"""Rates, means and habits of agents, by what the store tells look by look."""

from __future__ import annotations

from typing import Any

import pytest

from agentq.fleet import sensors
from agentq.fleet.sensors import PoolSensor
from agentq.store.sensing import Glance, StepSums


def glance(
    *, waiting: int = 0, held: int = 0, ended: dict[str, StepSums] | None = None, asks: dict[str, int] | None = None
) -> Glance:
    sums, asked = ended or {}, asks or {}
    return Glance(
        workers=1,
        resting=0,
        slots=1,
        busy=held,
        held=held,
        waiting=waiting,
        oldest_s=0.0,
        due_soon=0,
        is_closed=False,
        count=sum(each.attempts for each in sums.values()) + sum(asked.values()),
        sums=sums,
        asks=asked,
        listed=(),
    )


def sums(attempts: int, each_ms: int, **more: int) -> StepSums:
    fields: dict[str, Any] = {"failed": 0, "tokens": 0, "ended": attempts, **more}
    return StepSums(attempts=attempts, ms=attempts * each_ms, squares=attempts * each_ms**2, **fields)


class TestArrivals:
    def test_what_is_there_and_what_has_ended_tells_what_came(self) -> None:
        sensor = PoolSensor()
        sensor.see(1_000, glance(waiting=5))
        # Four have ended, two run, nine wait: ten have come.
        sensor.see(2_000, glance(waiting=9, held=2, ended={"read": sums(4, 100)}))
        assert sensor.quick.value == pytest.approx(10)
        sensor.see(3_000, glance(ended={"read": sums(15, 100)}))
        assert sensor.quick.value < 10, "all that ended now was there before"

    def test_what_waits_for_a_guard_is_no_arrival_when_it_comes_back(self) -> None:
        sensor = PoolSensor()
        sensor.see(1_000, glance(held=1))
        sensor.see(2_000, glance())
        sensor.see(3_000, glance(waiting=1))
        assert sensor.quick.value == 0

    def test_the_first_look_tells_no_rate(self) -> None:
        sensor = PoolSensor()
        sensor.see(1_000, glance(waiting=500, ended={"read": sums(10_000, 100)}))
        assert sensor.quick.value == 0
        assert sensor.service.value == pytest.approx(0.1)

    def test_a_server_that_lost_its_data_begins_anew(self) -> None:
        sensor = PoolSensor()
        sensor.see(1_000, glance(ended={"read": sums(1000, 100)}))
        sensor.see(2_000, glance(waiting=3, ended={"read": sums(2, 300)}))
        assert sensor.steps["read"].known.attempts == 2
        sensor.see(3_000, glance(waiting=4, ended={"read": sums(2, 300)}))
        assert 0 < sensor.quick.value < 3

    def test_idle_is_since_something_last_waited_ran_or_came(self) -> None:
        sensor = PoolSensor()
        sensor.see(1_000, glance(held=1))
        sensor.see(5_000, glance(ended={"read": sums(1, 100)}))
        sensor.see(9_000, glance(ended={"read": sums(1, 100)}))
        assert sensor.idle_s == pytest.approx(8.0)

    def test_where_the_clock_goes_back_it_rests_from_then_on(self) -> None:
        sensor = PoolSensor()
        for at_ms in (3_600_000, 1_000, 6_000):
            sensor.see(at_ms, glance())
        assert sensor.idle_s == pytest.approx(5.0)


class TestService:
    def test_mean_and_variance_over_steps(self) -> None:
        sensor = PoolSensor()
        sensor.see(1_000, glance(ended={"quick": sums(50, 100), "slow": sums(50, 900)}))
        assert sensor.service.value == pytest.approx(0.5)
        assert sensor.service.variation == pytest.approx(0.64)
        assert sensor.steps["slow"].service.value == pytest.approx(0.9)

    def test_what_is_new_counts_most(self) -> None:
        sensor = PoolSensor()
        sensor.see(1_000, glance(ended={"read": sums(10_000, 100)}))
        new = StepSums(10_200, 10_000 * 100 + 200 * 1000, 10_000 * 100**2 + 200 * 1000**2, 0, 0, 10_200)
        sensor.see(2_000, glance(ended={"read": new}))
        assert sensor.service.value > 0.5


class TestHabits:
    def look(self, *, turns: int, asked: int, open_turns: int = 0) -> dict[str, PoolSensor]:
        found = {"managers": PoolSensor(), "tools": PoolSensor()}
        found["managers"].see(1_000, glance(held=open_turns, ended={"research": sums(turns, 2000, ended=turns // 4)}))
        found["tools"].see(1_000, glance(asks={"research": asked}))
        sensors.fade(found, {})
        return found

    def test_branching_is_asks_by_turns(self) -> None:
        assert sensors.habits(self.look(turns=20, asked=60))["research"]["tools"] == pytest.approx(3.0)
        assert sensors.habits(self.look(turns=100_000, asked=300_000))["research"]["tools"] == pytest.approx(3.0)

    def test_turns_that_run_now_are_expected_to_ask(self) -> None:
        found = self.look(turns=20, asked=60, open_turns=4)
        ahead = sensors.expected(found, sensors.habits(found))
        assert set(ahead) == {"tools"}
        many, seconds = ahead["tools"]
        assert many == pytest.approx(12.0)
        assert seconds == pytest.approx(2.0)

    def test_a_habit_follows_when_it_changes(self) -> None:
        found = self.look(turns=200, asked=200)
        turns = {"research": 200.0}
        found["managers"].see(2_000, glance(ended={"research": sums(1200, 2000)}))
        found["tools"].see(2_000, glance(asks={"research": 200 + 5000}))
        sensors.fade(found, turns)
        assert sensors.habits(found)["research"]["tools"] == pytest.approx(5.0, rel=0.2)

    def test_the_listing_tells_depth_failures_and_tokens(self) -> None:
        found = self.look(turns=20, asked=60)
        found["tools"].see(2_000, glance(asks={"research": 60}, ended={"read": sums(10, 500, failed=5, tokens=10_000)}))
        branching = sensors.habits(found)
        managers = sensors.paces(found["managers"], branching)
        assert managers["research"].depth == pytest.approx(4.0)
        assert managers["research"].asks == pytest.approx(3.0)
        assert sensors.cognition(found["managers"], managers, 0.0).depth == pytest.approx(4.0)
        tools = sensors.cognition(found["tools"], sensors.paces(found["tools"], branching), 12.0)
        assert tools.failed == pytest.approx(0.5)
        assert tools.tokens_per_second == pytest.approx(10 * 1000, rel=0.01)
        assert tools.expected == 12.0
