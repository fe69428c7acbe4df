"""Runs that go on from a step of another one: retried after a failure, or forked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentq import Budget
from agentq.core.errors import RunCancelled, RunFailed, UsageError
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_app
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.past"
TIMEOUT = 60.0


@pytest.fixture(scope="module")
def shared_app(
    module_server: PrivateServer, make_module_worker: Callable[..., WorkerProcess]
) -> Iterator[tuple[Any, WorkerProcess]]:
    worker = make_module_worker(PROJECT, url=module_server.celery_url, pool="threads", concurrency=4).launch()
    app = load_app(PROJECT, url=module_server.celery_url)
    yield app, worker
    app.store.close()


class Desk:
    """One test's runs, the file that its steps write, and the steps that are broken."""

    def __init__(self, app: Any, folder: Path) -> None:
        self.app = app
        self.folder = folder
        self.path = str(folder / "done")

    def break_(self, *names: str) -> None:
        for name in names:
            (self.folder / f"broken-{name}").touch()

    def mend(self) -> None:
        for file in self.folder.glob("broken-*"):
            file.unlink()

    def start(self, agent: str, **using: Any) -> Any:
        return self.app.agents[agent].using(**using).start(self.path)

    def done(self) -> Counter[str]:
        """How often each step was done; the step with the random name as ``r``."""
        lines = Path(self.path).read_text().splitlines()
        return Counter("r" if line[:1] == "r" and line[1:].isdigit() else line for line in lines)

    def names(self) -> set[str]:
        return set(Path(self.path).read_text().splitlines())


@pytest.fixture
def desk(shared_app: tuple[Any, WorkerProcess], module_server: PrivateServer, tmp_path: Path) -> Iterator[Desk]:
    app, _ = shared_app
    app.set_current()
    yield Desk(app, tmp_path)
    check_leaks(module_server.client)


STORY = ["A", "now", "B", "C", "M0", "M1", "M2", "M3", "M4", "True", "L", "Z"]
ONCE = Counter(["a", "b", "c", "m0", "m1", "m2", "m3", "m4", "r", "local", "z"])


def failed(handle: Any) -> RunFailed:
    with pytest.raises(RunFailed) as failure:
        handle.get(timeout=TIMEOUT)
    return failure.value


def left_out(done: Counter[str], failed: str) -> Counter[str]:
    """What was done, once for the neighbour of a failed step: it is stopped if it had not ended by then."""
    return Counter({**done, "c": 1}) if done[failed] > 1 else done


@pytest.mark.parametrize("broken", ["a", "b", "m3", "z"])
def test_a_retry_does_again_what_failed_and_nothing_else(desk: Desk, broken: str) -> None:
    desk.break_(broken)
    handle = desk.start("story", key=f"{desk.folder}", tenant="acme")
    handle.signal("go", "now")
    failure = str(failed(handle))
    before = desk.done()
    desk.mend()
    again = handle.retry()
    assert again.get(timeout=TIMEOUT) == STORY
    assert left_out(desk.done(), "b") == ONCE + Counter([broken])
    assert before <= desk.done()
    # The failed run stays as it is, is retried once, and its key stands for the one that goes on.
    assert str(failed(handle)) == failure
    assert handle.retry().id == again.id
    assert desk.start("story", key=f"{desk.folder}", tenant="acme").id == again.id
    assert [step.status for step in again.steps()] == ["succeeded"] * len(again.steps())
    assert len(again.steps()) == 11
    assert again.summary().tenant == "acme"
    assert next(event for event in again.events() if event.kind == "forked").fields["from"] == handle.id


def test_a_retry_that_fails_is_retried_itself(desk: Desk) -> None:
    handle = desk.start("story")
    for broken in ("b", "z"):
        desk.break_(broken)
    handle.signal("go", "now")
    failed(handle)
    (desk.folder / "broken-b").unlink()
    second = handle.retry()
    failed(second)
    third = second.retry()
    failed(third)
    desk.mend()
    assert third.retry().get(timeout=TIMEOUT) == STORY
    assert left_out(desk.done(), "b") == ONCE + Counter(b=1, z=2)


def test_what_was_undone_is_done_again(desk: Desk) -> None:
    desk.break_("z")
    handle = desk.start("promises")
    failed(handle)
    assert desk.done() == Counter(["a", "p", "z", "undo p"])
    desk.mend()
    assert handle.retry().get(timeout=TIMEOUT) == ["A", "P", "Z"]
    assert desk.done() == Counter(["a", "p", "p", "z", "z", "undo p"])


