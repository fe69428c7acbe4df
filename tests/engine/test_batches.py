"""What a producer sends for a group, and when it listens for results."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import chain, chord, group, signals, states, uuid
from celery.result import AsyncResult
from kombu.exceptions import OperationalError

from agentq.core.errors import InvalidArguments
from agentq.engine import single
from agentq.engine.batch import CHUNK
from agentq.engine.listening import KEPT
from tests.kit.projects import load_app
from tests.kit.sample import TIMEOUT, Library
from tests.kit.server import PrivateServer

FLOWS = "tests.projects.flows"


def test_every_member_of_a_large_group_is_a_step_of_its_own(library: Library) -> None:
    add = library.task("add")
    size = CHUNK + 20
    result = group(add.s(number, b=1) for number in range(size)).apply_async()
    assert result.get(timeout=TIMEOUT) == [number + 1 for number in range(size)]
    last = AsyncResult(result.results[-1].id, app=library.app)
    assert last.result == size


def test_members_that_differ_keep_what_is_theirs(library: Library) -> None:
    add, double = library.task("add"), library.task("double")
    members = [add.s(1, 1), add.s(2, 2), double.s(5), chain(add.s(1, 2), double.s()), add.s(3, 3).set(priority=0)]
    assert group(members).apply_async().get(timeout=TIMEOUT) == [2, 4, 10, 6, 6]
    assert chord([add.s(number, 0) for number in range(30)])(library.task("total").s()).get(timeout=TIMEOUT) == 435


@pytest.fixture
def flows(clean_server: PrivateServer) -> Iterator[Any]:
    """The app alone: nobody takes what it sends, and it goes at the end."""
    app = load_app(FLOWS, url=clean_server.celery_url)
    yield app
    clean_server.empty()


def waiting(app: Any, lane: int = 6) -> list[dict[str, Any]]:
    """The messages of a lane, oldest first."""
    texts = app.store.client.lrange(app.store.keys.lane("celery", lane), 0, -1)
    return [json.loads(text) for text in reversed(texts)]


def told_apart(message: dict[str, Any]) -> tuple[Any, Any]:
    """A message without what is new in each, and its arguments."""
    name = message["headers"]["id"]
    assert message["agentq"].split("|")[1] == name
    message["body"] = json.loads(base64.b64decode(message["body"]))
    message["properties"]["delivery_tag"] = "tag"
    # Moments: the second group is published a little later.
    message["headers"].pop("expires")
    message["properties"].pop("expiration", None)
    text = json.dumps(message, sort_keys=True).replace(name, "ID").replace(message["headers"]["root_id"], "ROOT")
    return json.loads(text.replace(message["headers"]["group"], "GROUP")), message["body"][0]


@contextmanager
def watched() -> Iterator[list[str]]:
    """Somebody looks at each message that is published."""
    seen: list[str] = []

    def note(headers: dict[str, Any], **_: Any) -> None:
        seen.append(headers["id"])

    signals.before_task_publish.connect(note, weak=False)
    try:
        yield seen
    finally:
        signals.before_task_publish.disconnect(note)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"priority": 3, "soft_time_limit": 5},
        {"headers": {"trace": "100 %(id)s"}, "expires": 3600},
        {"argsrepr": "hidden", "kwargsrepr": "hidden"},
    ],
)
def test_a_member_made_from_the_first_is_as_celery_makes_it(flows: Any, options: dict[str, Any]) -> None:
    add = flows.tasks[f"{FLOWS}.add"]

    def published() -> list[tuple[Any, Any]]:
        flows.store.client.flushdb()
        group(add.s(number, b=7).set(**options) for number in range(3)).apply_async()
        return [told_apart(message) for message in waiting(flows, options.get("priority", 6))]

    made = published()
    with watched() as seen:
        by_celery = published()
    assert len(seen) == 3, "whoever looks at messages sees each of them"
    assert made == by_celery


def test_a_group_with_an_argument_that_does_not_fit_sends_nothing(flows: Any) -> None:
    add = flows.tasks[f"{FLOWS}.add"]
    with pytest.raises(InvalidArguments, match="'two'"):
        group(add.s(1, 1), add.s(2, "two")).apply_async()
    assert waiting(flows) == []


def test_a_group_that_cannot_be_sent_fails_as_in_celery(server: PrivateServer) -> None:
    app = load_app(FLOWS, url=server.celery_url)
    add = app.tasks[f"{FLOWS}.add"]
    members = group(add.s(number, 1) for number in range(3))
    app.producer_pool.acquire().release()
    server.stop()
    with pytest.raises(OperationalError):
        members.apply_async(retry=False)


def test_a_producer_in_a_callers_hand_sends_at_once(flows: Any) -> None:
    """Celery's way to send several tasks over one connection."""
    add = flows.tasks[f"{FLOWS}.add"]
    with flows.producer_or_acquire() as producer:
        add.apply_async((1, 2), producer=producer)
        assert len(waiting(flows)) == 1


