"""Tasks that are not agentq's keep Celery's semantics on a worker of ours; control and inspection go on."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import redis.sentinel
from celery import chain, group, states, uuid

from tests.kit.sample import TIMEOUT, Library
from tests.kit.waiting import wait_until


def test_a_plain_task_runs(library: Library) -> None:
    add = library.app.tasks["plain.add"]
    assert not hasattr(add, "agentq")
    assert add.delay(1, 2).get(timeout=TIMEOUT) == 3
    assert group(add.s(n, n) for n in range(5)).apply_async().get(timeout=TIMEOUT) == [0, 2, 4, 6, 8]


def test_a_plain_task_fails_as_ever(library: Library) -> None:
    with pytest.raises(ValueError, match="as ever"):
        library.app.tasks["plain.fails"].delay("as ever").get(timeout=TIMEOUT)


def test_a_success_is_stored_after_the_server_was_away_for_a_moment(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery's own backend looks once at what is stored before it writes: a failover makes failures of successes."""
    backend = library.app.backend
    looks = iter([redis.ConnectionError("away"), redis.sentinel.MasterNotFoundError("none yet")])
    ask = backend.get

    def look(key: Any) -> Any:
        for error in looks:
            raise error
        return ask(key)

    monkeypatch.setattr(backend, "get", look)
    result = library.app.AsyncResult(uuid())
    backend.store_result(result.id, 6, states.SUCCESS)
    assert next(looks, None) is None
    backend.store_result(result.id, {"pid": 1}, states.STARTED)
    assert result.get(timeout=TIMEOUT) == 6, "a success is the last word"


def test_plain_tasks_and_steps_share_a_chain(library: Library) -> None:
    add, double = library.app.tasks["plain.add"], library.task("double")
    assert chain(add.s(1, 2), double.s(), add.s(4)).apply_async().get(timeout=TIMEOUT) == 10


def test_a_plain_chord_releases(library: Library) -> None:
    add, total = library.app.tasks["plain.add"], library.task("total")
    assert (group(add.s(n, 1) for n in range(4)) | total.s()).apply_async().get(timeout=TIMEOUT) == 10


def test_plain_messages_are_not_left_in_custody(library: Library) -> None:
    assert library.app.tasks["plain.add"].delay(1, 2).get(timeout=TIMEOUT) == 3

    def held() -> list[bytes]:
        return list(library.server.client.scan_iter(match="*:held:*"))

    wait_until(lambda: not held(), description="the worker holds nothing after its last acknowledgement")


def test_the_worker_answers_remote_control(library: Library) -> None:
    name = f"{library.worker.name}@{socket.gethostname()}"
    inspect = library.app.control.inspect(destination=[name], timeout=TIMEOUT)
    assert inspect.ping() == {name: {"ok": "pong"}}
    registered = inspect.registered()[name]
    assert "library.add" in registered
    assert "library.fan" in registered
    assert inspect.stats()[name]["pool"]["max-concurrency"] == 2
    # The main process hears a moment later than the caller that a step has ended.
    wait_until(lambda: inspect.active() == {name: []}, description="nothing runs")
    wait_until(lambda: inspect.reserved() == {name: []}, description="nothing is in its hands")


def test_the_pool_grows_and_shrinks(library: Library) -> None:
    name = f"{library.worker.name}@{socket.gethostname()}"
    inspect = library.app.control.inspect(destination=[name], timeout=TIMEOUT)

    def size() -> int:
        return len(inspect.stats()[name]["pool"]["processes"])

    library.app.control.pool_grow(1, destination=[name])
    wait_until(lambda: size() == 3, description="the pool has grown to three")
    library.app.control.pool_shrink(1, destination=[name])
    wait_until(lambda: size() == 2, description="the pool has shrunk to two")
    assert library.task("double").delay(2).get(timeout=TIMEOUT) == 4


def test_a_queue_is_added_and_cancelled_by_remote_control(library: Library) -> None:
    name = f"{library.worker.name}@{socket.gethostname()}"
    control, client = library.app.control, library.server.client
    control.add_consumer("extra", destination=[name], reply=True, timeout=TIMEOUT)
    result = library.task("double").apply_async((3,), queue="extra")
    assert result.get(timeout=TIMEOUT) == 6
    plain = library.app.tasks["plain.add"].apply_async((1, 2), queue="extra")
    assert plain.get(timeout=TIMEOUT) == 3
    control.cancel_consumer("extra", destination=[name], reply=True, timeout=TIMEOUT)
    sent = []

    def is_left() -> bool:
        sent.append(library.task("double").apply_async((4,), queue="extra"))
        assert library.task("double").delay(1).get(timeout=TIMEOUT) == 2
        return sum(client.llen(key) for key in client.scan_iter(match="extra*")) == 1

    # The order is obeyed a moment after its reply, and a slot may wait for its next step just then.
    wait_until(is_left, description="a step in the queue stays there")
    control.add_consumer("extra", destination=[name], reply=True, timeout=TIMEOUT)
    assert [each.get(timeout=TIMEOUT) for each in sent] == [8] * len(sent)
    control.cancel_consumer("extra", destination=[name], reply=True, timeout=TIMEOUT)


def test_a_purge_deletes_plain_messages_and_leaves_steps(library: Library) -> None:
    """A step without its message would wait for ever, and its run with it."""
    app, client = library.app, library.server.client
    step = library.task("double").apply_async((4,), queue="purged")
    chained = (library.task("double").s(1) | library.task("double").s()).set(queue="purged").apply_async()
    for number in range(3):
        app.tasks["plain.add"].apply_async((1, number), queue="purged")
    with app.connection_for_write() as connection:
        assert connection.default_channel.queue_purge("purged") == 3
    assert sum(client.llen(key) for key in client.scan_iter(match="purged*")) == 2
    name = f"{library.worker.name}@{socket.gethostname()}"
    app.control.add_consumer("purged", destination=[name], reply=True, timeout=TIMEOUT)
    assert step.get(timeout=TIMEOUT) == 8
    assert chained.get(timeout=TIMEOUT) == 4
    app.control.cancel_consumer("purged", destination=[name], reply=True, timeout=TIMEOUT)


def test_existing_queues_of_kombu_are_read(library: Library) -> None:
    """A stock producer's messages, without any header of ours, are taken from kombu's own lists."""
    result = library.app.send_task("plain.add", (2, 3))
    assert result.get(timeout=TIMEOUT) == 5
