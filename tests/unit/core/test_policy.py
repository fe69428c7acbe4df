"""When something is tried again."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentq.core.errors import AgentqError, BreakerOpen, InvalidArguments, StaleHolder, StepTimeout
from agentq.core.models import Retry
from agentq.core.policy import decide_restart_wait, decide_retry, decide_wait


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
