"""The decisions over gRPC, as KEDA's external push scaler asks for them; the client encodes its requests by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from agentq.core.errors import UsageError
from agentq.fleet.published import FRESH_S, Published
from agentq.fleet.push import PushServer
from tests.kit.waiting import wait_until
from tests.unit.fleet.test_endpoint import World, decision

SECONDS = 20.0


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def push(world: World) -> Iterator[PushServer]:
    made = PushServer(Published(world.read), host="127.0.0.1", port=0)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def channel(push: PushServer) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{push.port}") as made:
        yield made


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, as https://protobuf.dev/programming-guides/encoding/ has it; shorter than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def reference(pool: str | None) -> bytes:
    """KEDA's ScaledObjectRef: name, namespace, and the trigger's metadata."""
    entries = {"scalerAddress": "agentq-decisions:9465"} | ({"pool": pool} if pool is not None else {})
    return (
        field(1, b"agentq-tools")
        + field(2, b"agentq")
        + b"".join(field(3, field(1, key.encode()) + field(2, text.encode())) for key, text in entries.items())
    )


def call(channel: Any, method: str, request: bytes) -> bytes:
    reply: bytes = channel.unary_unary(f"/externalscaler.ExternalScaler/{method}")(request, timeout=SECONDS)
    return reply


def test_a_pool_is_active_while_it_is_to_have_workers(world: World, channel: Any) -> None:
    world.decisions = {"tools": decision("tools", desired=3), "idle": decision("idle", desired=0)}
    assert call(channel, "IsActive", reference("tools")) == b"\x08\x01"
    assert call(channel, "IsActive", reference("idle")) == b""


def test_the_metric_is_one_replica_for_each_desired_worker(channel: Any) -> None:
    one = b"\x19\x00\x00\x00\x00\x00\x00\xf0\x3f"
    name = field(1, b"desired_workers")
    assert call(channel, "GetMetricSpec", reference("tools")) == field(1, name + b"\x10\x01" + one)
    three = b"\x19\x00\x00\x00\x00\x00\x00\x08\x40"
    asked = field(1, reference("tools")) + field(2, b"desired_workers")
    assert call(channel, "GetMetrics", asked) == field(1, name + b"\x10\x03" + three)


def test_who_rests_is_in_the_number(world: World, channel: Any) -> None:
    world.decisions = {"tools": decision("tools", desired=0).model_copy(update={"resting": 1, "kept": 1})}
    assert call(channel, "IsActive", reference("tools")) == b"\x08\x01"
    asked = field(1, reference("tools")) + field(2, b"desired_workers")
    one = field(1, b"desired_workers") + b"\x10\x01" + b"\x19\x00\x00\x00\x00\x00\x00\xf0\x3f"
    assert call(channel, "GetMetrics", asked) == field(1, one)


def test_a_pool_that_wakes_is_pushed_and_so_is_one_that_falls_asleep(world: World, channel: Any) -> None:
    world.decisions = {"tools": decision("tools", desired=0)}
    stream = channel.unary_stream("/externalscaler.ExternalScaler/StreamIsActive")(reference("tools"), timeout=SECONDS)
    assert next(stream) == b"", "how it stands is told at once"
    world.decisions = {"tools": decision("tools", desired=2)}
    assert next(stream) == b"\x08\x01"
    # Nobody knows for a while: nothing is told, and the stream goes on.
    world.is_away = True
    reads = world.reads
    wait_until(lambda: world.reads >= reads + 2, description="it has looked in vain")
    world.is_away, world.decisions = False, {"tools": decision("tools", desired=0)}
    assert next(stream) == b""
    stream.cancel()


@pytest.mark.parametrize(
    ("pool", "age_s", "code", "words"),
    [
        ("tools", FRESH_S + 60, grpc.StatusCode.UNAVAILABLE, "75 s old; run agentq autoscale"),
        ("nobody", 1.0, grpc.StatusCode.NOT_FOUND, 'nothing was decided for a pool "nobody"'),
        (None, 1.0, grpc.StatusCode.INVALID_ARGUMENT, 'ScaledObject "agentq-tools" does not say its pool'),
    ],
)
def test_what_nobody_stands_behind_is_an_error_so_that_keda_falls_back(
    world: World, channel: Any, pool: str | None, age_s: float, code: Any, words: str
) -> None:
    world.decisions = {"tools": decision("tools", age_s=age_s)}
    with pytest.raises(grpc.RpcError) as refused:
        call(channel, "IsActive", reference(pool))
    assert refused.value.code() == code
    assert words in refused.value.details()


def test_without_its_store_it_says_so(world: World, channel: Any) -> None:
    world.is_away = True
    with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
        call(channel, "GetMetrics", field(1, reference("tools")))


def test_streams_of_many_pools_do_not_keep_each_other_waiting(world: World, channel: Any) -> None:
    world.decisions = {f"p{number}": decision(f"p{number}", desired=1) for number in range(40)}
    method = channel.unary_stream("/externalscaler.ExternalScaler/StreamIsActive")
    streams = [method(reference(pool), timeout=SECONDS) for pool in world.decisions]
    assert [next(stream) for stream in streams] == [b"\x08\x01"] * 40
    assert call(channel, "IsActive", reference("p1")) == b"\x08\x01"
    for stream in streams:
        stream.cancel()


def test_an_address_that_is_taken_is_told(push: PushServer, world: World) -> None:
    other = PushServer(Published(world.read), host="127.0.0.1", port=push.port)
    with pytest.raises(UsageError, match=rf"cannot be served at 127.0.0.1:{push.port}"):
        other.start()
    other.stop()
