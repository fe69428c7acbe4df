"""Hedges with two real workers: a slow step gets a second one on the other, one answers, and the other is stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery import chain, chord

from agentq import RunCancelled, RunFailed
from tests.kit.envelopes import Envelopes, envelopes
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

TWICE = "tests.projects.twice"
TIMEOUT = 60.0


class Pair:
    """The project with two workers of three processes each."""

    def __init__(self, server: PrivateServer, start: Callable[..., WorkerProcess], **env: str) -> None:
        self.server = server
        self.env = env
        self.project: Any = load_module(TWICE, url=server.celery_url, **self.env)
        self.start = start
        self.workers = [self.one_more() for _ in range(2)]

    def one_more(self) -> WorkerProcess:
        return self.start(TWICE, url=self.server.celery_url, concurrency=3, env=self.env)

    def worker_of(self, pid: int) -> WorkerProcess:
        """The worker that a process belongs to."""
        above = psutil.Process(pid).ppid()
        (found,) = [worker for worker in self.workers if worker.running and worker.pid == above]
        return found

    def steps(self, root: str) -> dict[str, dict[str, str]]:
        """The records of a tree's steps."""
        store = self.project.app.store
        return {each: store.record(root, each) for each in store.member_ids(root)}

    def ended(self, root: str) -> dict[str, str]:
        """The outcomes of a tree's steps, once all have ended."""
        wait_until(
            lambda: all(record["s"] == "d" for record in self.steps(root).values()),
            description="both steps have ended",
        )
        return {name: record["o"] for name, record in self.steps(root).items() if record["k"] == "s"}


@pytest.fixture(scope="module")
def sentry() -> Iterator[Envelopes]:
    with envelopes() as found:
        yield found


@pytest.fixture(scope="module")
def pair(
    module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess], sentry: Envelopes
) -> Iterator[Pair]:
    yield Pair(module_server, start_module_worker, AGENTQ_SENTRY_DSN=sentry.dsn)
    check_leaks(module_server.client)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path)
    # Whatever still sits there need not any more.
    (tmp_path / "end").touch()


def notes(folder: str) -> list[str]:
    path = Path(folder) / "notes"
    return path.read_text().splitlines() if path.exists() else []


def test_the_second_answers_and_the_first_is_stopped(pair: Pair, folder: str) -> None:
    result = pair.project.second_wins.delay(folder)
    assert result.get(timeout=TIMEOUT) == "second"
    assert result.state == "SUCCESS"
    outcomes = pair.ended(result.id)
    assert outcomes.pop(result.id) == "REVOKED"
    assert list(outcomes.values()) == ["SUCCESS"]
    came = [line.split() for line in notes(folder)]
    first, second = (each[2] for each in came if each[0] == "came")
    assert pair.worker_of(int(first)) is not pair.worker_of(int(second))
    assert ["stopped", first] in came
    assert result.get(timeout=TIMEOUT) == "second"


def test_the_first_answers_and_the_second_is_stopped(pair: Pair, folder: str) -> None:
    result = pair.project.first_wins.delay(folder)
    assert result.get(timeout=TIMEOUT) == "first"
    outcomes = pair.ended(result.id)
    assert outcomes.pop(result.id) == "SUCCESS"
    assert list(outcomes.values()) == ["REVOKED"]
    assert notes(folder)[-1].startswith("stopped")


def test_a_function_that_hangs_is_ended_by_a_signal(pair: Pair, folder: str) -> None:
    result = pair.project.hangs.delay(folder)
    assert result.get(timeout=TIMEOUT) == "second"
    assert pair.ended(result.id)[result.id] == "REVOKED"


def test_an_agent_sees_one_answer_also_in_a_replay(pair: Pair, folder: str) -> None:
    handle = pair.project.calls.start(f"{TWICE}.second_wins", folder, 5)
    wait_until(
        lambda: handle.status() == "parked" and any(each.kind == "won" for each in handle.events(follow=False)),
        description="the agent waits for its signal",
    )
    handle.signal("go")
    assert handle.get(timeout=TIMEOUT) == "second"
    log = [json.loads(line) for line in pair.project.app.store.past_log(handle.id, handle.id)]
    (told,) = [each for each in log if each["k"] == "result"]
    first, second = handle.steps()
    assert (told["id"], told["by"]) == (first.step_id, second.step_id)
    wait_until(lambda: [step.status for step in handle.steps()] == ["cancelled", "succeeded"], description="both ended")
    events = {each.kind: each for each in handle.events()}
    assert events["hedged"].step_id == first.step_id
    assert events["hedged"].fields["hedge"] == second.step_id
    assert (events["won"].step_id, events["won"].fields["over"]) == (second.step_id, first.step_id)
    assert handle.usage().tokens_in == 10, "what the loser has used is charged"


