"""Calls that are like the one before: their messages, what is noticed between them, and how their results are heard."""

from __future__ import annotations

import base64
import functools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery, exceptions, signals

from agentq.core.errors import InvalidArguments
from agentq.engine import single
from agentq.store.caller import Caller
from tests.kit.projects import load_app
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until

FLOWS = "tests.projects.flows"
QUIET = 0.2


@pytest.fixture
def flows(clean_server: PrivateServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The app alone: nobody takes what it sends. However slow this machine is, a message does not grow old."""
    monkeypatch.setattr(single, "LIVES_S", 3600.0)
    monkeypatch.setattr(single, "_here", single._Here())
    app = load_app(FLOWS, url=clean_server.celery_url)
    # The first message of a process makes what the next ones go by.
    app.tasks[f"{FLOWS}.double"].delay(1)
    app.store.client.flushdb()
    yield app
    clean_server.empty()


@pytest.fixture
def add(flows: Any) -> Any:
    return flows.tasks[f"{FLOWS}.add"]


def waiting(app: Any, queue: str = "celery") -> list[dict[str, Any]]:
    """The messages of a queue, oldest first."""
    lanes = [app.store.keys.lane(queue, lane) for lane in (0, 3, 6, 9)]
    texts = [text for lane in lanes for text in app.store.client.lrange(lane, 0, -1)]
    return [json.loads(text) for text in reversed(texts)]


def without_names(app: Any, message: dict[str, Any]) -> tuple[Any, Any]:
    """A message, its record and its arguments, without what is new in each."""
    name = message["headers"]["id"]
    body = json.loads(base64.b64decode(message["body"]))
    record = {
        field: value
        for field, value in app.store.client.hgetall(app.store.keys.step(name, name)).items()
        if field != b"c"
    }
    message = {**message, "body": body[1:], "properties": {**message["properties"], "delivery_tag": "tag"}}
    return json.loads(json.dumps(message, sort_keys=True).replace(name, "ID")), (body[0], record)


@contextmanager
def looked_at() -> Iterator[list[str]]:
    """Somebody looks at each message that is published, which so goes Celery's whole way."""
    seen: list[str] = []

    def note(headers: dict[str, Any], **_: Any) -> None:
        seen.append(headers["id"])

    signals.before_task_publish.connect(note, weak=False)
    try:
        yield seen
    finally:
        signals.before_task_publish.disconnect(note)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Calls that go Celery's whole way."""
    seen: list[Any] = []
    whole = Celery.send_task

    def send_task(self: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        return whole(self, name, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Celery, "send_task", send_task)
        yield seen


def settle(app: Any, task_id: str, value: Any) -> None:
    """Store and tell a success."""
    meta = {"status": "SUCCESS", "result": value, "traceback": None, "children": [], "task_id": task_id}
    app.store.client.set(app.store.keys.result(task_id), json.dumps(meta))
    answer(app, task_id, value)


def answer(app: Any, task_id: str, value: Any, status: str = "SUCCESS") -> None:
    """Tell an outcome, as a commit does, and keep it nowhere."""
    meta = {"status": status, "result": value, "traceback": None, "children": [], "task_id": task_id}
    app.store.client.publish(app.store.keys.result(task_id), json.dumps(meta))


def heard_here(app: Any, add: Any) -> Any:
    """Return a result for which its own call listens: the calls before it were waited for one by one."""
    for number in range(single.HABIT + 3):
        result = add.delay(number, 1)
        if single._here.listens_for == result.id:
            return result
        settle(app, result.id, number)
        assert result.get(timeout=30) == number
    raise AssertionError("no call listens for its result")


@pytest.mark.parametrize("options", [{}, {"queue": "aside"}, {"priority": 3}])
def test_a_call_like_the_one_before_is_as_celery_makes_it(
    flows: Any, add: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def published() -> list[Any]:
        flows.store.client.flushdb()
        for number in range(4):
            result = add.apply_async((number,), {"b": "7"}, **options)
            assert result.id in [each["headers"]["id"] for each in waiting(flows, options.get("queue", "celery"))]
        return [without_names(flows, each) for each in waiting(flows, options.get("queue", "celery"))]

    with counted(monkeypatch) as whole:
        made = published()
    assert len(whole) == 2, "one that is sent, and one that is the model of the others"
    with looked_at() as seen:
        by_celery = published()
    assert len(seen) == 4
    assert made == by_celery


def test_runs_are_started_like_the_one_before(flows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = flows.agents["fan"]

    def started() -> list[Any]:
        flows.store.client.flushdb()
        for number in range(4):
            agent.start(number)
        return [without_names(flows, each) for each in waiting(flows)]

    with counted(monkeypatch) as whole:
        made = started()
    assert len(whole) == 2
    with looked_at():
        assert started() == made
    with counted(monkeypatch) as whole:
        assert len({agent.using(key="one").start(1).id for _ in range(3)}) == 1
    assert len(whole) == 3


def change_default_queue(add: Any, patched: pytest.MonkeyPatch) -> None:
    patched.setitem(add.app.conf, "task_default_queue", "other")


def change_limit(add: Any, patched: pytest.MonkeyPatch) -> None:
    patched.setattr(add, "soft_time_limit", 7.0)


def ignore_results(add: Any, patched: pytest.MonkeyPatch) -> None:
    patched.setattr(add, "ignore_result", True)


@pytest.mark.parametrize("change", [change_default_queue, change_limit, ignore_results])
def test_what_has_changed_is_noticed_at_once(
    flows: Any, add: Any, change: Callable[[Any, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        add.delay(1, 1)
    with monkeypatch.context() as patched:
        change(add, patched)
        with counted(monkeypatch) as whole:
            add.delay(2, 1)
        assert len(whole) == 1
    with counted(monkeypatch) as whole:
        add.delay(3, 1)
    assert len(whole) == 1, "and so is that it has changed back"


@pytest.mark.parametrize("where", ["class", "app"])
def test_who_wraps_celerys_functions_sees_each_call(
    flows: Any, add: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libraries for traces and errors do."""
    for _ in range(3):
        add.delay(1, 1)
    whole, seen = (Celery if where == "class" else flows.celery).send_task, list[Any]()

    @functools.wraps(whole)
    def traced(*args: Any, **kwargs: Any) -> Any:
        seen.append(args)
        return whole(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Celery if where == "class" else flows.celery, "send_task", traced)
        for _ in range(4):
            add.delay(2, 1)
    assert len(seen) == 4


def test_options_of_a_call_are_its_own(flows: Any, add: Any) -> None:
    for _ in range(3):
        add.delay(1, 1)
    add.using(priority="high", tenant="acme").delay(1, 1)
    add.apply_async((1, 1), countdown=60)
    add.apply_async((1, 1), headers={"trace": "1"}, task_id="named")
    assert len(waiting(flows)) == 4, "one is a tenant's, and one waits for its time"
    assert any(each["headers"].get("trace") == "1" for each in waiting(flows))
    assert any((each["headers"]["agentq"].get("cd") or {}).get("tenant") == "acme" for each in all_of(flows))


def all_of(app: Any) -> list[dict[str, Any]]:
    """The messages of all lists, those of tenants too."""
    keys = [key for key in app.store.client.scan_iter() if app.store.client.type(key) == b"list"]
    texts = [text for key in keys for text in app.store.client.lrange(key, 0, -1) if text.startswith(b'{"agentq"')]
    return [json.loads(text) for text in texts]


def test_an_argument_that_does_not_fit_is_refused(flows: Any, add: Any) -> None:
    for _ in range(3):
        add.delay(1, 1)
    with pytest.raises(InvalidArguments, match="'two'"):
        add.delay(1, "two")
    assert len(waiting(flows)) == 3


def test_large_arguments_lie_beside_the_message(flows: Any) -> None:
    broken = flows.tasks[f"{FLOWS}.broken"]
    for _ in range(3):
        broken.delay("few")
    broken.delay("x" * 200_000)
    assert max(len(json.dumps(each)) for each in waiting(flows)) < 10_000


def test_who_asks_and_waits_hears_on_the_connection_of_his_call(flows: Any, add: Any) -> None:
    result = heard_here(flows, add)
    answer(flows, result.id, 5)
    assert result.get(timeout=30) == 5, "nothing is kept that could be looked up"
    assert result.state == "SUCCESS"
    result = add.delay(1, 2)
    answer(flows, result.id, {"percent": 50}, "PROGRESS")
    answer(flows, result.id, {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}, "FAILURE")
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=30)


def test_results_that_nobody_waits_for_are_not_listened_for(flows: Any, add: Any) -> None:
    heard_here(flows, add)
    results = [add.delay(number, 1) for number in range(3)]
    assert single._here.listens_for is None
    for result in results:
        settle(flows, result.id, 9)
    assert [each.get(timeout=30) for each in results] == [9] * 3


def test_a_time_out_may_be_followed_by_another_wait(flows: Any, add: Any) -> None:
    result = heard_here(flows, add)
    with pytest.raises(exceptions.TimeoutError):
        result.get(timeout=QUIET)
    answer(flows, result.id, 6)
    assert result.get(timeout=30) == 6


@pytest.mark.parametrize("lasts", [0.0, 3600.0], ids=["time is over", "connection is cut"])
def test_what_is_not_heard_there_is_waited_for_in_celerys_way(
    flows: Any, add: Any, lasts: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentq.engine.backend.LISTENS_S", lasts)
    result = heard_here(flows, add)
    settle(flows, result.id, 7)
    if lasts:
        flows.store.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    assert result.get(timeout=30) == 7


def test_a_call_whose_connection_is_cut_is_recorded_once(flows: Any, add: Any) -> None:
    heard_here(flows, add)
    before = len(waiting(flows))
    flows.store.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    result = add.delay(1, 1)
    assert [each["headers"]["id"] for each in waiting(flows)[before:]] == [result.id]


def test_a_server_that_lets_nobody_listen_so_is_left_alone(
    flows: Any, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Caller, "open", classmethod(lambda _cls, _store: None))
    for _ in range(single.HABIT + 3):
        result = add.delay(1, 1)
        settle(flows, result.id, 1)
        assert result.get(timeout=30) == 1
    assert single._here.listens_for is None
    assert single._here._habit < 0


def test_another_thread_waits_in_its_own_way(flows: Any, add: Any) -> None:
    result, found = heard_here(flows, add), list[Any]()
    thread = threading.Thread(target=lambda: found.append(result.get(timeout=30)))
    thread.start()
    settle(flows, result.id, 8)
    thread.join()
    assert found == [8]
    assert result.get(timeout=30) == 8


def test_a_signals_handler_may_call_while_its_thread_waits(flows: Any, add: Any) -> None:
    result, called = heard_here(flows, add), list[Any]()

    def handle(*_: Any) -> None:
        called.append(add.delay(3, 3))
        answer(flows, result.id, 4)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        timer = threading.Timer(QUIET, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        assert result.get(timeout=30) == 4
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    wait_until(lambda: len(called) == 1, description="the handler to have called")


def test_a_fork_begins_anew(flows: Any, add: Any) -> None:
    heard_here(flows, add)
    before = len(waiting(flows))
    child = os.fork()
    if child == 0:
        try:
            add.delay(5, 5)
            add.delay(5, 5)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    origins = [each["headers"]["origin"] for each in waiting(flows)[before:]]
    assert len(origins) == 2
    assert all(each.startswith(f"gen{child}@") for each in origins)
    assert heard_here(flows, add)
