"""Workers that take nothing: drained by a person, ill, or told to stop; and what becomes of what they run."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import group
from click.testing import CliRunner

from agentq.cli.drain import drain
from agentq.cli.session import Session
from agentq.store.workers import WorkerCard
from tests.kit.projects import load_module
from tests.kit.sample import lines, wait_for_lines
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.wellbeing"
QUEUES = ["celery", "other"]
TERMS = {"AGENTQ_STOP_GRACE": "500ms", "AGENTQ_UNHEALTHY_DELAY": "500ms", "AGENTQ_LEASE": "1500ms"}


class Ward:
    """The project with its workers: `a` and `b` are alike, `t` runs threads."""

    def __init__(self, app: Any, module: Any, workers: dict[str, WorkerProcess]) -> None:
        self.app = app
        self.module = module
        self.workers = workers

    def cards(self) -> dict[str, WorkerCard]:
        """Return the cards of those that live, by their letters."""
        names = {worker.name: letter for letter, worker in self.workers.items()}
        return {names[card.label.partition("@")[0]]: card for card in self.app.store.workers()}

    def label(self, letter: str) -> str:
        return self.cards()[letter].label

    def drain(self, *words: str) -> tuple[int, str]:
        """Call the command; return its status and what it says."""
        found = CliRunner().invoke(drain, words, obj=Session(_app=self.app), standalone_mode=False)
        if found.exception is not None:
            raise found.exception
        return found.return_value, found.output

    def only(self, letter: str) -> None:
        """Have all others take nothing."""
        for other in self.cards():
            if other != letter:
                assert self.drain(self.label(other), "--wait")[0] == 0
        self.undrain(letter)

    def undrain(self, *letters: str) -> None:
        """Have these take work, and return when they do."""
        for letter in letters:
            self.drain(self.label(letter), "--undo")
        wait_until(
            lambda: all(self.cards()[letter].why is None for letter in letters), description=f"{letters} take again"
        )

    def asked(self, number: int = 6) -> set[str]:
        """Return who did some steps."""
        return set(group(self.module.who.s(each) for each in range(number)).apply_async().get(timeout=60))


def start_ward(server: PrivateServer, make: Callable[..., WorkerProcess], letters: str = "abt", **env: str) -> Ward:
    terms = {**TERMS, **env}
    workers = {
        letter: make(
            PROJECT,
            url=server.celery_url,
            queues=QUEUES,
            pool=pool,
            concurrency=2,
            env={**terms, "WELLBEING_WHO": letter},
        )
        for letter, pool in (("a", "prefork"), ("b", "prefork"), ("t", "threads"))
        if letter in letters
    }
    for worker in workers.values():
        worker.start()
    for worker in workers.values():
        worker.wait_ready()
    module = load_module(PROJECT, url=server.celery_url, **terms)
    return Ward(module.app, module, workers)


@pytest.fixture(scope="module")
def shared_ward(module_server: PrivateServer, make_module_worker: Callable[..., WorkerProcess]) -> Ward:
    return start_ward(module_server, make_module_worker)


@pytest.fixture
def ward(shared_ward: Ward) -> Ward:
    """The ward, in which everybody takes work before and after the test."""
    for mark in shared_ward.app.store.drains():
        shared_ward.app.store.undrain(mark)
    shared_ward.undrain(*shared_ward.cards())
    return shared_ward


def test_a_drained_worker_takes_nothing_until_it_is_undone(ward: Ward) -> None:
    ward.only("a")
    assert ward.asked() == {"a"}
    status, words = ward.drain(ward.label("a"), "--wait", "--json")
    assert status == 0
    assert json.loads(words) == {
        "kind": "worker",
        "name": ward.cards()["a"].id,
        "label": ward.label("a"),
        "drained": True,
        "held": 0,
    }
    ward.undrain("b")
    assert ward.asked() == {"b"}
    wait_until(lambda: ward.cards()["a"].why == "drained", description="the card says why")
    ward.workers["a"].wait_for_log("drained")
    listed = json.loads(ward.drain("--json")[1])
    assert {(each["kind"], each["label"]) for each in listed} == {
        ("worker", ward.label("a")),
        ("worker", ward.label("t")),
    }
    ward.undrain("a")
    ward.only("a")
    assert ward.asked() == {"a"}


def test_a_machine_and_a_pool_are_drained_as_a_whole(ward: Ward) -> None:
    assert ward.drain("pool:other", "--wait")[0] == 0
    waits = ward.module.who.apply_async((1,), queue="other")
    assert ward.asked() <= {"a", "b", "t"}, "the other queue is served as ever"
    assert ward.app.store.waiting("other")["normal"] == 1
    wait_until(
        lambda: all(card.report["left_out"] == ["other"] and card.why is None for card in ward.cards().values()),
        description="each leaves the other queue alone, and takes work as ever",
    )
    assert ward.drain("other", "--undo")[0] == 0
    assert waits.get(timeout=60) in "abt"
    assert ward.drain(socket.gethostname(), "--wait")[0] == 0
    told = {f"its node {socket.gethostname()} is drained"}
    wait_until(lambda: {card.why for card in ward.cards().values()} == told, description="each says why")
    held = ward.module.who.delay(1)
    assert ward.drain(f"node:{socket.gethostname()}", "--undo")[0] == 0
    assert held.get(timeout=60) in "abt"


@pytest.mark.parametrize(("letter", "step"), [("a", "sits"), ("t", "sits_async")])
def test_what_runs_longer_than_the_grace_is_handed_over(ward: Ward, tmp_path: Path, letter: str, step: str) -> None:
    """It goes on elsewhere at once, and that is no death."""
    ward.only(letter)
    path = tmp_path / "notes"
    result = getattr(ward.module, step).delay(str(path), 60)
    wait_for_lines(path, 1)
    heir = "b"
    ward.undrain(heir)
    status, words = ward.drain(ward.label(letter), "--wait", "--timeout", "200ms")
    assert (status, "1 steps still run" in words) == (3, True)
    assert ward.drain(ward.label(letter), "--grace", "100ms", "--wait")[0] == 0
    assert result.get(timeout=60) == heir
    assert lines(path) == [f"begun {letter}", f"begun {heir}"]
    record = ward.app.store.record(result.id, result.id)
    assert (record["a"], record.get("d", "0")) == ("1", "0")


def test_bad_words_are_refused_with_the_way_out(ward: Ward) -> None:
    for words, said in (
        (["nobody"], 'is called "nobody". There are: celery, '),
        (["worker:celery"], 'is called "worker:celery"'),
        ([ward.label("a"), "--undo", "--wait"], "--undo takes neither"),
        (["--undo"], "Say what"),
        (["celery", "--timeout", "1s"], "--timeout is for --wait"),
        (["celery", "--grace", "soon"], '"soon" is no duration'),
    ):
        with pytest.raises(Exception, match=said.replace("(", "\\(")) as caught:
            ward.drain(*words)
        assert type(caught.value).__name__ in ("CommandRefused", "BadParameter")
    assert ward.app.store.drains() == {}


def test_tries_that_failed_in_place_count_as_the_workers(ward: Ward, tmp_path: Path) -> None:
    ward.only("t")
    for number in range(3):
        assert ward.module.third_time.delay(str(tmp_path / str(number))).get(timeout=60) == "t"
    wait_until(lambda: ward.cards()["t"].report["failed"] == 6, description="its report counts them")


def test_a_wait_in_line_is_no_attempt_that_failed(ward: Ward, tmp_path: Path) -> None:
    ward.only("a")
    gate = tmp_path / "gate"
    results = [ward.module.alone.delay(str(gate)) for _ in range(4)]
    wait_until(
        lambda: [each.waiting for each in ward.app.store.gates() if each.name == "narrow"] == [3],
        description="three wait in line",
    )
    gate.touch()
    assert [each.get(timeout=60) for each in results] == ["a"] * 4
    assert ward.module.third_time.delay(str(tmp_path / "tries")).get(timeout=60) == "a"
    wait_until(lambda: ward.cards()["a"].report["failed"] >= 2, description="its report counts two tries that failed")
    assert ward.cards()["a"].report["failed"] == 2


def test_a_worker_whose_async_loop_is_blocked_takes_nothing_until_it_comes_round(ward: Ward, tmp_path: Path) -> None:
    ward.only("t")
    path = tmp_path / "notes"
    blocked = ward.module.blocks.delay(str(path))
    wait_for_lines(path, 1)
    ward.undrain("b")
    why = wait_until(lambda: ward.cards()["t"].why, description="the card says why")
    assert "an event loop stands still for" in why
    assert ward.asked() == {"b"}
    path.with_name("notes.go").touch()
    assert blocked.get(timeout=60) == "t"
    wait_until(lambda: ward.cards()["t"].why is None, description="it takes again by itself")
    ward.only("t")
    assert ward.asked() == {"t"}
    ward.workers["t"].wait_for_log("worker_unhealthy")


def test_in_split_mode_too_a_drained_worker_takes_nothing(
    server: PrivateServer, make_worker: Callable[..., WorkerProcess]
) -> None:
    ward = start_ward(server, make_worker, letters="b", AGENTQ_TRANSPORT="stock")
    assert ward.asked(2) == {"b"}
    assert ward.drain(ward.label("b"), "--wait")[0] == 0
    waits = [ward.module.who.delay(number) for number in range(3)]
    assert ward.cards()["b"].held == 0
    ward.undrain("b")
    assert {each.get(timeout=60) for each in waits} == {"b"}


def test_sigterm_hands_over_what_runs_longer_than_its_grace(ward: Ward, tmp_path: Path) -> None:
    path = tmp_path / "notes"
    ward.only("a")
    sits = ward.module.sits.delay(str(path), 60)
    wait_for_lines(path, 1)
    ward.undrain("t")
    ward.drain(ward.label("a"))
    wait_until(lambda: ward.cards()["a"].why, description="it has heard of it")
    sits_async = ward.module.sits_async.delay(str(path), 60)
    wait_for_lines(path, 2)
    ward.undrain("b")
    for letter in "at":
        os.kill(ward.workers[letter].pid, signal.SIGTERM)
    for result in (sits, sits_async):
        assert result.get(timeout=60) == "b"
        record = ward.app.store.record(result.id, result.id)
        assert (record["a"], record.get("d", "0")) == ("1", "0")
    assert [ward.workers[letter].wait() for letter in "at"] == [0, 0]
    ward.workers["a"].start()
    ward.workers["a"].wait_ready()


def test_a_worker_that_fails_what_others_do_not_takes_nothing_for_a_while(ward: Ward) -> None:
    """The last one: it is a minute until it tries again."""
    ward.only("b")
    assert group(ward.module.fails_in_a.s(number) for number in range(30)).apply_async().get(timeout=60)
    ward.undrain("a")
    tried: list[Any] = []

    def told() -> bool:
        """Whether it says why; of those that wait it takes as many as the others leave it."""
        tried.extend(ward.module.fails_in_a.delay(number) for number in range(50))
        for each in tried[-50:]:
            each.get(timeout=60, propagate=False)
        return "attempts of the last minute failed here, and 0 of" in (ward.cards()["a"].why or "")

    wait_until(told, description="the card says why")
    assert any(each.get(timeout=60, propagate=False) != "b" for each in tried)
    assert set(group(ward.module.fails_in_a.s(number) for number in range(10)).apply_async().get(timeout=60)) == {"b"}
