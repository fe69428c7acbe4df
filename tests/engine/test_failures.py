"""Every way in which a step can fail ends in its outcome, in a pool of children and in one of threads."""

from __future__ import annotations

import time

import pytest

from agentq import RunFailed
from tests.kit.sample import TIMEOUT, lines, wait_for_lines
from tests.kit.stopping import Stopping
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.timeout(90)

BOTH = pytest.mark.parametrize("stopping", ["prefork", "threads"], indirect=True)


@BOTH
@pytest.mark.parametrize("step", ["raises", "raises_async"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("memory", "MemoryError"),
        ("cancelled", "CancelledError"),
        ("generator", "GeneratorExit"),
        ("unspeakable", "Unspeakable"),
        ("wordy", "ValueError"),
        ("recursion", "RecursionError"),
    ],
)
def test_whatever_a_step_raises_is_its_failure(stopping: Stopping, step: str, kind: str, said: str) -> None:
    children = stopping.worker.whole_pool()
    error, kind_of_error, words = stopping.called(step, kind)
    assert (error, kind_of_error) == ("StepFailed", said)
    assert said in words
    assert stopping.worker.pool_children() == children, "no process has ended by it"


@BOTH
def test_a_result_that_json_cannot_hold_fails(stopping: Stopping) -> None:
    error, _, words = stopping.called("returns_an_object")
    assert error == "InvalidResult"
    assert "object" in words


@BOTH
def test_a_result_that_is_too_large_fails(stopping: Stopping) -> None:
    error, _, words = stopping.called("returns", 400 * 1024)
    assert error == "InvalidResult"
    assert "larger than 409600 bytes" in words


@BOTH
def test_a_large_result_comes_as_it_is(stopping: Stopping) -> None:
    assert stopping.called("returns", 100_000) == "x" * 100_000


@BOTH
def test_an_outcome_that_waits_for_the_server_outlives_the_limit(stopping: Stopping) -> None:
    seen = stopping.notes
    result = stopping.step("on_time").delay(str(seen), 0.5)
    wait_for_lines(seen, 1)
    stopping.server.pause()
    try:
        # Nothing tells that a limit has passed which nobody hears.
        time.sleep(3.0)
    finally:
        stopping.server.resume()
    assert result.get(timeout=TIMEOUT) == "on time"
    assert lines(seen) == ["started"]


@BOTH
def test_what_takes_too_long_is_stopped(stopping: Stopping) -> None:
    error, _, words = stopping.called("too_long", str(stopping.notes), 30.0)
    assert (error, "0.5 s" in words) == ("StepTimeout", True)


@BOTH
def test_a_step_that_is_ignored_has_ended_without_a_result(stopping: Stopping) -> None:
    """A worker of stock Celery would tell nobody; here an agent, a chain or a join would wait for ever."""
    assert stopping.called("steps_aside", str(stopping.notes), "ignore") is None
    assert lines(stopping.notes) == ["attempt"]


@BOTH
def test_a_step_that_is_rejected_has_failed(stopping: Stopping) -> None:
    error, kind, words = stopping.called("steps_aside", str(stopping.notes), "reject")
    assert (error, kind) == ("StepFailed", "Reject")
    assert "it is not for us" in words
    assert lines(stopping.notes) == ["attempt"]


@BOTH
def test_a_step_that_asks_to_be_queued_again_is(stopping: Stopping) -> None:
    result = stopping.step("steps_aside").delay(str(stopping.notes), "again")
    assert result.get(timeout=TIMEOUT) == "done"
    record = stopping.app.store.record(result.id, result.id)
    assert (record["a"], record.get("d", "0")) == ("1", "0"), "what was handed back counts as no start, and no death"


@BOTH
@pytest.mark.parametrize("fails", [False, True])
def test_a_result_that_nobody_wants_is_not_kept(stopping: Stopping, fails: bool) -> None:
    seen = stopping.notes
    result = stopping.step("ignored").delay(str(seen), fails)
    wait_until(lambda: stopping.app.store.record(result.id, result.id).get("s") == "d", description="the step is done")
    assert stopping.app.store.record(result.id, result.id)["o"] == ("FAILURE" if fails else "SUCCESS")
    assert stopping.app.store.outcomes([result.id]) == [None]


@BOTH
@pytest.mark.parametrize("fails", [False, True])
def test_what_an_agent_waits_for_is_kept_all_the_same(stopping: Stopping, fails: bool) -> None:
    found = stopping.called("ignored", str(stopping.notes), fails)
    assert found == (["StepFailed", "ValueError", found[2]] if fails else "nobody asked")


@BOTH
def test_a_running_step_is_revoked_in_any_pool(stopping: Stopping) -> None:
    seen = stopping.notes
    result = stopping.step("sits_async").delay(str(seen), 60.0)
    wait_for_lines(seen, 1)
    result.revoke(terminate=True)
    with pytest.raises(Exception, match=r"(?i)terminated|revoked"):
        result.get(timeout=TIMEOUT)
    assert wait_for_lines(seen, 2)[1] == "left"


@BOTH
def test_an_agent_that_computes_for_too_long_fails_and_takes_back(stopping: Stopping) -> None:
    seen = stopping.notes
    handle = stopping.start("ponders", str(seen), 60.0)
    with pytest.raises(RunFailed, match=r"for 1 s without an await.*AGENTQ_TURN_LIMIT"):
        handle.get(timeout=TIMEOUT)
    assert [line.split()[0] for line in lines(seen)] == ["started", "effect", "retracted"]


@BOTH
def test_nobody_imports_sentry_who_has_not_turned_it_on(stopping: Stopping) -> None:
    error, *_ = stopping.called("raises", "wordy")
    assert error == "StepFailed"
    assert stopping.step("has_imported").delay("sentry_sdk").get(timeout=TIMEOUT) is False
