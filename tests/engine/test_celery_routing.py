"""Where a call goes: the call before the step, and in each of them queue before pool before needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import chain

from agentq import AgentqError, Needs
from tests.kit.projects import load_module
from tests.kit.sample import TIMEOUT
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess
from tests.projects import routed as declarations

QUEUES = ("celery", "cpu", "small", "large", "own", "other")
A100 = Needs(gpu="a100")
L4 = Needs(gpu="l4")


@pytest.fixture
def pools_file(tmp_path: Path) -> Path:
    """The declared pools."""
    file = tmp_path / "pools.toml"
    file.write_text(declarations.POOLS)
    return file


@pytest.fixture
def routed(server: PrivateServer, pools_file: Path) -> Any:
    """The project's module; no worker takes anything away."""
    return load_module("tests.projects.routed", url=server.celery_url, AGENTQ_POOLS_FILE=str(pools_file))


@pytest.fixture
def unserved(routed: Any, server: PrivateServer) -> Iterator[Any]:
    """The same, emptied at the end: what no worker takes would stay for ever."""
    yield routed
    server.empty()


def where(module: Any) -> list[str]:
    """Return the queues in which messages wait."""
    return [queue for queue in QUEUES for _ in range(sum(module.app.store.waiting(queue).values()))]


def waits_in(module: Any, queue: str) -> bool:
    """Return whether one message waits, in this queue."""
    return where(module) == [queue]


@pytest.mark.parametrize(
    ("step", "call", "queue"),
    [
        ("bare", {}, "celery"),
        ("pooled", {}, "cpu"),
        ("needy", {}, "large"),
        ("queued", {}, "own"),
        ("fitting", {}, "small"),
        # The call's own words go before the step's, whatever their kind.
        ("queued", {"needs": L4}, "small"),
        ("queued", {"pool": "large"}, "large"),
        ("pooled", {"needs": A100}, "large"),
        ("pooled", {"pool": "small"}, "small"),
        ("needy", {"queue": "other"}, "other"),
        # Within a call: queue before pool before needs.
        ("bare", {"queue": "other", "pool": "cpu", "needs": A100}, "other"),
        ("bare", {"pool": "cpu", "needs": Needs(region="eu")}, "cpu"),
        # Of the pools that meet the needs, the step's own goes first.
        ("fitting", {"needs": Needs(vram_gb=20)}, "small"),
        ("fitting", {"needs": Needs(vram_gb=40)}, "large"),
    ],
)
def test_precedence(unserved: Any, step: str, call: dict[str, Any], queue: str) -> None:
    getattr(unserved, step).using(**call).delay(1)
    assert where(unserved) == [queue]


def test_celerys_own_queue_option_is_the_calls(unserved: Any) -> None:
    unserved.pooled.apply_async((1,), queue="other")
    unserved.pooled.using(pool="large").apply_async((1,), queue="own")
    assert where(unserved) == ["own", "other"]


def test_a_signature_carries_the_options_of_its_copy(unserved: Any) -> None:
    unserved.bare.using(pool="large").s(1).apply_async()
    chain(unserved.bare.using(pool="small").s(1), unserved.pooled.s()).apply_async()
    assert where(unserved) == ["small", "large"]


def test_what_no_pool_has_is_refused_at_once(unserved: Any) -> None:
    with pytest.raises(AgentqError, match="h100"):
        unserved.bare.using(needs=Needs(gpu="h100")).delay(1)
    for call in ({"pool": "cpu"}, {"queue": "cpu"}):
        with pytest.raises(AgentqError, match='Pool "cpu" cannot serve'):
            unserved.needy.using(**call).delay(1)
    with pytest.raises(AgentqError, match="medium"):
        unserved.bare.using(pool="medium").delay(1)
    with pytest.raises(AgentqError, match="small"):
        unserved.needy.using(pool="small").delay(1)
    assert where(unserved) == []


@pytest.mark.parametrize("priority", ["critical", "high", "normal", "low"])
def test_a_priority_chooses_the_lane(unserved: Any, priority: str) -> None:
    unserved.bare.using(priority=priority).delay(1)
    waiting = unserved.app.store.waiting("celery")
    assert {lane for lane, count in waiting.items() if count} == {priority}


def test_a_run_travels_through_pools(
    routed: Any, server: PrivateServer, start_worker: Callable[..., WorkerProcess], pools_file: Path
) -> None:
    handle = routed.travelling.using(priority="high").start(5)
    env = {"AGENTQ_POOLS_FILE": str(pools_file), "AGENTQ_GPUS": "1"}
    for queue in ("small", "cpu", "large"):
        wait_until(partial(waits_in, routed, queue), description=f"the run waits for a worker of {queue}")
        assert routed.app.store.waiting(queue)["high"] == 1, "the priority goes along"
        start_worker("tests.projects.routed", url=server.celery_url, queues=[queue], env=env, concurrency=1)
    assert handle.get(timeout=TIMEOUT) == 7
