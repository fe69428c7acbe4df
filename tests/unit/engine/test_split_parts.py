"""What split mode decides without a broker: the mode, where hints lie, and what a failing message holds up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from agentq.core.errors import InvalidSetting, StoreUnavailable
from agentq.engine.mode import Mode, Wanted, decide_mode
from agentq.engine.slots import Taker
from agentq.engine.split.desk import Desk, _Waiting
from agentq.engine.split.hints import hint_queue, lanes_of
from agentq.engine.split.posting import Outlet, Poster, Unconfirmed, Unreadable
from agentq.store import Store
from agentq.store.refs import TakeReply
from agentq.store.unsent import Hint as Asked
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
        self.shelved: list[str] = []

    def shelve(self, _raw: bytes, *, outbox_name: str, **_more: Any) -> None:
        self.shelved.append(outbox_name)

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
    assert (shaky.confirmed, shaky.shelved) == (["a", "c"], [])


def test_a_message_that_is_none_becomes_a_dead_letter() -> None:
    shaky = Shaky(bad={"b"}, error=Unreadable("no JSON"))
    poster_of(shaky)._publish([post("a"), post("b"), post("c")])
    assert (shaky.confirmed, shaky.shelved) == (["a", "c"], ["b"])


def test_what_the_broker_does_not_confirm_stays_in_the_outbox() -> None:
    shaky = Shaky(bad={"b"}, error=Unconfirmed([post("b")]))
    poster_of(shaky)._publish([post("a"), post("b")])
    assert shaky.confirmed == ["a"]


def test_a_broker_that_is_away_is_tried_again_with_all() -> None:
    shaky = Shaky(bad={"a"}, error=ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        poster_of(shaky)._publish([post("a"), post("b")])
    assert shaky.confirmed == []


class Hint:
    """A broker's message, with what became of it."""

    def __init__(self, name: str, *, since: float | None = None) -> None:
        self.body = name.encode()
        self.headers = {} if since is None else {"since": int(since * 1000)}
        self.end = ""

    def ack(self) -> None:
        self.end = "acknowledged"

    def requeue(self) -> None:
        self.end = "given back"


class Claims:
    """Stands in for the store: answers claims as it was told to, and keeps what was asked."""

    def __init__(self, *replies: TakeReply | Exception) -> None:
        self.replies = list(replies)
        self.asked: list[tuple[str, list[str]]] = []

    def new_token(self) -> str:
        return f"token {len(self.asked)}"

    def claim(self, worker: str, token: str, hints: list[Asked], **_options: Any) -> TakeReply:
        self.asked.append((token, [hint.name for hint in hints]))
        reply = self.replies.pop(0) if self.replies else TakeReply(refused=False)
        if isinstance(reply, Exception):
            raise reply
        return reply


class Connection:
    connection_errors = (OSError,)


def desk_of(claims: Claims, *, free: int, low_share: int = 0) -> Any:
    store = cast(Store, claims)
    taker = Taker(store, label="w", free=lambda: free)
    desk: Any = Desk(
        Connection(),
        None,
        lambda: taker,
        store,
        prefix="p",
        kind="quorum",
        slots=free,
        queues=lambda: ["q"],
        low_share=low_share,
        age_s=60.0,
    )
    desk._intake = object()
    return desk


def lay(desk: Any, **lanes: int) -> dict[str, Hint]:
    """Put hints on the desk: as many as are said for each lane."""
    numbers = {"critical": 0, "high": 3, "normal": 6, "low": 9}
    made = {f"{lane} {number}": numbers[lane] for lane, count in lanes.items() for number in range(count)}
    hints = {name: Hint(name) for name in made}
    for name, lane in made.items():
        desk._waiting[lane].append(_Waiting(hints[name], "q", lane, 0.0))
    return hints


def test_the_most_urgent_hints_are_claimed_first_and_acknowledged() -> None:
    claims = Claims()
    desk = desk_of(claims, free=2)
    hints = lay(desk, low=1, normal=1, critical=2)
    desk.flush()
    assert [names for _, names in claims.asked] == [["critical 0", "critical 1"], ["normal 0", "low 0"]]
    assert {hint.end for hint in hints.values()} == {"acknowledged"}


def test_every_so_many_claims_one_begins_with_the_lowest_lane() -> None:
    claims = Claims()
    desk = desk_of(claims, free=1, low_share=3)
    lay(desk, low=2, critical=3)
    desk.flush()
    assert [names[0] for _, names in claims.asked] == ["critical 0", "critical 1", "low 0", "critical 2", "low 1"]


def test_the_share_goes_by_steps_and_not_by_claims() -> None:
    claims = Claims()
    desk = desk_of(claims, free=8, low_share=4)
    lay(desk, low=8, critical=8)
    desk.flush()
    assert [sum(name.startswith("low") for name in names) for _, names in claims.asked] == [2, 6]


def test_what_has_waited_too_long_goes_first_in_the_share() -> None:
    claims = Claims()
    desk = desk_of(claims, free=1, low_share=2)
    lay(desk, low=1, critical=3)
    old = Hint("normal old", since=time.time() - 100)
    desk._waiting[6].append(_Waiting(old, "q", 6, 0.0))
    desk.flush()
    order = [names[0] for _, names in claims.asked]
    assert order == ["critical 0", "normal old", "critical 1", "low 0", "critical 2"]


def test_a_worker_without_a_slot_claims_nothing_and_gives_hints_back() -> None:
    claims = Claims()
    desk = desk_of(claims, free=0)
    hints = lay(desk, normal=2)
    desk.flush()
    assert claims.asked == []
    desk._intake = None
    desk._pause()
    assert {hint.end for hint in hints.values()} == {"given back"}


def test_a_claim_without_an_answer_is_made_again_as_it_was() -> None:
    claims = Claims(StoreUnavailable(url="redis://h", reason="away"))
    desk = desk_of(claims, free=1)
    hints = lay(desk, normal=1)
    desk.flush()
    assert [hint.end for hint in hints.values()] == [""]
    lay(desk, critical=1)
    desk._not_before = 0.0
    desk.flush()
    first, again, other = claims.asked
    assert first == again
    assert other[1] == ["critical 0"]


def test_a_new_connection_first_asks_for_what_the_last_one_was_not_answered() -> None:
    claims = Claims(StoreUnavailable(url="redis://h", reason="away"))
    desk = desk_of(claims, free=1)
    lay(desk, normal=1)
    desk.flush()
    desk._asked, desk._not_before = [], 0.0
    lay(desk, high=1)
    desk.flush()
    assert [names for _, names in claims.asked] == [["normal 0"], [], ["high 0"]]
    assert claims.asked[0][0] == claims.asked[1][0] != claims.asked[2][0]


def test_a_worker_that_was_given_up_gives_its_hints_to_others() -> None:
    claims = Claims(TakeReply(refused=True))
    desk = desk_of(claims, free=1)
    hints = lay(desk, normal=1)
    desk.flush()
    assert [hint.end for hint in hints.values()] == ["given back"]
    assert desk._taker.refused
