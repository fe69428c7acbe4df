"""Real workers that a controller starts and drains: nothing is killed, run twice or lost by it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.scaled import ScaledPool
from tests.kit.server import PrivateServer


@pytest.fixture
def pool(server: PrivateServer, tmp_path: Path) -> Iterator[Callable[..., ScaledPool]]:
    made: list[ScaledPool] = []

    def make(**spec: Any) -> ScaledPool:
        made.append(ScaledPool(server, tmp_path, **spec))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=["fused", "rabbitmq"])
def env(request: pytest.FixtureRequest) -> dict[str, str]:
    """Both modes: what waits in RabbitMQ is counted, taken and handed back otherwise."""
    if request.param == "fused":
        return {}
    return {"AGENTQ_BROKER_URL": request.getfixturevalue("rabbitmq").url}


@pytest.mark.parametrize("transport", ["auto", "stock"])
def test_a_worker_that_is_drained_under_load_ends_what_it_runs(pool: Callable[..., ScaledPool], transport: str) -> None:
    scaled = pool(max=2, env={"AGENTQ_TRANSPORT": transport})
    scaled.send(range(20), 0.2)
    scaled.run_until(lambda: scaled.up == 2, what="two workers")
    scaled.change(max=1)
    scaled.run_until(lambda: scaled.up == 1, what="one has gone while steps ran")
    scaled.run_until(lambda: scaled.each_once(range(20)), what="all steps have ended")


@pytest.mark.long
def test_from_zero_under_load_smaller_and_back_to_zero(pool: Callable[..., ScaledPool], env: dict[str, str]) -> None:
    scaled = pool(max=3, env=env)
    scaled.send(range(40), 0.2)
    scaled.run_until(lambda: scaled.up == 3, what="three workers")
    scaled.change(max=1)
    scaled.run_until(lambda: scaled.up == 1, what="two have gone while steps ran")
    scaled.run_until(lambda: scaled.each_once(range(40)), what="all steps have ended")
    scaled.run_until(lambda: scaled.up == 0, what="nobody is left")
    assert scaled.each_once(range(40))
    assert scaled.store.drains() == {}, "the marks have gone with the workers"


@pytest.mark.long
def test_twenty_scale_downs_under_load(pool: Callable[..., ScaledPool], env: dict[str, str]) -> None:
    scaled = pool(max=4, env=env)
    sent, downs = 0, 0
    while downs < 20:
        numbers = range(sent, sent + 60)
        scaled.send(numbers, 0.3)
        sent = numbers.stop
        scaled.change(max=4)
        scaled.run_until(lambda: scaled.up == 4, what="four workers")
        scaled.change(max=1)
        scaled.run_until(lambda: scaled.up == 1, what="three have gone")
        downs += 3
        assert any(nap.ends == () for nap in scaled.naps().values()) or len(scaled.naps()) < sent, "it was under load"
    scaled.run_until(lambda: scaled.each_once(range(sent)), what="all steps have ended", timeout=300)
    scaled.run_until(lambda: scaled.up == 0, what="nobody is left")
    assert scaled.each_once(range(sent))


@pytest.mark.long
def test_a_burst_from_zero_is_picked_up_within_a_start_and_two_seconds(
    pool: Callable[..., ScaledPool], env: dict[str, str]
) -> None:
    scaled = pool(max=8, slo_wait=timedelta(seconds=5), idle_to_zero=timedelta(seconds=5), shrink_after=None, env=env)
    scaled.run_until(lambda: len(scaled.decisions) >= 4, what="it leads")
    assert scaled.up == 0
    burst = scaled.send(range(200), 1.0)
    scaled.run_until(lambda: scaled.each_once(range(200)), what="all steps have ended", timeout=240)
    startup = scaled.controller.controls["naps"].startup_s
    first = min(nap.begins[0] for nap in scaled.naps().values()) - burst
    ended = time.time()
    assert max(each.desired for each in scaled.decisions) == 8
    print(f"first step after {first:.2f} s, a worker starts in {startup:.2f} s")  # noqa: T201 — a figure for the docs
    assert first <= startup + 2
    scaled.run_until(lambda: scaled.up == 0, what="nobody is left")
    assert time.time() - ended < scaled.controller.controls["naps"].spec.idle_to_zero.total_seconds() + 30
    print(f"at zero {time.time() - ended:.1f} s after the last step")  # noqa: T201 — the same
