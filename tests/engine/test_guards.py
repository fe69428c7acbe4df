"""Breakers, limits and budgets with real workers: what they hold back, in which order, and at which cost."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentq.cli.root import execute
from agentq.core.errors import RunCancelled, RunFailed
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

GUARDED = "tests.projects.guarded"
TIMEOUT = 60.0


@pytest.fixture(scope="module")
def project(
    module_server: PrivateServer,
    start_module_worker: Callable[..., WorkerProcess],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Any]:
    prices = tmp_path_factory.mktemp("prices") / "models.toml"
    prices.write_text('[models.priced]\nusd_per_million_in = "1.0"\nusd_per_million_out = 2\n')
    env = {"AGENTQ_MODELS_FILE": str(prices)}
    found = load_module(GUARDED, url=module_server.celery_url, **env)
    # Eight processes that race.
    start_module_worker(GUARDED, url=module_server.celery_url, concurrency=8, env=env)
    yield found
    wait_until(
        lambda: all(each.in_flight == 0 and each.waiting == 0 for each in found.app.store.gates()),
        description="no place is held any more",
    )
    check_leaks(module_server.client)


def most_at_once(lines: list[str]) -> int:
    running, most = 0, 0
    for line in lines:
        running += 1 if line[0] == "+" else -1
        most = max(most, running)
    return most


def read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def gate(project: Any, name: str) -> Any:
    (found,) = [each for each in project.app.store.gates() if each.name == name]
    return found


def test_a_limit_holds_for_each_key(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "paid"
    results = [project.pay.delay(account, str(path)) for _ in range(8) for account in ("a", "b")]
    assert Counter(result.get(timeout=TIMEOUT) for result in results) == {"a": 8, "b": 8}
    for account in ("a", "b"):
        lines = [line for line in read(path) if line[1:] == account]
        assert most_at_once(lines) == 2


def test_a_limit_holds_for_each_tenant(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "served"
    calls = [project.served.using(tenant=whose).s(str(path), whose) for _ in range(4) for whose in ("acme", "other")]
    results = [call.apply_async() for call in calls]
    assert Counter(result.get(timeout=TIMEOUT) for result in results) == {"acme": 4, "other": 4}
    for whose in ("acme", "other"):
        assert most_at_once([line for line in read(path) if line[1:] == whose]) == 1
    assert {"tenant:acme", "tenant:other"} <= {each.name for each in project.app.store.gates()}


def test_a_step_with_one_place_runs_alone_and_in_order(project: Any, tmp_path: Path) -> None:
    path = tmp_path / "alone"
    results = [project.alone.delay(str(path), str(number)) for number in range(12)]
    assert [result.get(timeout=TIMEOUT) for result in results] == [str(number) for number in range(12)]
    assert most_at_once(read(path)) == 1


def test_a_dead_holder_lets_the_next_one_go(project: Any, module_server: PrivateServer, tmp_path: Path) -> None:
    path, gates = tmp_path / "pids", [tmp_path / "never", tmp_path / "open"]
    first = project.until.delay(str(path), str(gates[0]))
    wait_until(lambda: len(read(path)) == 1, description="the first one runs")
    second = project.until.delay(str(path), str(gates[1]))
    wait_until(lambda: gate(project, "gated").waiting == 1, description="the second one waits")
    os.kill(int(read(path)[0]), signal.SIGKILL)
    wait_until(lambda: len(read(path)) >= 2, description="another one runs")
    for each in gates:
        each.touch()
    assert [result.get(timeout=TIMEOUT) for result in (first, second)] == ["through", "through"]


def test_a_breaker_keeps_calls_away_and_lets_probes_go(project: Any, tmp_path: Path) -> None:
    path, health = tmp_path / "calls", tmp_path / "well"
    failed = [project.call.delay("x", str(path), str(health)) for _ in range(4)]
    for result in failed:
        assert isinstance(result.get(timeout=TIMEOUT, propagate=False), ConnectionError)
    assert gate(project, "service:x").state == "open"
    # Another name is another breaker.
    health.touch()
    assert project.call.delay("y", str(path), str(health)).get(timeout=TIMEOUT) == "y"
    waiting = [project.call.delay("x", str(path), str(health)) for _ in range(20)]
    assert [result.get(timeout=TIMEOUT) for result in waiting] == ["x"] * 20
    assert gate(project, "service:x").state == "closed"
    record = project.app.store.record(waiting[-1].id, waiting[-1].id)
    assert record["a"] == "1", "waiting is no attempt"


def test_a_fallback_asks_its_own_guards(project: Any, tmp_path: Path) -> None:
    path, gate = tmp_path / "calls", tmp_path / "well"
    gate.touch()
    answers = [project.spared.delay("a", str(path), str(gate)) for _ in range(3)]
    assert [result.get(timeout=TIMEOUT) for result in answers] == ["spare"] * 3
    assert most_at_once(read(path)) == 1, "its limit holds for it in another's place too"
    # With something behind it, none waits for its place.
    answers = [project.spared_twice.delay("a", str(path), str(gate)) for _ in range(4)]
    assert {result.get(timeout=TIMEOUT) for result in answers} <= {"spare", "last"}
    gate.unlink()
    for _ in range(2):
        assert project.spared_twice.delay("b", str(path), str(gate)).get(timeout=TIMEOUT) == "last"
    (breaker,) = [each for each in project.app.store.gates("breaker") if each.name == "spare:b"]
    assert (breaker.state, breaker.trips) == ("open", 1), "its breaker hears of its failures"
    calls = len(read(path))
    assert project.spared_twice.delay("b", str(path), str(gate)).get(timeout=TIMEOUT) == "last"
    assert len(read(path)) == calls, "and keeps it away"


def test_a_step_that_is_kept_away_and_finds_no_room_for_its_fallback_uses_up_no_attempt(
    project: Any, tmp_path: Path
) -> None:
    path, way = tmp_path / "calls", tmp_path / "through"
    first = project.reserved.delay(str(path), str(way))
    wait_until(lambda: "reserve" in read(path), description="the breaker is open, and its fallback's only place taken")
    calls = read(path)
    second = project.reserved.delay(str(path), str(way))

    def record() -> Any:
        return project.app.store.record(second.id, second.id) or {}

    wait_until(lambda: int(record().get("g", 0)) >= 3, description="it has found no room twice")
    assert read(path) == calls, "nothing was called"
    way.touch()
    assert [result.get(timeout=TIMEOUT) for result in (first, second)] == ["reserve"] * 2
    assert record()["a"] == "1"
    (started,) = read(path)[len(calls) :]
    assert started == "reserve"


def test_a_step_whose_last_fallback_is_kept_away_goes_on_when_the_breaker_closes(project: Any, tmp_path: Path) -> None:
    path, gate = tmp_path / "calls", tmp_path / "well"
    gate.touch()
    assert project.spared.delay("c", str(path), str(gate)).get(timeout=TIMEOUT) == "spare"
    assert project.app.store.trip_breaker("spare:c", span_ms=2_000)
    assert project.spared.delay("c", str(path), str(gate)).get(timeout=TIMEOUT) == "spare"


def test_slow_calls_trip_it_and_the_fallback_answers_meanwhile(project: Any) -> None:
    answers = [project.slow.delay(0.05).get(timeout=TIMEOUT) for _ in range(2)]
    assert answers == ["itself", "itself"]
    assert project.slow.delay(0.0).get(timeout=TIMEOUT) == "fallback"
    assert project.app.store.reset_breaker("slow")
    assert project.slow.delay(0.0).get(timeout=TIMEOUT) == "itself"


def test_a_rate_is_settled_with_what_was_used(project: Any) -> None:
    results = [project.generate.delay("m", 10) for _ in range(30)]
    assert sum(result.get(timeout=TIMEOUT) for result in results) == 300
    found = gate(project, "model:m")
    assert (found.requests, found.tokens, found.in_flight) == (30, 300, 0)


def test_a_rate_and_a_limit_of_one_name_count_both(project: Any) -> None:
    assert project.limited_twice.delay(1).get(timeout=TIMEOUT) == 1
    found = [each for each in project.app.store.gates() if each.name == "twice"]
    assert sorted((each.slots, each.requests_limit) for each in found) == [(4, None), (9, 1000)]


# -- budgets


@pytest.mark.parametrize("agent", ["runaway", "dish"])
def test_a_runaway_stops_at_its_budget(project: Any, tmp_path: Path, agent: str) -> None:
    path = tmp_path / "lives"
    handle = getattr(project, agent).start(str(path))
    store = project.app.store
    wait_until(
        lambda: store.tree(handle.id).get("n_steps") == 100, description="the budget is used up", timeout=TIMEOUT
    )
    if agent == "dish":
        wait_until(lambda: len(read(path)) == 100, description="a hundred ran", timeout=TIMEOUT)
        handle.signal("enough")
    handle.get(timeout=TIMEOUT)
    wait_until(lambda: store.tree(handle.id)["live"] == 0, description="all have ended", timeout=TIMEOUT)
    ran = [each for each in store.records(handle.id, store.member_ids(handle.id)) if each["o"] == "SUCCESS"]
    assert len(ran) <= 100 + 1, "the root itself is no step"
    if agent == "dish":
        assert len(read(path)) == 100


def test_tokens_are_reserved_before_a_step(project: Any) -> None:
    assert project.frugal.start(5).get(timeout=TIMEOUT) == [0, 1, 2, "tokens", "tokens"]


def test_at_the_limit_the_cheaper_way_is_taken(project: Any) -> None:
    assert project.thrifty.start(5).get(timeout=TIMEOUT) == [0, 1, 2, -1, -1]


def test_a_person_raises_the_budget_or_does_not(project: Any) -> None:
    handle = project.asking.start(6)
    asks = project.app.asks

    def asked() -> Any:
        found = asks.list(run_id=handle.id)
        return found[0] if found else None

    first = wait_until(asked, description="a person is asked", timeout=TIMEOUT)
    assert "300 of 300 tokens" in first.question
    asks.answer(first.ask_id, 500)
    second = wait_until(asked, description="a person is asked again", timeout=TIMEOUT)
    assert second.ask_id != first.ask_id
    asks.answer(second.ask_id, 0)
    assert handle.get(timeout=TIMEOUT) == [0, 1, 2, 3, 4, "tokens"]


@pytest.mark.parametrize("end", ["raised", "cancelled"])
def test_a_sub_agent_waits_for_a_person_too(project: Any, end: str) -> None:
    handle = project.patient.start()
    (ask,) = wait_until(lambda: project.app.asks.list(run_id=handle.id), description="a person is asked")
    if end == "raised":
        project.app.asks.answer(ask.ask_id, 2)
        assert handle.get(timeout=TIMEOUT) == [1, 1]
    else:
        handle.cancel()
        with pytest.raises(RunCancelled):
            handle.get(timeout=TIMEOUT)
    store = project.app.store
    wait_until(lambda: store.tree(handle.id)["live"] == 0, description="all have ended")
    wait_until(lambda: not project.app.asks.list(run_id=handle.id), description="nobody is asked any more")


def test_a_tenants_day_is_one_account(project: Any) -> None:
    assert project.rented.using(tenant="acme").start(1).get(timeout=TIMEOUT) == [0]
    assert project.rented.using(tenant="acme").start(1).get(timeout=TIMEOUT) == ["tokens"]
    assert project.rented.using(tenant="other").start(1).get(timeout=TIMEOUT) == [0]


def test_an_agents_day_is_one_account(project: Any) -> None:
    assert project.shared.using(tenant="acme").start(1).get(timeout=TIMEOUT) == [0]
    assert project.shared.using(tenant="other").start(1).get(timeout=TIMEOUT) == ["tokens"]


def let_hours_pass(project: Any, handle: Any) -> None:
    """Have a run that waits for its word be two hours old."""
    store = project.app.store
    wait_until(lambda: handle.status() == "parked", description="it waits for its word")
    store.client.hincrby(store.keys.tree(handle.root), "born", -2 * 3600 * 1000)
    handle.signal("go")


def test_a_runs_time_is_a_budget(project: Any) -> None:
    handle = project.hurried.start()
    let_hours_pass(project, handle)
    with pytest.raises(RunFailed, match="The budget's wall is reached"):
        handle.get(timeout=TIMEOUT)
    assert len(handle.steps()) == 1


def test_a_person_gives_a_run_more_time(project: Any) -> None:
    handle = project.prolonged.start()
    let_hours_pass(project, handle)
    (ask,) = wait_until(lambda: project.app.asks.list(run_id=handle.id), description="a person is asked")
    assert "in seconds" in ask.question
    project.app.asks.answer(ask.ask_id, 3 * 3600)
    assert handle.get(timeout=TIMEOUT) == [1, 2]


def test_a_sub_agents_budget_is_its_own_and_its_parents(project: Any) -> None:
    handle = project.above.start(3)
    assert handle.get(timeout=TIMEOUT) == [[0, 1, "tokens"], 3]
    assert project.app.store.tree(handle.id)["n_tokens"] == 300


@pytest.mark.parametrize(("kind", "words"), [("width", "width"), ("depth", "depth"), ("storage", "storage_bytes")])
def test_other_bounds(project: Any, kind: str, words: str) -> None:
    assert words in project.bounded.start(kind).get(timeout=TIMEOUT)


def test_local_calls_spend_too_by_the_models_price(project: Any) -> None:
    handle = project.buying.start()
    assert handle.get(timeout=TIMEOUT) == [1, "usd"]
    assert project.app.store.tree(handle.id)["n_usd_micro"] == 600_000


# -- the command line


def agentq(project: Any, *words: str) -> int:
    project.app.set_current()
    return execute(["-A", f"{GUARDED}:app", *words])


def test_breakers_and_limits_at_the_command_line(
    project: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    health = tmp_path / "well"
    health.touch()
    assert project.call.delay("cli", str(tmp_path / "calls"), str(health)).get(timeout=TIMEOUT) == "cli"
    assert project.alone.delay(str(tmp_path / "alone"), "1").get(timeout=TIMEOUT) == "1"
    capsys.readouterr()
    assert agentq(project, "breakers", "trip", "service:cli", "--for", "10m", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["state"]) == ("service:cli", "open")
    assert agentq(project, "breakers", "list") == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("service:cli")]
    assert row[1] == "open,"
    assert agentq(project, "breakers", "reset", "service:cli") == 0
    assert "Breaker service:cli is closed." in capsys.readouterr().out
    assert agentq(project, "limits", "--json") == 0
    limits = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert (limits["step:tests.projects.guarded.alone"]["slots"], limits["gated"]["slots"]) == (1, 1)
    assert agentq(project, "limits") == 0
    assert "0/1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("breakers", "trip", "servise:x"), 'Did you mean "service:x"?'),
        (("breakers", "reset", "nobody"), "No step has used a breaker 'nobody' of late."),
        (("breakers", "trip", "service:x", "--for", "a while"), '"a while" is no time'),
    ],
)
def test_what_cannot_be_done_is_told(
    project: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    health = tmp_path / "well"
    health.touch()
    assert project.call.delay("x", str(tmp_path / "calls"), str(health)).get(timeout=TIMEOUT) == "x"
    assert agentq(project, *words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
