"""The transport without a worker: what stands in the server after puts, takes, acknowledgements, closes."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery
from kombu.connection import Connection as PlainConnection
from kombu.entity import Queue
from kombu.messaging import Consumer

from agentq.engine import capture
from agentq.engine.connection import Connection
from agentq.engine.messages import HEADER, HOLDER_HEADER
from agentq.engine.transport import Transport
from agentq.store import Store
from tests.engine.transport_app import make_app
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until


@pytest.fixture
def app(server: PrivateServer) -> Iterator[Celery]:
    made = make_app(server.celery_url)
    yield made
    made.close()


@pytest.fixture
def store(server: PrivateServer) -> Iterator[Store]:
    opened = Store(server.url)
    yield opened
    opened.close()


@pytest.fixture
def connection(app: Celery) -> Iterator[Any]:
    with app.connection_for_read() as opened:
        yield opened


def send_step(app: Celery, *, queue: str = "q", task: str = "echo", **options: Any) -> str:
    step = str(uuid.uuid4())
    app.send_task(task, args=(1,), queue=queue, task_id=step, headers={HEADER: {"k": "s"}}, **options)
    return step


def held(store: Store) -> list[bytes]:
    found: list[bytes] = []
    for key in store.client.scan_iter(match=store.keys.held("*")):
        entries: Any = store.client.hvals(key)
        found += [entry.rsplit(b"\n", 1)[-1] for entry in entries]
    return found


def consume(connection: Any, queue: str = "q", **options: Any) -> tuple[Any, list[Any]]:
    messages: list[Any] = []
    channel = connection.channel()
    consumer = Consumer(
        channel, [Queue(queue)], on_message=messages.append, accept=["json"], auto_declare=False, **options
    )
    consumer.consume()
    return channel, messages


def drain_until(connection: Any, is_done: Callable[[], bool]) -> None:
    """Drain until it is done, and for a moment more: what else may come."""

    def drained() -> bool:
        with suppress(socket.timeout):
            connection.drain_events(timeout=0.2)
        return is_done()

    wait_until(drained, description="all that came was read")
    drained()


@pytest.mark.leaves(r".*")
class TestDurable:
    def test_a_step_is_taken_into_custody_and_carries_its_holder(
        self, app: Celery, connection: Any, store: Store
    ) -> None:
        step = send_step(app)
        channel, messages = consume(connection)
        connection.drain_events(timeout=30)

        (message,) = messages
        holder = message.headers[HOLDER_HEADER]
        assert holder["id"] == step
        assert holder["root"] == step
        assert holder["worker"] == channel.taker.id
        assert holder["take"] == int(message.delivery_tag)
        assert holder["generation"] == 1
        assert holder["cancelled"] is False
        assert len(held(store)) == 1
        assert store.client.llen("q") == 0

    def test_acknowledging_a_step_leaves_it_in_custody(self, app: Celery, connection: Any, store: Store) -> None:
        send_step(app)
        _, messages = consume(connection)
        connection.drain_events(timeout=30)
        messages[0].ack()
        assert len(held(store)) == 1

    def test_a_requeued_step_is_taken_again_with_the_next_generation(
        self, app: Celery, connection: Any, store: Store
    ) -> None:
        send_step(app)
        _, messages = consume(connection)
        connection.drain_events(timeout=30)
        messages[0].requeue()
        connection.drain_events(timeout=30)
        assert [message.headers[HOLDER_HEADER]["generation"] for message in messages] == [1, 2]
        assert len(held(store)) == 1

    def test_closing_the_channel_of_a_plain_consumer_hands_back(
        self, app: Celery, connection: Any, store: Store
    ) -> None:
        send_step(app)
        channel, _ = consume(connection)
        connection.drain_events(timeout=30)
        channel.close()
        assert held(store) == []
        assert store.client.llen("q") == 1

    def test_a_repeated_offer_sends_nothing(self, app: Celery, store: Store) -> None:
        step = send_step(app)
        app.send_task("echo", args=(1,), queue="q", task_id=step, headers={HEADER: {"k": "s"}})
        assert store.client.llen("q") == 1

    def test_an_eta_waits_in_the_store(self, app: Celery, connection: Any, store: Store) -> None:
        send_step(app, countdown=60)
        assert store.client.llen("q") == 0
        timers: Any = store.client.zrange(store.keys.of("due"), 0, -1, withscores=True)
        ((name, due),) = timers
        assert 50_000 < due - store.now_ms() <= 60_000
        store.client.zadd(store.keys.of("due"), {name: 0})
        store.tick(1500)
        _, messages = consume(connection)
        connection.drain_events(timeout=30)
        assert messages[0].headers["eta"] is None

    def test_a_capture_catches_what_is_sent(self, app: Celery, store: Store) -> None:
        with capture.capturing() as caught:
            step = send_step(app, priority=3)
            app.send_task("echo", args=(1,), queue="q")
        assert [offer.kind for offer in caught.offers] == ["step", "plain"]
        assert (caught.offers[0].id, caught.offers[0].queue, caught.offers[0].lane) == (step, "q", 3)
        assert store.client.exists("q", "q\x06\x163") == 0

    def test_urgent_lanes_come_first(self, app: Celery, connection: Any) -> None:
        sent = [send_step(app, priority=priority) for priority in (9, 0, 6, 3)]
        _, messages = consume(connection, prefetch_count=10)
        connection.drain_events(timeout=30)
        got = [message.headers["id"] for message in messages]
        assert got == [sent[1], sent[3], sent[2], sent[0]]

    def test_a_lost_reply_is_asked_for_again(self, app: Celery, connection: Any, store: Store) -> None:
        step = send_step(app)
        channel, messages = consume(connection)
        connection.connection.cycle.on_poll_start()
        assert channel.is_taking()
        # The server has executed the take when it answers a later command on another connection.
        store.client.ping()
        channel.client.connection.disconnect()
        connection.drain_events(timeout=30)
        assert [message.headers["id"] for message in messages] == [step]
        assert len(held(store)) == 1

    def test_a_forgotten_script_is_loaded_again(self, app: Celery, connection: Any, store: Store) -> None:
        step = send_step(app)
        _, messages = consume(connection)
        store.client.script_flush()
        connection.drain_events(timeout=30)
        assert [message.headers["id"] for message in messages] == [step]

    def test_basic_get_takes_one(self, app: Celery, connection: Any, store: Store) -> None:
        step = send_step(app)
        send_step(app)
        message = connection.default_channel.basic_get("q")
        assert message.headers["id"] == step
        assert len(held(store)) == 1
        assert store.client.llen("q") == 1


class TestPlain:
    def test_a_plain_message_is_held_until_acknowledged(self, app: Celery, connection: Any, store: Store) -> None:
        app.send_task("echo", args=(1,), queue="q", ignore_result=True)
        channel, messages = consume(connection)
        connection.drain_events(timeout=30)
        assert len(held(store)) == 1
        messages[0].ack()
        assert held(store) == []
        channel.close()
        assert store.client.llen("q") == 0

    def test_a_stock_producer_is_understood(self, server: PrivateServer, connection: Any, store: Store) -> None:
        stock = Celery("stock", broker=server.celery_url)
        with stock.connection_for_write() as link:
            assert not isinstance(link.transport, Transport)
        stock.send_task("echo", args=(1,), queue="q", ignore_result=True)
        _, messages = consume(connection)
        connection.drain_events(timeout=30)
        assert messages[0].headers["task"] == "echo"
        messages[0].ack()
        stock.close()

    def test_a_stock_consumer_is_understood(self, app: Celery, server: PrivateServer) -> None:
        app.send_task("echo", args=(1,), queue="q", ignore_result=True)
        with PlainConnection(server.celery_url) as stock:
            _, messages = consume(stock)
            stock.drain_events(timeout=30)
            messages[0].ack()
        assert messages[0].headers["task"] == "echo"

    def test_what_is_no_message_is_a_dead_letter(self, connection: Any, store: Store) -> None:
        store.client.lpush("q", b"\xff not json", b"[]", b"{}")
        _, messages = consume(connection, prefetch_count=10)
        drain_until(connection, lambda: store.count_letters() == 3)
        assert messages == []
        assert held(store) == []

    def test_a_body_that_is_none_makes_a_dead_letter(self, connection: Any, store: Store) -> None:
        broken = {"body": "abc", "properties": {"body_encoding": "base64", "delivery_tag": "x"}}
        store.client.lpush("q", json.dumps(broken))
        _, messages = consume(connection)
        with pytest.raises(ValueError):
            connection.drain_events(timeout=30)
        drain_until(connection, lambda: store.count_letters() == 1 and not held(store))
        assert messages == []

    def test_simple_queues_work(self, connection: Any, store: Store) -> None:
        with connection.SimpleQueue("simple") as queue:
            for number in range(5):
                queue.put({"number": number})
            got = []
            for _ in range(5):
                message = queue.get(timeout=30)
                got.append(message.payload["number"])
                message.ack()
            queue.put({"number": 5})
            message = queue.get_nowait()
            assert message.payload == {"number": 5}
            message.ack()
            queue.put({})
            assert queue.clear() == 1
        assert got == [0, 1, 2, 3, 4]
        assert held(store) == []

    def test_a_consumer_without_acknowledgement_keeps_no_custody(self, connection: Any, store: Store) -> None:
        queue = connection.SimpleQueue("loose", no_ack=True)
        queue.put({"a": 1})
        assert queue.get(timeout=30).payload == {"a": 1}
        assert list(store.client.scan_iter(match=store.keys.held("*"))) == []
        queue.close()

    def test_a_failing_handler_does_not_keep_the_rest_from_theirs(
        self, app: Celery, connection: Any, store: Store
    ) -> None:
        for number in range(3):
            app.send_task("echo", args=(number,), queue="q", ignore_result=True)
        seen: list[int] = []

        def handle(message: Any) -> None:
            (number,), *_ = message.payload
            seen.append(number)
            if number == 0 and len(seen) == 1:
                raise LookupError("not today")
            message.ack()

        channel = connection.channel()
        channel.basic_qos(0, 10, False)
        Consumer(channel, [Queue("q")], on_message=handle, accept=["json"], auto_declare=False).consume()
        with pytest.raises(LookupError):
            connection.drain_events(timeout=30)
        assert seen == [0, 1, 2]
        drain_until(connection, lambda: len(seen) > 3 and not held(store))
        assert seen == [0, 1, 2, 0]


class TestConnections:
    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("redis://user:secret@host:7000/3", "redis://user:**@host:7000/3"),
            ("rediss://host:7000/1?ssl_cert_reqs=required", "rediss://:**@host:7000/1"),
            ("redis+socket:///run/s", "redis+socket:///run/s"),
        ],
    )
    def test_any_redis_url_reaches_the_transport(self, url: str, shown: str) -> None:
        connection = make_app(url).connection_for_write()
        assert isinstance(connection, Connection)
        assert connection.get_transport_cls() is Transport
        assert connection.clone().get_transport_cls() is Transport
        assert connection.as_uri() == shown

    def test_other_brokers_stay_kombus(self) -> None:
        assert not issubclass(make_app("memory://").connection_for_write().get_transport_cls(), Transport)

    def test_its_own_layout_of_queues_is_required(self, server: PrivateServer) -> None:
        app = make_app(server.celery_url, broker_transport_options={"global_keyprefix": "x"})
        with pytest.raises(ValueError, match="global_keyprefix"):
            app.connection_for_write().channel()

    def test_as_broker_transport_it_finds_its_store(self, server: PrivateServer) -> None:
        connection = PlainConnection(server.celery_url, transport=Transport)
        json.dumps(connection.info(), default=str)
        assert PlainConnection("redis://h:1/2", transport=Transport).transport.store.url == "redis://h:1/2"


@pytest.mark.leaves(r".*")
def test_a_queue_that_is_added_is_not_kept_waiting(server: PrivateServer) -> None:
    """The wait for the other queues would go on for its whole time."""
    app = make_app(server.celery_url, broker_transport_options={"polling_interval": 30})
    with app.connection_for_read() as connection:
        channel, _ = consume(connection, "idle")
        drain_until(connection, lambda: bool(channel._in_poll) and channel.reader.stage == "wait")
        step = send_step(app, queue="late")
        late: list[Any] = []
        Consumer(channel, [Queue("late")], on_message=late.append, accept=["json"], auto_declare=False).consume()
        drain_until(connection, lambda: bool(late))
        assert late[0].headers["id"] == step
    app.close()
