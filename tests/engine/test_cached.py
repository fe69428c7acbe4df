"""Steps whose answers are kept, with real workers: one makes an answer, the others wait without a slot and take it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, group

from agentq.cli.root import execute
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

TWICE = "tests.projects.twice"
TIMEOUT = 60.0
SMALL = {"AGENTQ_CACHE_LIMIT": "20KiB"}


@pytest.fixture(scope="module")
def project(module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]) -> Iterator[Any]:
    found = load_module(TWICE, url=module_server.celery_url, **SMALL)
    # Several processes that race.
    start_module_worker(TWICE, url=module_server.celery_url, concurrency=4, env=SMALL)
    yield found
    look = found.app.store
    assert look.client.zcard(look.keys.of("gates")) == len(look.gates())
    check_leaks(module_server.client)


def called(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def told(project: Any, name: str) -> Any:
    (found,) = [each for each in project.app.caches.list() if each.step == f"{TWICE}.{name}"]
    return found


def test_fifty_callers_make_one_call(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "calls"
    results = [project.squares.delay(7, str(path)) for _ in range(50)]
    assert [result.get(timeout=TIMEOUT) for result in results] == [49] * 50
    assert len(called(path)) == 1
    found = told(project, "squares")
    assert (found.hits, found.runs) == (49, 1)
    assert (found.saved_tokens, str(found.saved_usd)) == (49 * 7, "12.25")


def test_who_waits_holds_no_worker(project: Any, tmp_path: Path) -> None:
    path, gate = tmp_path / "calls", tmp_path / "gate"
    results = [project.opens.delay(str(path), str(gate)) for _ in range(12)]
    # All four processes would be taken by them.
    assert project.squares.delay(2, str(tmp_path / "other")).get(timeout=TIMEOUT) == 4
    gate.touch()
    assert [result.get(timeout=TIMEOUT) for result in results] == ["open"] * 12
    assert len(called(path)) == 1


def test_a_killed_runner_frees_the_call(project: Any, tmp_path: Path) -> None:
    path, gate = tmp_path / "calls", tmp_path / "gate"
    results = [project.opens.delay(str(path), str(gate)) for _ in range(6)]
    (pid,) = wait_until(lambda: called(path), description="one of them runs")
    os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: len(called(path)) > 1, description="another one runs")
    gate.touch()
    assert [result.get(timeout=TIMEOUT) for result in results] == ["open"] * 6
    assert len(called(path)) == 2


def test_a_failing_runner_hands_the_call_to_the_next(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "calls"
    results = [project.fails_thrice.delay(str(path)) for _ in range(10)]
    outcomes = [result.get(timeout=TIMEOUT, propagate=False) for result in results]
    assert sorted(map(str, outcomes)) == ["4"] * 7 + ["call 1", "call 2", "call 3"]
    assert len(called(path)) == 4


def test_a_try_in_place_is_no_call_of_its_own(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "calls"
    results = [project.fails_once.delay(str(path)) for _ in range(8)]
    assert [result.get(timeout=TIMEOUT) for result in results] == [2] * 8
    assert len(called(path)) == 2


def test_what_answered_in_its_place_is_not_kept(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "calls"
    for number in (1, 2):
        assert project.away.delay(str(path)).get(timeout=TIMEOUT) == "from memory"
        assert len(called(path)) == number


def test_the_same_arguments_are_the_same_however_they_are_given(project: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "calls")
    names = {"a", "b", "c", "d", "e"}
    given = [
        ((names, path), {}),
        ((list(names), path), {"deep": False}),
        ((), {"path": path, "names": sorted(names)}),
    ]
    for args, kwargs in given:
        assert project.listed.apply_async(args, kwargs).get(timeout=TIMEOUT) == sorted(names)
    assert len(called(Path(path))) == 1
    project.listed.delay(names, path, deep=True).get(timeout=TIMEOUT)
    assert len(called(Path(path))) == 2


def test_no_tenant_is_told_of_another(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "calls"
    for tenant in (None, "acme", "other", "acme"):
        step = project.squares if tenant is None else project.squares.using(tenant=tenant)
        assert step.s(5, str(path)).apply_async().get(timeout=TIMEOUT) == 25
    assert len(called(path)) == 3


def test_a_large_answer_is_made_each_time(project: Any, tmp_path: Path) -> None:
    for size, expected in ((10_000, 1), (30_000, 3)):
        path = tmp_path / f"calls-{size}"
        for _ in range(3):
            assert len(project.large.delay(size, str(path)).get(timeout=TIMEOUT)) == size
        assert len(called(path)) == expected


def test_canvas_goes_on_with_what_was_kept(project: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "calls")
    for _ in range(2):
        assert chain(project.squares.s(3, path), project.squares.s(path)).delay().get(timeout=TIMEOUT) == 81
        assert group(project.squares.s(3, path) for _ in range(3)).delay().get(timeout=TIMEOUT) == [9, 9, 9]
    assert len(called(Path(path))) == 2


def test_an_agents_journal_says_so(project: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handle = project.asks_twice.start(str(tmp_path / "calls"))
    assert handle.get(timeout=TIMEOUT) == [9, 9]
    assert len(called(tmp_path / "calls")) == 1
    log = [json.loads(line) for line in project.app.store.past_log(handle.id, handle.id)]
    assert [each.get("hit") for each in log if each["k"] == "result"] == [None, 1]
    first, second = handle.steps()
    assert (first.attempts, second.attempts) == (1, 0)
    (event,) = [each for each in handle.events() if each.kind == "cached"]
    assert event.step_id == second.step_id
    assert handle.usage().tokens_in == 3, "what was kept costs nothing"
    saved = handle.saved()
    assert (saved.answers, saved.tokens, str(saved.usd)) == (1, 3, "0.25")
    assert execute(["-A", TWICE, "runs", "show", handle.id]) == 0
    assert "1 kept answer taken; that has saved 3 tokens and 0.25 USD." in capsys.readouterr().out
    assert execute(["-A", TWICE, "runs", "show", handle.id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["saved"] == {"answers": 1, "tokens": 3, "usd": "0.25"}


def test_a_fan_out_of_the_same_is_one_call(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "calls"
    assert project.asks_many.start(str(path), 120).get(timeout=TIMEOUT) == [16] * 120
    assert len(called(path)) == 1


def test_people_list_and_drop(project: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, name = tmp_path / "calls", f"{TWICE}.guarded"
    for _ in range(2):
        assert project.guarded.delay(1, str(path)).get(timeout=TIMEOUT) == 1
    assert execute(["-A", TWICE, "cache", "list"]) == 0
    assert "guarded" in capsys.readouterr().out
    assert execute(["-A", TWICE, "cache", "drop", name]) == 0
    assert project.guarded.delay(1, str(path)).get(timeout=TIMEOUT) == 1
    assert len(called(path)) == 2
    assert execute(["-A", TWICE, "cache", "list", "--json"]) == 0
    found = {each["step"]: each for each in json.loads(capsys.readouterr().out.partition("\n")[2])}
    assert (found[name]["hits"], found[name]["runs"]) == (1, 2)
    assert execute(["-A", TWICE, "cache", "drop", "nothing"]) == 2
    assert "Nothing of a step 'nothing' is cached" in capsys.readouterr().err


def test_tries_in_place_count_though_they_wait_in_line(project: Any, tmp_path: Path) -> None:
    """A line that is never empty would else give each of them its tries anew, for ever."""
    path = tmp_path / "calls"
    results = [project.fails_behind_others.delay(str(path), str(number)) for number in range(4)]
    for result in results:
        with pytest.raises(ConnectionError):
            result.get(timeout=TIMEOUT)
    assert sorted(called(path)) == sorted(2 * [str(number) for number in range(4)])
