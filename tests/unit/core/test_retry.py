"""When something is tried again."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentq.core.errors import AgentqError, BreakerOpen, InvalidArguments, StaleHolder, StepTimeout
from agentq.core.policy import decide_restart_wait
from agentq.core.retry import Retry, asked_pause, changed_arguments, decide_retry, decide_wait, spread_pause


def test_pauses_double_up_to_the_longest() -> None:
    retry = Retry(attempts=10, jitter=0)
    waits = [decide_retry(retry, attempt, ValueError(), 0.7) for attempt in range(1, 10)]
    assert waits == [timedelta(seconds=seconds) for seconds in (1, 2, 4, 8, 16, 32, 60, 60, 60)]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0, 1), st.floats(1, 10))
def test_a_pause_stays_within_its_jitter_and_below_the_longest(
    attempt: int, random01: float, jitter: float, factor: float
) -> None:
    retry = Retry(jitter=jitter, factor=factor)
    plain = decide_wait(retry.model_copy(update={"jitter": 0.0}), attempt, 0.5)
    wait = decide_wait(retry, attempt, random01)
    assert plain * (1 - jitter) - timedelta(milliseconds=1) <= wait <= retry.max_wait
    assert wait <= plain * (1 + jitter) + timedelta(milliseconds=1)


@pytest.mark.parametrize(("random01", "seconds"), [(0.0, 0.5), (0.5, 1.0), (0.75, 1.25)])
def test_chance_moves_a_pause_both_ways(random01: float, seconds: float) -> None:
    assert decide_wait(Retry(jitter=0.5), 1, random01) == timedelta(seconds=seconds)


@pytest.mark.parametrize(("attempts", "attempt", "again"), [(1, 1, False), (3, 2, True), (3, 3, False), (3, 4, False)])
def test_the_last_attempt_is_the_last(attempts: int, attempt: int, again: bool) -> None:
    assert (decide_retry(Retry(attempts=attempts), attempt, ValueError(), 0.5) is not None) is again


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(), True),
        (ConnectionError(), True),
        (ValueError(), False),
        (KeyboardInterrupt(), False),
        (BreakerOpen(name="b", retry_after=1), True),
        (StepTimeout(step="s", step_id="i", seconds=1), True),
        (InvalidArguments(step="s", parameter="p", reason="no"), False),
        (StaleHolder(step="s", run_id="r", holder="", take=0, mine="w", my_take=1), False),
    ],
)
def test_only_some_errors_are_tried_again(error: BaseException, again: bool) -> None:
    assert (decide_retry(Retry(on=(OSError, AgentqError)), 1, error, 0.5) is not None) is again


def test_no_waiting_is_no_waiting() -> None:
    assert decide_retry(Retry(wait=timedelta(0)), 1, ValueError(), 0.9) == timedelta(0)


def test_attempts_count_from_one() -> None:
    with pytest.raises(ValueError, match="count from 1"):
        decide_retry(Retry(), 0, ValueError(), 0.5)


def test_a_process_that_dies_again_and_again_waits_longer() -> None:
    waits = [decide_restart_wait(deaths).total_seconds() for deaths in (1, 2, 3, 4, 5, 6, 7, 8, 1000)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert decide_restart_wait(0) == decide_restart_wait(1)


class Refused(Exception):
    def __init__(self, **fields: object) -> None:
        super().__init__("429")
        for name, value in fields.items():
            setattr(self, name, value)


NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (None, 0),
        (ValueError(), 0),
        (Refused(retry_after=3), 3),
        (Refused(retry_after=timedelta(seconds=4)), 4),
        (Refused(response=SimpleNamespace(headers={"Retry-After": "7.5"})), 7.5),
        (Refused(response=SimpleNamespace(headers={"retry-after": "8"})), 8),
        (Refused(response=SimpleNamespace(headers={"Retry-After": "Mon, 04 May 2026 12:01:00 GMT"})), 60),
        (Refused(response=SimpleNamespace(headers={"Retry-After": "Mon, 04 May 2026 11:00:00 GMT"})), 0),
        (Refused(response=SimpleNamespace(headers={"Retry-After": "soon"})), 0),
        (Refused(response=None), 0),
        (Refused(retry_after=-5), 0),
        (Refused(retry_after="nan"), 0),
        (Refused(retry_after="1e30"), 86_400),
    ],
)
def test_a_pause_that_an_error_asks_for(error: BaseException | None, seconds: float) -> None:
    assert asked_pause(error, now=NOON) == timedelta(seconds=seconds)


def test_strategies_stand_where_the_values_stand() -> None:
    retry = Retry(wait=lambda state: 0.25, stop=lambda state: state.upcoming_sleep > 0.2, on=lambda state: state.again)
    state = SimpleNamespace(again=True, upcoming_sleep=0)
    assert retry.most is None
    assert decide_retry(retry, 7, ValueError(), 0.5, state=state) is None
    wide = retry.model_copy(update={"stop": None})
    assert decide_retry(wide, 2, ValueError(), 0.5, state=state) == timedelta(seconds=0.25)
    assert decide_retry(wide, 3, ValueError(), 0.5, state=state) is None
    state.again = False
    assert decide_retry(wide, 1, ValueError(), 0.5, state=state) is None


def test_the_attempts_bound_a_strategy_where_both_are_given() -> None:
    retry = Retry(attempts=2, stop=lambda state: False, wait=timedelta(0))
    state = SimpleNamespace()
    assert decide_retry(retry, 1, ValueError(), 0.5, state=state) is not None
    assert decide_retry(retry, 2, ValueError(), 0.5, state=state) is None


def test_one_error_needs_no_tuple() -> None:
    assert Retry.model_validate({"on": KeyError}).on == (KeyError,)


def test_a_wait_below_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="wait is -1 s"):
        Retry(wait=timedelta(seconds=-1))


def test_a_retry_is_shown_as_json() -> None:
    shown = Retry(wait=lambda state: 1.0, on=lambda state: True).model_dump(mode="json")
    assert "lambda" in shown["wait"]
    assert "lambda" in shown["on"][0]


@pytest.mark.parametrize("given", [3, ["model"], "model"])
def test_a_change_gives_arguments_by_name(given: object) -> None:
    with pytest.raises(InvalidArguments, match="by name, or None"):
        changed_arguments(lambda attempt, error, named: given, 2, None, {"model": "m"}, step="s")  # type: ignore[arg-type, return-value]
    assert changed_arguments(lambda attempt, error, named: None, 2, None, {"model": "m"}, step="s") == {}


@pytest.mark.parametrize(
    ("pause", "asked", "chance", "waits"),
    [(1, 0, 0.9, 1), (1, 3, 0.0, 3), (1, 3, 0.5, 3.5), (4, 3, 0.0, 4), (4, 3, 0.5, 5)],
)
def test_who_is_told_when_to_come_again_comes_no_sooner_and_not_all_at_once(
    pause: float, asked: float, chance: float, waits: float
) -> None:
    found = spread_pause(timedelta(seconds=pause), timedelta(seconds=asked), chance)
    assert found == timedelta(seconds=waits)
