"""Retry by real workers: in place and by timers, by tenacity's strategies, with other arguments, across a crash."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentq.core.errors import InvalidArguments
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

RETRYING = "tests.projects.retrying"
TIMEOUT = 60.0


@pytest.fixture(scope="module")
def project(module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]) -> Iterator[Any]:
    found = load_module(RETRYING, url=module_server.celery_url)
    start_module_worker(RETRYING, url=module_server.celery_url, concurrency=2)
    yield found
    check_leaks(module_server.client)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "attempts")


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


@pytest.mark.parametrize("name", ["shortly", "shortly_async"])
def test_a_short_pause_is_waited_for_in_place(project: Any, path: str, name: str) -> None:
    result = getattr(project, name).delay(path, 2)
    assert result.get(timeout=TIMEOUT) == 3
    assert [line.split()[1] for line in lines(path)] == ["1", "2", "3"]
    assert len({line.split()[0] for line in lines(path)}) == 1
    record = project.app.store.record(result.id, result.id)
    assert (record["a"], record["g"]) == ("3", "1")


def test_a_longer_pause_is_a_timer(project: Any, path: str) -> None:
    result = project.by_timer.delay(path, 2)
    assert result.get(timeout=TIMEOUT) == 3
    record = project.app.store.record(result.id, result.id)
    assert (record["a"], record["g"]) == ("3", "3")


def test_the_last_failure_tells_of_the_ones_before(project: Any, path: str) -> None:
    for name in ("shortly", "by_timer"):
        result = getattr(project, name).delay(f"{path}{name}", 9)
        with pytest.raises(Exception, match="failure 4"):
            result.get(timeout=TIMEOUT)
        for number in (1, 2, 3):
            assert f"attempt {number}: ValueError: failure {number}" in result.traceback
        assert len(lines(f"{path}{name}")) == 4


def test_tenacitys_strategies_are_taken_as_they_are(project: Any, path: str) -> None:
    with pytest.raises(Exception, match="again"):
        project.by_strategies.delay(path, "again").get(timeout=TIMEOUT)
    assert lines(path) == ["1", "2", "3"]
    with pytest.raises(Exception, match="never"):
        project.by_strategies.delay(f"{path}2", "never").get(timeout=TIMEOUT)
    assert lines(f"{path}2") == ["1"]


def test_a_strategy_may_find_fault_with_a_result(project: Any, path: str) -> None:
    assert project.by_result.delay(path, [-1, -2, 7]).get(timeout=TIMEOUT) == 7
    with pytest.raises(Exception, match="found fault with it"):
        project.by_result.delay(f"{path}2", [-1, -2, -3]).get(timeout=TIMEOUT)


def test_a_server_that_asks_for_a_pause_gets_it(project: Any, path: str) -> None:
    assert project.busy.delay(path, "0.8").get(timeout=TIMEOUT) == "done"
    first, second = map(float, lines(path))
    assert second - first >= 0.79


@pytest.mark.parametrize("name", ["changing", "changing_in_line"])
def test_the_next_attempt_gets_other_arguments(project: Any, path: str, name: str) -> None:
    assert getattr(project, name).delay(path, "say it").get(timeout=TIMEOUT) == "small: say it, please"
    assert lines(path) == ["large say it", "small say it", "small say it, please"]


def test_what_is_changed_stands_in_the_history(project: Any, path: str) -> None:
    handle = project.asks.start(path)
    assert handle.get(timeout=TIMEOUT) == "small: say it, please"
    changed = [event.fields["changed"] for event in handle.events() if event.kind == "retrying"]
    assert changed == ['model="small"', 'prompt="say it, please"']


def test_a_change_of_what_the_step_does_not_have_is_refused(project: Any, path: str) -> None:
    with pytest.raises(Exception, match="change= gives it, but the step has path"):
        project.misspelt.delay(path).get(timeout=TIMEOUT)
    assert lines(path) == ["1"]


def test_a_crash_forgets_no_try(project: Any, path: str, tmp_path: Path) -> None:
    result = project.dying.delay(path, str(tmp_path / "gate"))
    wait_until(lambda: Path(path).exists() and len(lines(path)) == 2, description="it tries again in place")
    os.kill(int(lines(path)[1].split()[0]), signal.SIGKILL)
    with pytest.raises(Exception, match="failure"):
        result.get(timeout=TIMEOUT)
    # The second one died with its process, and is no failure of the function's: it is made again, then one more.
    assert len(lines(path)) == 4


def test_an_answer_that_the_check_refuses_is_tried_again(project: Any, path: str) -> None:
    assert project.guesses.delay(path, ["maybe a", "maybe b", "c"]).get(timeout=TIMEOUT) == "c"
    with pytest.raises(Exception, match="was refused: its check= says no"):
        project.guesses.delay(f"{path}2", ["maybe a", "maybe b", "maybe c"]).get(timeout=TIMEOUT)
    assert len(lines(f"{path}2")) == 3


def test_fallbacks_are_asked_in_their_order_until_an_answer_passes(project: Any, path: str) -> None:
    assert project.chain_of_fallbacks.delay(path, "so").get(timeout=TIMEOUT) == "surely so"


def test_the_last_failure_names_all_before_it(project: Any, path: str) -> None:
    result = project.nobody_answers.delay(path, "so")
    with pytest.raises(Exception, match="was refused"):
        result.get(timeout=TIMEOUT)
    for words in ("ValueError: the first one", "LookupError: no so", "its check= says no"):
        assert words in result.traceback


def test_an_agent_takes_the_place_of_a_step_that_failed(project: Any, path: str) -> None:
    assert project.asks_an_agent.delay(path, "so").get(timeout=TIMEOUT) == "maybe so"


def test_which_one_answered_stands_in_the_history(project: Any, path: str) -> None:
    handle = project.wants.start(path)
    assert handle.get(timeout=TIMEOUT) == "surely so / maybe so"
    answered = [event.fields["fallback"] for event in handle.events() if event.kind == "fallback"]
    assert answered == ["last", "person"]


def test_what_cannot_be_called_is_no_fallback(project: Any) -> None:
    with pytest.raises(InvalidArguments, match="it cannot be called"):
        project.app.step(name="wrong", fallback=["small"])(lambda: None)
