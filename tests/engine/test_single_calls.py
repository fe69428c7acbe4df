"""Calls that are like the one before: their messages, what is noticed between them, and how their results are heard."""

from __future__ import annotations

import base64
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery, exceptions, signals
from celery.backends.base import compress_payload

from agentq.core.errors import InvalidArguments
from agentq.engine import single
from agentq.engine.backend import Backend
from agentq.store.caller import Caller, CannotListen
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
    def refuse(_store: Any) -> None:
        raise CannotListen("not here")

    monkeypatch.setattr(Caller, "open", refuse)
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


def reads(monkeypatch: pytest.MonkeyPatch, first: Any) -> None:
    """The connection of this thread's calls reads this before what comes."""
    connection = single._here._caller._connection  # type: ignore[union-attr]
    whole, left = connection.read_response, [first]
    monkeypatch.setattr(connection, "read_response", lambda **options: left.pop() if left else whole(**options))


def test_what_redis_py_keeps_to_itself_is_not_taken_for_an_answer(
    flows: Any, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads that a server moves, and returns None."""
    result = heard_here(flows, add)
    reads(monkeypatch, None)
    answer(flows, result.id, 1)
    assert result.get(timeout=30) == 1
    reads(monkeypatch, None)
    result = add.delay(1, 2)
    assert single._here.listens_for == result.id, "its own answer was read, and not left to the next call"
    assert waiting(flows)[-1]["headers"]["id"] == result.id


def test_an_answer_to_another_call_is_not_taken_for_this_one(
    flows: Any, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard_here(flows, add).forget()
    single._here._last = None  # as if it had been waited for
    reads(monkeypatch, [[1, b"another"]])
    before = len(waiting(flows))
    result = add.delay(1, 2)
    assert [each["headers"]["id"] for each in waiting(flows)[before:]] == [result.id]
    assert single._here.listens_for is None


@pytest.mark.parametrize("moment", ["before it hears", "while it hears"])
def test_a_call_in_the_midst_of_a_wait_does_not_change_what_is_waited_for(
    flows: Any, add: Any, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler of a signal, or a ``__del__``, may make one at any time."""
    result, made = heard_here(flows, add), list[Any]()
    where, name = (Backend, "_hears") if moment == "before it hears" else (Caller, "hear")
    whole = getattr(where, name)

    def disturbed(*args: Any) -> Any:
        if not made:
            made.append(add.delay(9, 9))
            settle(flows, made[0].id, 999)
            settle(flows, result.id, 5)
        return whole(*args)

    monkeypatch.setattr(where, name, disturbed)
    assert result.get(timeout=30) == 5
    assert made[0].get(timeout=30) == 999


def test_what_is_told_of_another_result_is_not_taken_for_this_one(flows: Any, add: Any) -> None:
    result = heard_here(flows, add)
    other = {"status": "SUCCESS", "result": 999, "traceback": None, "children": [], "task_id": "another"}
    flows.store.client.publish(flows.store.keys.result(result.id), json.dumps(other))
    answer(flows, result.id, 5)
    assert result.get(timeout=30) == 5


def test_a_result_that_is_there_is_returned_however_short_the_wait(flows: Any, add: Any) -> None:
    result = heard_here(flows, add)
    with pytest.raises(exceptions.TimeoutError):
        result.get(timeout=0)
    settle(flows, result.id, 5)
    assert result.get(timeout=0) == 5


def test_a_result_whose_message_has_been_heard_is_looked_up_by_another_wait(flows: Any, add: Any) -> None:
    result = heard_here(flows, add)
    settle(flows, result.id, 5)
    assert result.get(timeout=30) == 5
    assert single._here.listens_for is None
    assert add.app.AsyncResult(result.id).get(timeout=QUIET) == 5
    # Also where it was heard and lost.
    result = add.delay(1, 2)
    settle(flows, result.id, 6)
    assert single._here.hear(result.id, 30) is not None
    assert result.get(timeout=QUIET) == 6


def test_who_wants_each_message_waits_in_celerys_way(flows: Any, add: Any) -> None:
    result, seen = heard_here(flows, add), list[Any]()
    consumer = add.app.backend.result_consumer
    subscribe = consumer._subscribe

    def told_after(**options: Any) -> None:
        subscribe(**options)
        answer(flows, result.id, 5)

    consumer._subscribe = told_after
    try:
        assert result.get(timeout=30, on_message=seen.append) == 5
    finally:
        consumer._subscribe = subscribe


def test_nothing_is_decided_about_greenlets_on_import() -> None:
    code = "import agentq, agentq.engine.single, kombu.utils.compat as c; raise SystemExit(c._environment is not None)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_greenlets_share_no_connection(flows: Any, add: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heard_here(flows, add)
    monkeypatch.setattr(single, "_detect_environment", lambda: "gevent")
    for _ in range(single.HABIT + 1):
        result = add.delay(1, 1)
        assert single._here.listens_for is None
        settle(flows, result.id, 1)
        assert result.get(timeout=30) == 1


def test_a_result_that_a_worker_has_compressed_is_read(flows: Any, add: Any) -> None:
    result = heard_here(flows, add)
    meta = {"status": "SUCCESS", "result": 5, "traceback": None, "children": [], "task_id": result.id}
    payload = compress_payload(json.dumps(meta), "gzip")
    flows.store.client.publish(flows.store.keys.result(result.id), payload)
    assert result.get(timeout=30) == 5


def test_connections_may_be_closed_while_a_result_is_waited_for(flows: Any, add: Any) -> None:
    result = heard_here(flows, add)
    settle(flows, result.id, 5)
    single._here._caller._connection.disconnect()  # type: ignore[union-attr]
    assert result.get(timeout=30) == 5
    assert heard_here(flows, add), "a connection that is lost says nothing of the next one"


def test_a_call_on_a_lost_connection_is_followed_by_others_that_listen(flows: Any, add: Any) -> None:
    heard_here(flows, add)
    single._here._last = None  # as if it had been waited for
    flows.store.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    result = add.delay(1, 1)
    assert single._here.listens_for is None
    settle(flows, result.id, 1)
    assert result.get(timeout=30) == 1
    assert heard_here(flows, add)


def test_arguments_may_be_an_iterator(flows: Any, add: Any) -> None:
    for number in range(4):
        add.apply_async(map(int, [str(number), "2"]))
    bodies = [json.loads(base64.b64decode(each["body"])) for each in waiting(flows)]
    assert [body[0] for body in bodies] == [[number, 2] for number in range(4)]


def test_who_waits_in_celerys_way_listens_nowhere_else(flows: Any, add: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a long step tells would be kept by the server for a connection on which nobody reads."""
    monkeypatch.setattr("agentq.engine.backend.LISTENS_S", 0.0)

    def listeners(result: Any) -> int:
        found: int = flows.store.client.execute_command("PUBSUB", "NUMSUB", flows.store.keys.result(result.id))[1]
        return found

    result = heard_here(flows, add)
    settle(flows, result.id, 5)
    assert result.get(timeout=30) == 5
    wait_until(lambda: listeners(result) <= 1, description="only Celery's own connection to listen")
    result = heard_here(flows, add)
    add.delay(1, 1)
    wait_until(lambda: listeners(result) == 0, description="nobody to listen, when nobody waits before the next call")


def test_a_child_does_not_use_its_parents_connection(flows: Any, add: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a fork runs nothing of Python."""
    heard_here(flows, add)
    caller = single._here._caller
    assert caller is not None
    assert caller.is_open
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert not caller.is_open
