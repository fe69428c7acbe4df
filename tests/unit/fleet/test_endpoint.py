"""The decisions over HTTP, in the forms in which KEDA and Prometheus read them."""

import json
import re
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from agentq.core.errors import StoreUnavailable, UsageError
from agentq.core.scaling import PoolLoad, Size
from agentq.core.sizing import Decision
from agentq.fleet.endpoint import Endpoint
from agentq.fleet.published import FRESH_S, KEPT_S, Known, Published
from tests.kit.waiting import wait_until

NOW_MS = 1_800_000_000_000
LINE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)+)\} (-?[0-9.e+-]+)')
"""A sample of the text format, as its specification has it."""


def decision(pool: str, *, desired: int = 3, age_s: float = 1.0) -> Decision:
    return Decision(
        pool=pool,
        at_ms=NOW_MS - int(age_s * 1000),
        fence=1,
        had=1,
        desired=desired,
        load=PoolLoad(waiting=12, running=2, ready=1, starting=2, oldest_wait_s=4.5, quick_rate=2.5, service_s=0.8),
        size=Size(workers=desired, asked=desired, why="12 waiting"),
    )


class World:
    """What the store would say."""

    def __init__(self) -> None:
        self.decisions = {"tools": decision("tools"), 'odd"name': decision('odd"name', desired=0)}
        self.reads = 0
        self.is_away = False

    def read(self) -> Known:
        self.reads += 1
        if self.is_away:
            raise StoreUnavailable(url="redis://here", reason="refused")
        return Known(NOW_MS, self.decisions)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def endpoint(world: World) -> Iterator[Endpoint]:
    made = Endpoint(Published(world.read), host="127.0.0.1", port=0)
    made.start()
    yield made
    made.stop()


def get(endpoint: Endpoint, path: str) -> tuple[int, str, str]:
    try:
        with urlopen(f"http://127.0.0.1:{endpoint.port}{path}", timeout=60) as reply:
            return reply.status, reply.headers["Content-Type"], reply.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_keda_finds_the_number_where_the_manifest_says(endpoint: Endpoint) -> None:
    status, kind, text = get(endpoint, "/pools/tools")
    said: dict[str, Any] = json.loads(text)
    assert (status, kind) == (200, "application/json")
    assert said["desired"] == 3
    assert (said["waiting"], said["running"], said["why"], said["fresh"]) == (12, 2, "12 waiting", True)


def test_who_rests_is_in_the_number_that_a_platform_pulls(world: World, endpoint: Endpoint) -> None:
    world.decisions = {"tools": decision("tools", desired=3).model_copy(update={"resting": 2, "kept": 1})}
    said = json.loads(get(endpoint, "/pools/tools")[2])
    assert (said["desired"], said["resting"]) == (4, 2)
    assert 'agentq_pool_desired_workers{pool="tools"} 4' in get(endpoint, "/metrics")[2].splitlines()


def test_all_pools_are_listed(endpoint: Endpoint) -> None:
    assert set(json.loads(get(endpoint, "/pools/")[2])) == {"tools", 'odd"name'}


def test_every_line_for_prometheus_is_well_formed(endpoint: Endpoint) -> None:
    status, kind, text = get(endpoint, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=0.0.4")
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in samples)
    assert 'agentq_pool_desired_workers{pool="tools"} 3' in samples
    assert 'agentq_pool_workers{pool="tools",state="starting"} 2' in samples
    assert r'agentq_pool_desired_workers{pool="odd\"name"} 0' in samples
    typed = re.findall(r"^# TYPE (\S+) gauge$", text, re.MULTILINE)
    assert len(typed) == len(set(typed))
    assert {line.partition("{")[0] for line in samples} == set(typed)


def test_what_the_weeks_before_would_ask_for_is_told_where_it_is_known(world: World, endpoint: Endpoint) -> None:
    known = decision("tools")
    size = known.size.model_copy(update={"forecast": 7})
    world.decisions = {"tools": known.model_copy(update={"size": size}), "other": decision("other")}
    samples = get(endpoint, "/metrics")[2].splitlines()
    assert [each for each in samples if each.startswith("agentq_pool_forecast")] == [
        'agentq_pool_forecast_workers{pool="tools"} 7'
    ]


def test_a_decision_that_no_controller_stands_behind_is_not_told_as_one(world: World, endpoint: Endpoint) -> None:
    world.decisions = {"tools": decision("tools", age_s=FRESH_S + 60)}
    status, _, text = get(endpoint, "/pools/tools")
    assert status == 503
    assert "75 s old; run agentq autoscale" in json.loads(text)["error"]
    samples = get(endpoint, "/metrics")[2]
    assert "agentq_pool_desired_workers{" not in samples
    assert 'agentq_pool_decision_age_seconds{pool="tools"} 75' in samples


@pytest.mark.parametrize("path", ["/pools/nobody", "/", "/pool", "/pools/tools/more", "/../etc/passwd"])
def test_what_is_not_there_is_refused_with_what_is(endpoint: Endpoint, path: str) -> None:
    status, _, text = get(endpoint, path)
    assert status == 404
    assert "pools" in json.loads(text)["error"]


def test_without_its_store_it_says_so_and_comes_back(world: World, endpoint: Endpoint) -> None:
    began = monotonic()
    world.is_away = True
    for path in ("/healthz", "/metrics", "/pools/tools"):
        assert get(endpoint, path)[0] == 503
    assert world.reads <= 1 + (monotonic() - began) / KEPT_S, "they do not each wait for the same time-out"
    world.is_away = False
    wait_until(lambda: get(endpoint, "/healthz")[0] == 200, description="it has looked again")


def test_it_listens_at_addresses_of_both_kinds(world: World) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    made = Endpoint(Published(world.read), host="::1", port=0)
    made.start()
    with urlopen(f"http://[::1]:{made.port}/healthz", timeout=60) as reply:
        assert reply.status == 200
    made.stop()


def test_the_store_is_asked_once_however_many_ask(world: World, endpoint: Endpoint) -> None:
    began = monotonic()
    for _ in range(50):
        endpoint.answer("/pools/tools")
    assert world.reads <= 1 + (monotonic() - began) / KEPT_S


def test_an_address_that_is_taken_is_told(endpoint: Endpoint, world: World) -> None:
    with pytest.raises(UsageError, match=rf"cannot be served at 127.0.0.1:{endpoint.port}"):
        Endpoint(Published(world.read), host="127.0.0.1", port=endpoint.port)
