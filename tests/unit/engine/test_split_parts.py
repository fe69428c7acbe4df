"""What split mode decides without a broker: the mode, where hints lie, and what a failing message holds up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from agentq.core.errors import InvalidSetting
from agentq.engine.mode import Mode, Wanted, decide_mode
from agentq.engine.split.hints import hint_queue, lanes_of
from agentq.engine.split.posting import Outlet, Poster, Unconfirmed
from agentq.store import Store
from agentq.store.unsent import Post


@pytest.mark.parametrize(
    ("wanted", "url", "mode"),
    [
        ("auto", None, "fused"),
        ("auto", "redis://h", "fused"),
        ("auto", "redis+socket:///s", "fused"),
        ("fused", "rediss://h", "fused"),
        ("stock", "redis://h", "split"),
        ("stock", None, "split"),
        ("auto", "amqp://h", "split"),
        ("split", "amqps://h", "split"),
        ("stock", "pyamqp://h", "split"),
    ],
)
def test_the_broker_decides_the_mode_unless_another_is_wanted(wanted: Wanted, url: str | None, mode: Mode) -> None:
    assert decide_mode(wanted, url) == mode


@pytest.mark.parametrize(
    ("wanted", "url", "says"),
    [
        ("fused", "amqp://h", "fused mode needs a Redis"),
        ("split", "redis://h", "over Redis its name is stock"),
        ("auto", "sqs://h", "from Redis or RabbitMQ"),
    ],
)
def test_a_broker_that_does_not_fit_is_refused_with_the_way_out(wanted: Wanted, url: str, says: str) -> None:
    with pytest.raises(InvalidSetting, match=says):
        decide_mode(wanted, url)


def test_each_lane_has_a_queue_of_hints() -> None:
    assert hint_queue("agentq", "gpu", 3) == "agentq.gpu.high"
    assert list(lanes_of("p", "q")) == ["p.q.critical", "p.q.high", "p.q.normal", "p.q.low"]


class Shaky:
    """Stands in for an outlet that cannot publish some messages, and for the store behind it."""

    def __init__(self, *, bad: set[str], error: Exception) -> None:
        self.bad, self.error = bad, error
        self.confirmed: list[str] = []

    def publish(self, posts: Sequence[Post]) -> None:
        if self.bad & {post.name for post in posts}:
            raise self.error

    def confirm(self, posts: Sequence[Post]) -> None:
        self.confirmed += [post.name for post in posts]


def post(name: str) -> Post:
    return Post(name=name, queue="q", lane=6, pause_ms=1000, message="{}")


def poster_of(shaky: Shaky) -> Any:
    return Poster(cast(Store, shaky), cast(Outlet, shaky), pause_s=1.0, queues=list, plain=True)


def test_a_message_that_cannot_be_published_holds_up_no_other() -> None:
    shaky = Shaky(bad={"b"}, error=ValueError("no such serializer"))
    poster_of(shaky)._publish([post("a"), post("b"), post("c")])
    assert shaky.confirmed == ["a", "c"]


def test_what_the_broker_does_not_confirm_stays_in_the_outbox() -> None:
    shaky = Shaky(bad={"b"}, error=Unconfirmed([post("b")]))
    poster_of(shaky)._publish([post("a"), post("b")])
    assert shaky.confirmed == ["a"]


def test_a_broker_that_is_away_is_tried_again_with_all() -> None:
    shaky = Shaky(bad={"a"}, error=ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        poster_of(shaky)._publish([post("a"), post("b")])
    assert shaky.confirmed == []
