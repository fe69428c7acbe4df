"""Going on, by real workers: many short steps, and what becomes of those that are not, that fail, or that kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import group

from agentq.core.errors import StepFailed
from agentq.engine import single
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.short"
TIMEOUT = 60.0
STEPS = 60


@pytest.fixture(scope="module", params=["prefork", "threads"])
def project(
    request: pytest.FixtureRequest, start_module_worker: Callable[..., WorkerProcess]
) -> Iterator[tuple[str, Any]]:
    """A worker of two slots, and its project."""
    server = PrivateServer()
    server.start()
    start_module_worker(PROJECT, url=server.celery_url, pool=request.param)
    found = load_module(PROJECT, url=server.celery_url)
    # A step is known to be short once it has run in a child.
    assert group(found.double.s(number) for number in range(STEPS)).apply_async().get(timeout=TIMEOUT)
    yield request.param, found
    check_leaks(server.client)
    server.stop()


def gone_on(project: Any) -> int:
    """Return how often a seat has gone on, as far as the worker's card tells: once for each that ever did."""
    store = project.app.store
    (worker,) = store.client.zrange(store.keys.of("workers"), 0, -1)
    card = store.client.hgetall(store.keys.of("worker", worker.decode()))
    return sum(name.startswith(b"on:") for name in card)


def gone_on_since(project: Any) -> Callable[[], int]:
    """Return what tells how many seats have gone on from now on."""
    store = project.app.store
    (worker,) = store.client.zrange(store.keys.of("workers"), 0, -1)
    card = store.keys.of("worker", worker.decode())
    for name in store.client.hkeys(card):
        if name.startswith(b"on:"):
            store.client.hdel(card, name)
    return lambda: gone_on(project)


def attempts(project: Any, ids: list[str]) -> list[str]:
    return [project.app.store.record(each, each)["a"] for each in ids]


def test_each_runs_once(project: tuple[str, Any]) -> None:
    _, found = project
    sent = group(found.double.s(number) for number in range(STEPS)).apply_async()
    assert sent.get(timeout=TIMEOUT) == [2 * number for number in range(STEPS)]
    assert attempts(found, [each.id for each in sent.results]) == ["1"] * STEPS
    assert gone_on(found) > 0


def test_a_caller_who_waits_for_each_gets_each(project: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls are made from one message, its results come on the connection of its call, its steps follow at once."""
    monkeypatch.setattr(single, "LIVES_S", 3600.0)
    _, found = project
    sent, heard = [], 0
    for number in range(STEPS):
        sent.append(found.double.delay(number))
        heard += single._here.listens_for == sent[-1].id
        assert sent[-1].get(timeout=TIMEOUT) == 2 * number
    assert attempts(found, [each.id for each in sent]) == ["1"] * STEPS
    assert heard > 0


def test_failures_among_them_are_their_own(project: tuple[str, Any]) -> None:
    _, found = project
    sent = [found.fails.delay(number) for number in range(STEPS)]
    for number, each in enumerate(sent):
        if number % 7 == 3:
            with pytest.raises((ValueError, StepFailed), match="unlucky"):
                each.get(timeout=TIMEOUT)
        else:
            assert each.get(timeout=TIMEOUT) == number


def test_one_that_turns_out_long_holds_up_no_other(project: tuple[str, Any], tmp_path: Path) -> None:
    """The other slot does all that waits."""
    _, found = project
    gate = tmp_path / "gate"
    naps = [found.nap.delay() for _ in range(STEPS // 2)]
    long = found.nap.delay(str(gate))
    naps += [found.nap.delay() for _ in range(STEPS // 2)]
    for each in naps:
        each.get(timeout=TIMEOUT)
    gate.touch()
    assert long.get(timeout=TIMEOUT) == str(gate)


def test_a_child_that_dies_takes_only_the_step_that_it_ran(project: tuple[str, Any], tmp_path: Path) -> None:
    pool, found = project
    if pool != "prefork":
        pytest.skip("a thread that kills, kills the worker")
    marks = str(tmp_path / "killed")
    sent = [found.fragile.delay(number, marks if number == STEPS // 2 else "") for number in range(STEPS)]
    assert [each.get(timeout=TIMEOUT) for each in sent] == list(range(STEPS))
    starts = attempts(found, [each.id for each in sent])
    assert starts[STEPS // 2] == "2"
    assert sorted(starts) == ["1"] * (STEPS - 1) + ["2"], "bystanders are not counted"


def test_the_turns_of_short_agents_follow_one_another(project: tuple[str, Any]) -> None:
    _, found = project
    since = gone_on_since(found)

    def have_gone_on() -> bool:
        handles = [found.brief.start(number) for number in range(STEPS)]
        assert [handle.get(timeout=TIMEOUT) for handle in handles] == [2 * number for number in range(STEPS)]
        assert attempts(found, [handle.id for handle in handles]) == ["1"] * STEPS
        return since() > 0

    # A machine that stands still makes them long, and then none follows.
    wait_until(have_gone_on, description="a turn that followed another one", timeout=TIMEOUT)


def test_a_turn_that_asks_for_a_step_is_followed_by_none(project: tuple[str, Any]) -> None:
    """Nor does it follow: it may wait, and the main process has to know of it."""
    _, found = project
    handles = [found.brief_then_step.start(number) for number in range(STEPS)]
    assert [handle.get(timeout=TIMEOUT) for handle in handles] == [4 * number for number in range(STEPS)]


def test_a_child_that_dies_in_a_turn_that_followed_takes_only_that(project: tuple[str, Any], tmp_path: Path) -> None:
    pool, found = project
    if pool != "prefork":
        pytest.skip("a thread that kills, kills the worker")
    marks = str(tmp_path / "killed_turn")
    handles = [found.brief.start(number, marks if number == STEPS // 2 else "") for number in range(STEPS)]
    assert [handle.get(timeout=TIMEOUT) for handle in handles] == [2 * number for number in range(STEPS)]
    starts = attempts(found, [handle.id for handle in handles])
    assert starts[STEPS // 2] == "2"
    assert sorted(starts) == ["1"] * (STEPS - 1) + ["2"], "bystanders are not counted"


def test_what_a_worker_has_loaded_is_not_searched_for_garbage(project: tuple[str, Any]) -> None:
    """Its children share it as long as no search writes to it; a worker of threads may be a guest in its process."""
    pool, found = project
    left_out = found.left_out.delay().get(timeout=TIMEOUT)
    assert left_out > 10_000 if pool == "prefork" else left_out == 0