def subscriptions(server: PrivateServer) -> int:
    """How often clients have subscribed since the counters were reset."""
    stats = server.client.info("commandstats")
    return int(stats.get("cmdstat_subscribe", {"calls": 0})["calls"])


def test_one_subscription_serves_all_that_somebody_waits_for(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    add = library.task("add")
    # A thread that has waited for each result until now listens for its next one as well.
    monkeypatch.setattr(single, "_here", single._Here())
    library.server.client.config_resetstat()
    sent = [add.delay(number, 0) for number in range(20)]
    assert subscriptions(library.server) == 0, "nobody has waited yet"
    result = group(add.s(number, 0) for number in range(20)).apply_async()
    assert result.get(timeout=TIMEOUT) == list(range(20))
    assert subscriptions(library.server) == 1
    assert [each.get(timeout=TIMEOUT) for each in sent] == list(range(20))


def test_few_subscriptions_outlive_their_results(library: Library) -> None:
    add = library.task("add")
    for number in range(2 * KEPT):
        assert add.delay(number, 1).get(timeout=TIMEOUT) == number + 1
    left = library.server.client.pubsub_channels("celery-task-meta-*")
    assert len(left) <= KEPT
    again = AsyncResult(add.delay(1, 1).id, app=library.app)
    assert (again.get(timeout=TIMEOUT), again.get(timeout=TIMEOUT)) == (2, 2)


def test_a_result_that_comes_while_a_lost_subscription_is_renewed_is_heard(
    server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = load_app(FLOWS, url=server.celery_url)
    backend: Any = app.backend
    result = app.AsyncResult(uuid())
    backend.add_pending_result(result)
    backend.result_consumer.drain_events(timeout=0)
    look, looks = backend.client.mget, list[Any]()

    def look_and_be_late(keys: Any) -> Any:
        found = look(keys)
        looks.append(found)
        if len(looks) == 1:
            backend.store_result(result.id, 5, states.SUCCESS)
        return found

    monkeypatch.setattr(backend.client, "mget", look_and_be_late)
    server.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    assert result.get(timeout=TIMEOUT) == 5
    assert looks[0] == [None]


def test_results_that_go_while_their_server_is_away_neither_wait_nor_raise(server: PrivateServer) -> None:
    app = load_app(FLOWS, url=server.celery_url)
    backend: Any = app.backend
    waiting_for = [app.AsyncResult(uuid()) for _ in range(2 * KEPT)]
    for each in waiting_for:
        backend.add_pending_result(each)
    backend.result_consumer.drain_events(timeout=0)
    assert len(server.client.pubsub_channels("celery-task-meta-*")) == 2 * KEPT
    server.kill()
    while waiting_for:
        # What the garbage collector does, to whom nobody listens who could catch an error.
        waiting_for.pop().__del__()
    server.start()
    later = app.AsyncResult(uuid())
    backend.store_result(later.id, 5, states.SUCCESS)
    assert later.get(timeout=TIMEOUT) == 5
    assert len(server.client.pubsub_channels("celery-task-meta-*")) <= KEPT


def test_a_callback_hears_of_a_result_while_another_is_waited_for(library: Library) -> None:
    add = library.task("add")
    heard: list[Any] = []
    first = add.delay(1, 1)
    assert add.delay(2, 2).get(timeout=TIMEOUT) == 4

    # The first one has a result by now, or soon; nobody asks for it by name.
    def hear(result: Any) -> None:
        heard.append(result.result)

    first.then(hear)
    for number in range(50):
        add.delay(number, 1).get(timeout=TIMEOUT)
        if heard:
            break
    assert heard == [2]
