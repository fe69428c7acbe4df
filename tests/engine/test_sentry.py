"""What Sentry hears: one event of each failed step, loss and dead letter, whoever has turned it on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit.envelopes import Envelopes, envelopes
from tests.kit.process import clean_environment
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess
from tests.projects.watched import SECRET

PROJECT = "tests.projects.watched"
TIMEOUT = 60.0

WAYS = [
    pytest.param("celery", "prefork", id="the app, with Celery's integration"),
    pytest.param("bare", "threads", id="the app, without it", marks=pytest.mark.long),
    pytest.param("", "prefork", id="the settings", marks=pytest.mark.long),
]
"""Who turns Sentry on, in which pool."""


@dataclass(frozen=True)
class Watched:
    """A worker whose failures a Sentry hears of."""

    flows: Any
    sentry: Envelopes
    worker: WorkerProcess
    has_children: bool
    heeds_plain_tasks: bool

    def name(self, step: str) -> str:
        return f"{PROJECT}.{step}"


@pytest.fixture(scope="module", params=[pytest.param(each.values, id=each.id, marks=each.marks) for each in WAYS])
def watched(request: pytest.FixtureRequest, start_module_worker: Callable[..., WorkerProcess]) -> Iterator[Watched]:
    way, pool = request.param
    server = PrivateServer()
    server.start()
    with envelopes() as sentry:
        env = {"WATCHED": way, "WATCHED_DSN": sentry.dsn} if way else {"AGENTQ_SENTRY_DSN": sentry.dsn}
        env["AGENTQ_DEATH_LIMIT"] = "2"
        flows = load_module(PROJECT, url=server.celery_url)
        worker = start_module_worker(PROJECT, url=server.celery_url, pool=pool, env=env)
        yield Watched(flows, sentry, worker, pool == "prefork", way != "bare")
        worker.kill_tree()
    server.stop()


def fail(result: Any) -> BaseException:
    found = result.get(timeout=TIMEOUT, propagate=False)
    assert isinstance(found, BaseException)
    return found


def values(event: dict[str, Any]) -> list[tuple[str, str]]:
    return [(value["type"], value["value"]) for value in event["exception"]["values"]]


def test_a_failed_step_is_one_event(watched: Watched) -> None:
    result = watched.flows.fails.delay(SECRET)
    fail(result)
    (event,) = watched.sentry.wait_for(1, step_id=result.id)
    assert values(event) == [("ValueError", f"{len(SECRET)} characters are wrong")]
    tags = {name: event["tags"][name] for name in ("run", "step", "step_id", "attempt", "pool")}
    assert tags == {
        "run": result.id,
        "step": watched.name("fails"),
        "step_id": result.id,
        "attempt": "1",
        "pool": "celery",
    }
    assert "agent" not in event["tags"]
    # An asynchronous one behind it: what is told of the first is here when the second is.
    second = watched.flows.fails_async.delay(SECRET)
    fail(second)
    watched.sentry.wait_for(1, step_id=second.id)
    assert len(watched.sentry.of(step_id=result.id)) == 1
    assert len(watched.sentry.of(step_id=second.id)) == 1


def test_an_agents_step_names_both(watched: Watched) -> None:
    handle = watched.flows.careless.start(SECRET)
    with pytest.raises(Exception, match="characters are wrong"):
        handle.get(timeout=TIMEOUT)
    found = watched.sentry.wait_for(2, run=handle.id, agent="careless")
    assert {event["tags"]["step"] for event in found} == {watched.name("fails"), "careless"}


def test_attempts_that_are_made_again_are_told_with_the_last_one(watched: Watched, tmp_path: Path) -> None:
    well = watched.flows.recovers.delay(str(tmp_path / "tries"))
    assert well.get(timeout=TIMEOUT) == "well"
    result = watched.flows.fails_thrice.delay(SECRET)
    fail(result)
    (event,) = watched.sentry.wait_for(1, step_id=result.id)
    assert event["tags"]["attempt"] == "3"
    said = [crumb["message"] for crumb in event["breadcrumbs"]["values"] if crumb["category"] == "agentq.attempt"]
    assert said == ["attempt 1: ConnectionError", "attempt 2: ConnectionError"]
    assert watched.sentry.of(step_id=well.id) == []


def test_nothing_personal_goes_out(watched: Watched) -> None:
    for step in ("fails", "returns_wrong"):
        result = getattr(watched.flows, step).delay(SECRET)
        fail(result)
        (event,) = watched.sentry.wait_for(1, step_id=result.id)
        assert SECRET not in json.dumps(event)
    assert "InvalidResult" in [name for name, _ in values(event)]


def test_what_a_task_throws_as_expected_is_none(watched: Watched) -> None:
    result = watched.flows.expected.delay(SECRET)
    fail(result)
    behind = watched.flows.fails.delay(SECRET)
    fail(behind)
    watched.sentry.wait_for(1, step_id=behind.id)
    assert watched.sentry.of(step_id=result.id) == []


def test_plain_tasks_are_the_integrations(watched: Watched) -> None:
    before = len(watched.sentry.events)
    result = watched.flows.plain_fails.delay(SECRET)
    fail(result)
    behind = watched.flows.fails.delay(SECRET)
    fail(behind)
    watched.sentry.wait_for(1, step_id=behind.id)
    (plain,) = [event for event in watched.sentry.events[before:] if "step_id" not in (event.get("tags") or {})]
    assert values(plain) == [("RuntimeError", "a plain task")]
    mechanism = plain["exception"]["values"][-1]["mechanism"]["type"]
    assert mechanism == ("celery" if watched.heeds_plain_tasks else "logging")


def test_a_hard_limit_is_one_event(watched: Watched) -> None:
    if not watched.has_children:
        pytest.skip("the whole worker would end")
    result = watched.flows.hangs.delay(SECRET)
    fail(result)
    (event,) = watched.sentry.wait_for(1, step_id=result.id)
    assert [name for name, _ in values(event)] == ["StepTimeout"]
    assert SECRET not in json.dumps(event)


def test_a_loss_and_a_dead_letter_are_one_event_each(watched: Watched, tmp_path: Path) -> None:
    if not watched.has_children:
        pytest.skip("the whole worker would end")
    before = len(watched.sentry.events)
    result = watched.flows.kills.delay(str(tmp_path / "starts"), 2)
    found = watched.sentry.wait_for(2, step_id=result.id)
    lost, poison = found
    assert (lost["level"], poison["level"]) == ("warning", "error")
    assert (lost["tags"]["attempt"], poison["tags"]["attempt"]) == ("1", "2")
    assert "was lost with its worker" in lost["message"]
    assert "is a dead letter (poison)" in poison["message"]
    for event in found:
        assert (event["tags"]["run"], event["tags"]["pool"]) == (result.id, "celery")
        assert event["tags"]["step"] == watched.name("kills")
    watched.flows.app.dead.replay(result.id)
    assert result.get(timeout=TIMEOUT) == "alive"
    since = watched.sentry.events[before:]
    assert [event.get("message") for event in since] == [lost["message"], poison["message"]], "and no line of the log"


def test_a_sentry_that_is_away_fails_no_step(watched: Watched) -> None:
    watched.sentry.answers.clear()
    try:
        results = [watched.flows.fails.delay(SECRET) for _ in range(20)]
        for result in results:
            fail(result)
    finally:
        watched.sentry.answers.set()


def test_a_worker_tells_all_before_it_ends(watched: Watched) -> None:
    results = [watched.flows.fails.delay(SECRET) for _ in range(10)]
    for result in results:
        fail(result)
    # The last test of the module's worker.
    watched.worker.terminate(timeout=60)
    for result in results:
        assert len(watched.sentry.of(step_id=result.id)) == 1


def test_a_whole_workers_loss_is_told_by_another(
    server: PrivateServer, make_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    flows = load_module("tests.projects.stopping", url=server.celery_url)
    path = tmp_path / "hit"
    with envelopes() as sentry:
        workers = []
        for _ in range(2):
            workers.append(
                make_worker("tests.projects.stopping", url=server.celery_url, env={"AGENTQ_SENTRY_DSN": sentry.dsn})
            )
            workers[-1].start()
        for worker in workers:
            worker.wait_ready()
        result = flows.sits.delay(str(path), 0.5)
        wait_until(path.exists, description="it runs")
        label = flows.app.store.record(result.id, result.id)["wl"]
        (first,) = [worker for worker in workers if label.startswith(worker.name)]
        # Its keeper says at once that it is gone.
        os.kill(first.pid, signal.SIGKILL)
        assert result.get(timeout=TIMEOUT) == "sat"
        (event,) = sentry.wait_for(1, step_id=result.id)
        assert event["level"] == "warning"
        assert label in event["message"]
        assert flows.app.store.take_losses(10) == [], "it was taken once"


def test_celerys_tracer_is_bound_by_no_import_of_ours() -> None:
    """Else an integration that the application turns on behind its app would come too late for threads."""
    code = "import sys; from agentq import AgentQ; AgentQ('a'); print('celery.worker.consumer.consumer' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment())
    assert done.stdout == "False\n", done.stderr
