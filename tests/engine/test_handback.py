"""Handing back: what agentq held goes on in stock Celery, and what only agentq can run waits for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord

from agentq.core.errors import UsageError
from agentq.engine.handback import Handback
from agentq.engine.split.posting import Outlet
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

DURABLE, PLAIN = "tests.projects.leaving.durable", "tests.projects.leaving.plain"
TIMEOUT = 60.0


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


@pytest.fixture
def start(server: PrivateServer, notes: Path, make_worker: Callable[..., WorkerProcess]) -> Callable[..., Any]:
    """Start a worker of one of the two apps."""
    env = {"LEAVING_FILE": str(notes)}
    return lambda app, **options: make_worker(app, url=server.celery_url, env=env, **options).launch()


@pytest.fixture
def leaving(server: PrivateServer, notes: Path) -> Any:
    return load_module(DURABLE, url=server.celery_url, LEAVING_FILE=str(notes))


def hand_back(module: Any) -> Handback:
    return Handback(module.app, module.app.store, lease_s=0.2)


def lines(notes: Path) -> list[str]:
    return sorted(notes.read_text().splitlines()) if notes.exists() else []


def test_steps_and_tasks_that_wait_run_in_a_stock_worker(leaving: Any, start: Any, notes: Path) -> None:
    later = datetime.now(UTC) + timedelta(seconds=2)
    of_the_dead = [leaving.double.delay(7), leaving.plain_double.delay(8)]
    store = leaving.app.store
    store.enroll("gone", label="gone", queues=("leaving",), concurrency=2, lease_ms=60_000)
    assert len(store.take("gone", "t", slots=2, label="gone", queues=["leaving"]).taken) == 2
    large = leaving.total.delay(list(range(30_000)))
    results = [
        leaving.double.delay(1),
        leaving.plain_double.delay(2),
        leaving.double.apply_async((3,), eta=later),
        leaving.double.using(priority="low").delay(4),
        chain(leaving.double.s(5), leaving.double.s()).apply_async(),
    ]
    unknown = leaving.app.send_task("leaving.unknown", (1,))
    raws = [b"\xff\x00", b'{"agentq":"no name"}']
    store.client.lpush("leaving", *raws)
    foreseen = hand_back(leaving).preview()
    assert (foreseen.steps, foreseen.tasks, foreseen.kept) == (5, 4, {})
    # On a slow machine the time of the later one may have come.
    assert foreseen.delayed == 1 or datetime.now(UTC) >= later
    store.client.zadd(store.keys.of("workers"), {"gone": 1})
    done = hand_back(leaving).perform()
    assert (done.steps, done.tasks, done.kept) == (6, 5, {})
    assert done.delayed == 1 or datetime.now(UTC) >= later
    assert [store.client.lrem("leaving", 0, raw) for raw in raws] == [1, 1], "what cannot be read is whole"
    assert hand_back(leaving).preview().steps == 0
    start(PLAIN)
    assert [result.get(timeout=TIMEOUT) for result in [*results, *of_the_dead]] == [2, 4, 6, 8, 20, 14, 16]
    assert datetime.now(UTC) >= later
    assert large.get(timeout=TIMEOUT) == sum(range(30_000))
    assert unknown.get(timeout=TIMEOUT, propagate=False) is not None
    assert unknown.state == "FAILURE", "stock Celery knows no patience with unknown tasks"
    assert len(lines(notes)) == 9


def test_chords_go_on_where_they_stood(leaving: Any, start: Any, notes: Path) -> None:
    def begun(member: Any, body: Any, first: int) -> Any:
        others = [member.s(first + more).set(queue="other") for more in (1, 2)]
        return chord([member.s(first), *others], body.s()).apply_async()

    of_steps = begun(leaving.double, leaving.total, 10)
    of_tasks = begun(leaving.plain_double, leaving.plain_total, 20)
    worker = start(DURABLE)
    firsts = [result.parent.results[0] for result in (of_steps, of_tasks)]
    wait_until(lambda: all(first.ready() for first in firsts), description="the first members have run")
    worker.terminate()
    assert hand_back(leaving).perform().chords == 2
    start(PLAIN, queues=["leaving", "other"])
    assert (of_steps.get(timeout=TIMEOUT), of_tasks.get(timeout=TIMEOUT)) == (66, 126)
    assert len(lines(notes)) == len(set(lines(notes))) == 8


@pytest.mark.leaves(r"agentq:1:(step|log|tree|members|events|message|ask|signals)")
def test_runs_wait_until_agentq_is_there_again(leaving: Any, start: Any, notes: Path) -> None:
    queued = leaving.ask_first.start(1)
    done = hand_back(leaving).perform()
    assert (done.steps, done.tasks, done.kept) == (0, 0, {"leaving.ask_first": 1})
    assert leaving.app.store.waiting("leaving") == dict.fromkeys(leaving.app.store.waiting("leaving"), 0)
    start(DURABLE)
    question = wait_until(lambda: leaving.app.asks.list(run_id=queued.id), description="the run has asked")
    leaving.app.asks.answer(question[0].ask_id, True)
    assert queued.get(timeout=TIMEOUT) == 2


def test_nothing_is_taken_from_a_worker_that_lives(leaving: Any) -> None:
    leaving.app.store.enroll("alive", label="w@here", queues=("leaving",), concurrency=1, lease_ms=60_000)
    with pytest.raises(UsageError, match="w@here"):
        hand_back(leaving).perform()
    leaving.app.store.leave("alive")


@pytest.mark.parametrize("mode", ["split", "stock"])
def test_with_a_broker_beside_the_store_it_goes_on_there(
    mode: str,
    server: PrivateServer,
    notes: Path,
    make_worker: Callable[..., WorkerProcess],
    request: pytest.FixtureRequest,
) -> None:
    env = {"LEAVING_FILE": str(notes)}
    if mode == "split":
        env["LEAVING_BROKER"] = request.getfixturevalue("rabbitmq").url
    else:
        env["AGENTQ_TRANSPORT"] = "stock"
    leaving = load_module(DURABLE, url=server.celery_url, **env)
    app, store = leaving.app, leaving.app.store
    later = datetime.now(UTC) + timedelta(seconds=2)
    results = [
        leaving.double.delay(1),
        leaving.plain_double.delay(2),
        leaving.double.apply_async((3,), eta=later),
        leaving.double.using(priority="low").delay(4),
        chain(leaving.double.s(5), leaving.double.s()).apply_async(),
    ]
    worker = make_worker(DURABLE, url=server.celery_url, env=env, queues=["other"]).launch()
    gated = chord([leaving.double.s(10).set(queue="other"), leaving.double.s(11)], leaving.total.s()).apply_async()
    wait_until(lambda: gated.parent.results[0].ready(), description="the first member has run")
    # What its poster has told the broker of is nothing but hints.
    worker.terminate()
    if mode == "split":
        store.client.lpush("leaving", b"\xff no message")
    outlet = Outlet(app, prefix="agentq", kind="quorum")
    done = Handback(app, store, lease_s=0.2, outlet=outlet).perform()
    assert (done.steps, done.chords, done.kept) == (5, 1, {})
    make_worker(PLAIN, url=server.celery_url, env=env, queues=["leaving", "other"]).launch()
    assert [result.get(timeout=TIMEOUT) for result in results] == [2, 4, 6, 8, 20]
    assert gated.get(timeout=TIMEOUT) == 42
    assert datetime.now(UTC) >= later
    letters = app.dead.list()
    assert [app.dead.get(letter.letter_id)[1] for letter in letters] == [b"\xff no message"] * (mode == "split")
    for letter in letters:
        app.dead.drop(letter.letter_id)