def test_a_retry_and_a_fork_of_a_run_with_a_hedge(pair: Pair, folder: str) -> None:
    handle = pair.project.hedges_then_breaks.start(folder)
    with pytest.raises(RunFailed):
        handle.get(timeout=TIMEOUT)
    (Path(folder) / "mended").touch()
    again = handle.retry()
    assert again.get(timeout=TIMEOUT) == ["second", "whole"]
    assert [step.status for step in again.steps() if step.name.endswith("second_wins")] == ["succeeded"]
    assert sum(line.startswith("came") for line in notes(folder)) == 2, "what the hedge had answered is a checkpoint"
    hedged = next(step for step in handle.steps() if step.name.endswith("second_wins"))
    anew = handle.fork(hedged.step_id)
    assert anew.get(timeout=TIMEOUT) == ["second", "whole"]
    assert sum(line.startswith("came") for line in notes(folder)) == 4, "it is done anew, and hedged anew"


def test_it_is_asked_for_by_a_call_alone(pair: Pair, folder: str) -> None:
    assert pair.project.calls_using.start(folder).get(timeout=TIMEOUT) == "second"


def test_members_of_a_fan_out_have_their_own(pair: Pair, tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in "ab"]
    for each in folders:
        Path(each).mkdir()
    handle = pair.project.calls_all.start(folders)
    assert handle.get(timeout=TIMEOUT) == ["second", "second"]
    assert len(handle.steps()) == 4


def test_a_failure_is_no_answer_while_the_other_runs(pair: Pair, folder: str, sentry: Envelopes) -> None:
    result = pair.project.first_fails.delay(folder)
    wait_until(lambda: pair.steps(result.id)[result.id].get("o") == "FAILURE", description="the first has failed")
    assert result.state == "PENDING"
    (Path(folder) / "go").touch()
    assert result.get(timeout=TIMEOUT) == "second"
    assert sorted(pair.ended(result.id).values()) == ["FAILURE", "SUCCESS"]
    both = pair.project.both_fail.delay(folder)
    with pytest.raises(ConnectionError, match="the first"):
        both.get(timeout=TIMEOUT)
    sentry.wait_for(1, step_id=both.id)
    assert len(sentry.of(run=both.id)) == 1
    assert sentry.of(run=result.id) == [], "what its hedge could still do had not failed"


def test_a_chain_and_a_chord_go_on_once(pair: Pair, tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in "abc"]
    for each in folders:
        Path(each).mkdir()
    path = str(tmp_path / "behind")
    project = pair.project
    assert chain(project.second_wins.s(folders[0]), project.shouts.s(path)).delay().get(timeout=TIMEOUT) == "SECOND"
    body = chord([project.second_wins.s(each) for each in folders[1:]], project.counts.s(path)).delay()
    assert body.get(timeout=TIMEOUT) == 2
    assert Path(path).read_text().splitlines() == ["second", "counted"]


def test_a_cancelled_run_stops_both(pair: Pair, folder: str) -> None:
    handle = pair.project.calls_once.start(f"{TWICE}.both_sit", folder)
    wait_until(lambda: sum(line.startswith("came") for line in notes(folder)) == 2, description="both sit there")
    handle.cancel("enough")
    with pytest.raises(RunCancelled):
        handle.get(timeout=TIMEOUT)
    wait_until(lambda: [step.status for step in handle.steps()] == ["cancelled"] * 2, description="both are stopped")
    assert sum(line.startswith("stopped") for line in notes(folder)) == 2


def test_a_quantile_is_learned(pair: Pair, folder: str) -> None:
    results = [pair.project.measured.delay(number, folder) for number in range(20)]
    assert [result.get(timeout=TIMEOUT) for result in results] == list(range(20))
    slow = pair.project.measured.delay(100, folder)
    assert slow.get(timeout=TIMEOUT) == 100
    assert len(pair.ended(slow.id)) == 2


def test_the_worker_of_the_first_dies(pair: Pair, folder: str) -> None:
    result = pair.project.both_sit.delay(folder)
    wait_until(lambda: len(notes(folder)) == 2, description="both sit there")
    held = pair.steps(result.id)[result.id]["w"]
    label = next(card.label for card in pair.project.app.store.workers() if card.id == held)
    victim = next(worker for worker in pair.workers if worker.name in label)
    victim.kill_tree()
    (Path(folder) / "end").touch()
    assert result.get(timeout=TIMEOUT) == "end"
    pair.workers = [worker for worker in pair.workers if worker is not victim]
    pair.workers.append(pair.one_more())
    assert set(pair.ended(result.id).values()) <= {"SUCCESS", "REVOKED"}


@pytest.mark.long
@pytest.mark.timeout(180)
def test_beside_another_broker(server: PrivateServer, start_worker: Callable[..., WorkerProcess], folder: str) -> None:
    stock = Pair(server, start_worker, AGENTQ_TRANSPORT="stock")
    result = stock.project.second_wins.delay(folder)
    assert result.get(timeout=TIMEOUT) == "second"
    assert stock.ended(result.id)[result.id] == "REVOKED"
