"""Celery's options of calls and tasks keep their meaning for steps."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import chain, group
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded

from agentq import AgentqError
from tests.kit.sample import TIMEOUT, Library, lines, wait_for_lines
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def routes(library: Library) -> Iterator[None]:
    """The app's own router sends one step elsewhere."""
    library.app.conf.task_routes = {"library.double": {"queue": "elsewhere"}}
    library.app.amqp.flush_routes()
    library.app.amqp.router = library.app.amqp.Router()
    yield
    library.app.conf.task_routes = None
    library.app.amqp.flush_routes()
    library.app.amqp.router = library.app.amqp.Router()
    library.server.client.delete("elsewhere", "elsewhere\x06\x166")


def test_a_soft_limit_is_raised_in_the_step(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    result = library.task("sleeps").apply_async((str(seen), 30.0), soft_time_limit=1)
    with pytest.raises(AgentqError, match="1 s"):
        result.get(timeout=TIMEOUT)
    assert lines(seen) == ["started", "told to stop"]


def test_a_hard_limit_ends_the_step_and_not_its_worker(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    result = library.task("sleeps").apply_async((str(seen), 30.0), time_limit=1)
    with pytest.raises((TimeLimitExceeded, AgentqError)):
        result.get(timeout=TIMEOUT)
    assert result.state == "FAILURE"
    assert library.task("add").delay(1, 2).get(timeout=TIMEOUT) == 3
    assert lines(seen) == ["started"], "a step that ran out of time is not run again"


@pytest.mark.parametrize("name", ["impatient", "impatient_async"])
def test_a_steps_own_timeout(library: Library, tmp_path: Path, name: str) -> None:
    seen = tmp_path / "seen"
    result = library.task(name).delay(str(seen))
    with pytest.raises((SoftTimeLimitExceeded, AgentqError)):
        result.get(timeout=TIMEOUT)
    assert result.state == "FAILURE"
    assert lines(seen) == ["started"]


def test_an_expired_step_is_revoked(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    result = library.task("noted").apply_async((str(seen), "late"), expires=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(Exception, match=r"(?i)expired|revoked"):
        result.get(timeout=TIMEOUT)
    assert result.state == "REVOKED"
    assert lines(seen) == []


def test_an_eta_is_kept(library: Library) -> None:
    when = datetime.now(UTC) + timedelta(seconds=1)
    result = library.task("add").apply_async((1, 2), eta=when)
    assert result.get(timeout=TIMEOUT) == 3
    assert datetime.now(UTC) >= when


def test_a_running_step_is_terminated(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    result = library.task("sleeps").delay(str(seen), 30.0)
    wait_for_lines(seen, 1)
    result.revoke(terminate=True)
    with pytest.raises(Exception, match=r"(?i)terminated|revoked"):
        result.get(timeout=TIMEOUT)
    assert result.state == "REVOKED"
    assert lines(seen) == ["started"]


def test_celerys_automatic_retry(library: Library, tmp_path: Path) -> None:
    assert library.task("autoretried").delay(str(tmp_path / "tries"), 2).get(timeout=TIMEOUT) == 3


def test_headers_of_the_caller_arrive(library: Library) -> None:
    request = library.task("whoami").apply_async(headers={"said": "hello"}).get(timeout=TIMEOUT)
    assert request["said"] == "hello"


def test_compressed_messages_are_read(library: Library) -> None:
    assert library.task("add").apply_async((1, 2), compression="gzip").get(timeout=TIMEOUT) == 3


def test_a_call_is_applied_in_place_on_request(library: Library) -> None:
    assert library.task("add").apply((1, 2)).get() == 3
    assert library.task("double_async").apply((2,)).get() == 4


def test_results_tell_of_their_kin(library: Library) -> None:
    add, double = library.task("add"), library.task("double")
    result = chain(add.s(1, 2), group(double.s(), add.s(5))).apply_async()
    assert result.get(timeout=TIMEOUT) == [6, 8]
    assert result.parent.get(timeout=TIMEOUT) == 3
    wait_until(lambda: result.parent.children, description="the first task names its children")


def test_results_are_forgotten(library: Library) -> None:
    result = library.task("add").delay(1, 2)
    assert result.get(timeout=TIMEOUT) == 3
    result.forget()
    assert library.app.AsyncResult(result.id).state == "PENDING"


@pytest.mark.usefixtures("routes")
def test_the_apps_own_routes_hold_where_nothing_nearer_is_said(library: Library) -> None:
    result = library.task("double").delay(2)
    waiting = [key for key in ("elsewhere", "elsewhere\x06\x166") if library.server.client.llen(key)]
    assert waiting, "the message waits where the app's router sent it"
    result.revoke()
    there = {"destination": [f"{library.worker.name}@{socket.gethostname()}"], "reply": True, "timeout": TIMEOUT}
    library.app.control.add_consumer("elsewhere", **there)
    with pytest.raises(Exception, match=r"(?i)revoked"):
        result.get(timeout=TIMEOUT)
    # The word comes from the worker's remote control: its message may still wait.
    wait_until(lambda: not any(map(library.server.client.llen, waiting)), description="the worker has taken it")
    library.app.control.cancel_consumer("elsewhere", **there)