def test_a_fork_undoes_what_its_beginning_did(desk: Desk) -> None:
    handle = desk.start("promises")
    handle.get(timeout=TIMEOUT)
    last = handle.steps()[-1]
    desk.break_("z")
    failed(handle.fork(last.step_id))
    assert desk.done() == Counter(["a", "p", "z", "z", "undo p"])


def test_a_retry_of_an_agents_own_fault_repeats_no_step(desk: Desk) -> None:
    desk.break_("agent")
    handle = desk.start("own_fault")
    assert "the agent is broken" in str(failed(handle))
    desk.mend()
    assert handle.retry().get(timeout=TIMEOUT) == "A"
    assert desk.done() == Counter(["a"])


def test_a_wide_fan_out_is_retried_where_it_failed(desk: Desk) -> None:
    desk.break_("m3", "m501")
    handle = desk.start("wide")
    failed(handle)
    desk.mend()
    assert handle.retry().get(timeout=TIMEOUT) == 520
    done = desk.done()
    assert {name for name, times in done.items() if times > 1} == {"m3", "m501"}
    assert done.total() == 522


def test_a_fan_out_that_needs_some_is_retried_for_those_that_it_lacks(desk: Desk) -> None:
    desk.break_("m1", "m2")
    handle = desk.start("enough")
    failed(handle)
    (desk.folder / "broken-m2").unlink()
    assert handle.retry().get(timeout=TIMEOUT) == ["M0", "M2"]
    assert desk.done()["m0"] == 1


def test_what_is_large_goes_with_the_fork(desk: Desk) -> None:
    desk.break_("z")
    handle = desk.app.agents["large"].start(desk.path, "t" * 90_000)
    failed(handle)
    desk.mend()
    assert handle.retry().get(timeout=TIMEOUT) == [90_000, 90_000, 100_000]
    assert desk.done() == Counter(["repeat", "z", "z"])


def test_a_cancelled_run_goes_on(desk: Desk) -> None:
    handle = desk.start("story")
    wait_until(lambda: handle.status() == "parked", description="it waits for its signal")
    handle.cancel()
    with pytest.raises(RunCancelled):
        handle.get(timeout=TIMEOUT)
    again = handle.retry()
    again.signal("go", "now")
    assert again.get(timeout=TIMEOUT) == STORY
    assert desk.done() == ONCE


def test_a_retry_goes_on_with_the_budget_that_is_left_or_with_another(desk: Desk) -> None:
    handle = desk.start("spender")
    assert "budget" in str(failed(handle))
    assert handle.retry(budget=Budget(steps=2)).get(timeout=TIMEOUT) == "B"
    assert desk.done() == Counter(["a", "b"])
    first = handle.steps()[0]
    spent = handle.fork(first.step_id)
    assert "budget" in str(failed(spent))


def test_a_fork_of_a_run_under_way_has_the_signals_that_were_not_consumed(desk: Desk) -> None:
    handle = desk.start("story")
    wait_until(lambda: handle.status() == "parked", description="it waits for its signal")
    early = handle.fork(handle.steps()[0].step_id)
    handle.signal("go", "now")
    assert handle.get(timeout=TIMEOUT) == STORY
    late = handle.fork(handle.steps()[0].step_id)
    assert late.get(timeout=TIMEOUT) == STORY
    wait_until(lambda: early.status() == "parked", description="the early fork waits for a signal of its own")
    assert early.signal("go", "later")
    assert early.get(timeout=TIMEOUT)[1] == "later"
    # The three drew the same random number: its step has one name.
    assert desk.done() == Counter({name: 3 * times for name, times in ONCE.items()})
    assert len({name for name in desk.names() if name[0] == "r"}) == 1


def test_one_member_of_a_fan_out_is_done_again(desk: Desk) -> None:
    handle = desk.start("story")
    handle.signal("go", "now")
    assert handle.get(timeout=TIMEOUT) == STORY
    member = handle.steps()[5]
    fork = handle.fork(member.step_id)
    assert fork.get(timeout=TIMEOUT) == STORY
    again = desk.done() - ONCE
    assert sum(times for name, times in again.items() if name[0] == "m") == 1
    assert again["a"] == again["b"] == 0
    assert again["z"] == again["local"] == 1


def test_what_cannot_be_forked_is_refused_in_words(desk: Desk) -> None:
    handle = desk.start("own_fault")
    assert handle.get(timeout=TIMEOUT) == "A"
    with pytest.raises(UsageError, match="has succeeded"):
        handle.retry()
    with pytest.raises(UsageError, match="has no step"):
        handle.fork("nothing")
    waiting = desk.start("story")
    with pytest.raises(UsageError, match="has not ended"):
        waiting.retry()
    waiting.cancel()
    with pytest.raises(RunCancelled):
        waiting.get(timeout=TIMEOUT)
