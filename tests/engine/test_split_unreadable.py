"""What nobody can read, with a broker beside the store: kept as a dead letter, and no worker ends by it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from celery import Celery
from kombu.connection import Connection
from kombu.messaging import Producer

from tests.kit.broker import PrivateBroker
from tests.kit.leaks import check_leaks
from tests.kit.mode import settings_of
from tests.kit.projects import load_app
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

PROJECT = "tests.projects.perils"
TIMEOUT = 60.0


class Site(NamedTuple):
    """A store, perhaps a broker, one worker of two children, and the project's app in this process."""

    server: PrivateServer
    broker: PrivateBroker | None
    worker: WorkerProcess
    app: Any

    @property
    def url(self) -> str:
        """The broker's address."""
        return self.broker.url if self.broker is not None else self.server.celery_url


@pytest.fixture(scope="module", params=["split", "stock"])
def module_site(request: pytest.FixtureRequest, make_module_worker: Callable[..., WorkerProcess]) -> Iterator[Site]:
    broker = request.getfixturevalue("rabbitmq") if request.param == "split" else None
    env = settings_of(request.param, broker)
    server = PrivateServer()
    server.start()
    app = None
    try:
        worker = make_module_worker(PROJECT, url=server.celery_url, queues=["celery"], env=env)
        worker.start()
        app = load_app(PROJECT, url=server.celery_url, **env)
        worker.wait_ready()
        yield Site(server, broker, worker, app)
    finally:
        if app is not None:
            app.store.close()
        server.stop()


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    """The site; afterwards its worker serves still, and nothing is left."""
    yield module_site
    app = module_site.app
    assert app.tasks[f"{PROJECT}.quiet"].delay("still here").get(timeout=TIMEOUT) == "still here"
    assert app.tasks["plain"].delay("still here").get(timeout=TIMEOUT) == "still here"
    assert module_site.worker.running
    for letter in app.dead.list():
        app.dead.drop(letter.letter_id)
    check_leaks(app.store.client)


def await_letters(site: Site, number: int) -> set[bytes]:
    wait_until(
        lambda: len(site.app.dead.list()) == number,
        description="all are dead letters",
        timeout=TIMEOUT,
        report=lambda: f"{site.app.dead.list()}\n{site.worker.log()[-6000:]}",
    )
    assert {letter.why for letter in site.app.dead.list()} == {"unreadable"}
    assert {letter.queue for letter in site.app.dead.list()} == {"celery"}
    return {site.app.dead.get(letter.letter_id)[1] for letter in site.app.dead.list()}


def test_what_somebody_pushes_into_the_lists_of_redis(site: Site) -> None:
    """In stock mode they are the broker's own; beside RabbitMQ what lies there is brought over."""
    raws = [
        b"not json",
        b"\x00\xff no message",
        b'"a \xff string"',
        b"[1, 2]",
        b"{}",
        b'{"body": "x", "headers": {}, "properties": {}}',
        b'{"body": {"__type__": "decimal", "__value__": "none"}, "headers": {}, "properties": {}}',
        b"[" * 100_000,
    ]
    for raw in raws:
        site.server.client.lpush("celery", raw)
    assert await_letters(site, len(raws)) == set(raws)
    # Read as little as before, and kept again.
    letter = next(letter for letter in site.app.dead.list() if "Expecting value" in letter.words)
    site.app.dead.replay(letter.letter_id)
    wait_until(
        lambda: letter.letter_id not in {other.letter_id for other in site.app.dead.list()},
        description="it is replayed",
    )
    assert await_letters(site, len(raws)) == set(raws)


def test_messages_that_celery_cannot_make_tasks_of(site: Site) -> None:
    hostile: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
        ({"hello": "world"}, {}, {}),
        ("{no json", {}, {"content_type": "application/json", "content_encoding": "utf-8"}),
        (b"\x80\x04.", {}, {"content_type": "application/x-python-serialize", "content_encoding": "binary"}),
        ("[]", {"task": ["no", "name"], "id": "1"}, {"content_type": "application/json", "content_encoding": "utf-8"}),
        ("[]", {"task": "plain"}, {"content_type": "application/json", "content_encoding": "utf-8"}),
        ("x", {"task": "plain", "id": "2", "compression": "none known"}, {"content_type": "text/plain"}),
        ("[[], {}, {}]", {"task": "plain", "id": "3", "eta": "someday"}, {"content_type": "application/json"}),
    ]
    with Connection(site.url) as connection:
        producer = Producer(connection)
        for body, headers, options in hostile:
            producer.publish(body, routing_key="celery", headers=headers, **options)
    kept = await_letters(site, len(hostile))
    whole = [json.loads(message) for message in kept]
    assert {base64.b64decode(each["body"]) for each in whole} >= {b"{no json", b"\x80\x04.", b"x"}


def test_messages_that_begin_as_steps(site: Site) -> None:
    """By header, or since their task is one of our steps."""
    stock = Celery("producer", broker=site.url, set_as_current=False)
    quiet = f"{PROJECT}.quiet"
    encoded = {"content_type": "application/json", "content_encoding": "utf-8"}
    headers: list[dict[str, Any]] = [
        {"task": quiet, "id": {"no": "id"}},
        {"task": quiet, "id": "x", "agentq": "no header"},
        {"task": quiet, "agentq": {"k": "s"}},
        {"task": quiet, "id": "y", "root_id": "y", "eta": "someday", "agentq": {"k": "s"}},
        {"task": quiet, "id": 'a"|b', "root_id": "r"},
    ]
    try:
        with stock.producer_pool.acquire() as producer:
            for each in headers:
                producer.publish('[["a"], {}, {}]', routing_key="celery", headers=each, **encoded)
        await_letters(site, len(headers))
    finally:
        stock.close()


@pytest.mark.parametrize("module_site", ["split"], indirect=True)
def test_messages_in_the_queues_of_hints(site: Site) -> None:
    bodies: list[Any] = [b"", b"\xff\xfe", b"a|b", b"|1|0", b"a|b|c", b"x" * 1_000_000, b"no|such|1", b"{}"]
    with Connection(site.url) as connection:
        producer = Producer(connection)
        for body in bodies:
            producer.publish(
                body,
                routing_key="agentq.celery.normal",
                content_type="application/json",
                content_encoding="binary",
                headers={"compression": "none known", "task": "plain"},
            )
    assert site.broker is not None
    depths = site.broker.depths
    wait_until(lambda: depths("agentq.celery.normal") == {"agentq.celery.normal": 0}, description="all are dropped")
    assert site.app.dead.list() == []
