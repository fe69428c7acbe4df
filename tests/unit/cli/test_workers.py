"""Pools become command lines of stock Celery workers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentq.cli.errors import CommandRefused
from agentq.cli.locate import AppSource
from agentq.cli.workers import (
    HASH_SEED,
    check_installed,
    child_environment,
    plan_one_worker,
    plan_workers,
    servable,
    with_devices,
    worker_argv,
)
from agentq.core.errors import DevicesMissing, UnknownPool
from agentq.core.pools import PoolSpec
from agentq.engine.devices.finding import Outfit, find_outfit

POOLS = {
    spec.name: spec
    for spec in (
        PoolSpec(name="managers", kind="threads"),
        PoolSpec(name="tools", concurrency=4),
        PoolSpec(name="search", concurrency=2),
        PoolSpec(name="gpu", kind="solo", time_limit=timedelta(hours=1)),
    )
}


def test_one_worker_for_each_pool_or_for_those_alike() -> None:
    assert [plan.pools for plan in plan_workers(POOLS, POOLS)] == [
        ("managers",),
        ("tools",),
        ("search",),
        ("gpu",),
    ]
    plans = plan_workers(POOLS, POOLS, together=True)
    assert [(plan.name, plan.kind) for plan in plans] == [
        ("managers", "threads"),
        ("tools+search", "prefork"),
        ("gpu", "solo"),
    ]
    assert [plan.concurrency for plan in plans][1:] == [5, 1]
    assert plans[0].concurrency >= 32


def test_the_command_line() -> None:
    plan = plan_one_worker(POOLS, ["gpu"], concurrency=None)
    argv = worker_argv(plan, "shop.app:celery")
    line = " ".join(argv[1:])
    assert "-A shop.app:celery worker --queues gpu --pool solo --concurrency 1" in line
    assert "--soft-time-limit=3600 --time-limit=3630" in line
    assert "time-limit" not in " ".join(worker_argv(plan_one_worker(POOLS, ["tools"], concurrency=7), "a:b"))


def test_a_pools_own_limits_reach_the_worker() -> None:
    spec = PoolSpec(
        name="p",
        concurrency=1,
        time_limit=timedelta(seconds=5),
        hard_time_limit=timedelta(seconds=8),
        max_tasks_per_child=7,
    )
    line = " ".join(worker_argv(plan_one_worker({"p": spec}, ["p"], concurrency=None), "a:b"))
    assert "--soft-time-limit=5 --time-limit=8 --max-tasks-per-child=7" in line
    with pytest.raises(CommandRefused, match="p: prefork, time limit 5 s, hard 8 s, 7 tasks a child; tools: prefork"):
        plan_one_worker({**POOLS, "p": spec}, ["p", "tools"], concurrency=None)


def test_gevent_must_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_one_worker({"g": PoolSpec(name="g", kind="gevent")}, ["g"], concurrency=None)
    assert plan.concurrency >= 32
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CommandRefused, match="gevent is not installed here: pip install gevent"):
        check_installed(plan)
    check_installed(plan_one_worker(POOLS, ["tools"], concurrency=None))


def test_two_workers_never_have_one_name() -> None:
    plan = plan_one_worker(POOLS, ["tools", "search"], concurrency=3)
    assert plan.concurrency == 3
    names = {argv[argv.index("--hostname") + 1] for argv in (worker_argv(plan, "a:b"), worker_argv(plan, "a:b"))}
    assert len(names) == 2


def test_pools_that_are_not_alike_are_refused() -> None:
    with pytest.raises(CommandRefused, match="managers: threads; tools: prefork"):
        plan_one_worker(POOLS, ["managers", "tools"], concurrency=None)
    with pytest.raises(UnknownPool, match="tols"):
        plan_one_worker(POOLS, ["tols"], concurrency=None)


def test_children_find_the_application_and_hash_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    env = child_environment(AppSource("shop.app:app", "-A", tmp_path))
    assert env["PYTHONPATH"].split(":")[0] == str(tmp_path)
    assert env["PYTHONPATH"].endswith(":/elsewhere")
    assert env["PYTHONHASHSEED"] == HASH_SEED
    assert env["AGENTQ_APP"] == "shop.app:app"


class Machine:
    """What the planning of workers asks the application: its pools, and the devices that are here."""

    def __init__(self, devices: str) -> None:
        self.pools = {
            spec.name: spec
            for spec in (
                PoolSpec(name="tools", concurrency=2),
                PoolSpec(name="search", concurrency=2),
                PoolSpec(name="big", tags={"gpu": "a100"}, slots_per_gpu=2),
                PoolSpec(name="small", tags={"gpu": "l4"}),
                PoolSpec(name="fixed", concurrency=1, tags={"gpu": "l4"}),
            )
        }
        self._devices = devices

    def outfit_for(self, queues: Iterable[str]) -> Outfit | None:
        return find_outfit(self.pools, queues, gpus=self._devices)


def test_a_gpu_pool_has_slots_by_devices_and_a_worker_of_its_own() -> None:
    machine: Any = Machine("2xa100:80,l4:24")
    pools = with_devices(machine, machine.pools)
    assert {name: pools[name].concurrency for name in ("big", "small", "fixed")} == {"big": 4, "small": 1, "fixed": 1}
    plans = plan_workers(pools, pools, together=True)
    assert [plan.pools for plan in plans] == [("tools", "search"), ("big",), ("small",), ("fixed",)]
    with pytest.raises(CommandRefused, match="for each pool with GPUs"):
        plan_one_worker(pools, ["big", "tools"], concurrency=None)


def test_what_this_machine_has_no_device_for_is_told_and_left_out() -> None:
    machine: Any = Machine("l4:24")
    good, words = servable(machine, machine.pools)
    assert good == ["tools", "search", "small", "fixed"]
    assert [each.partition(":")[0] for each in words] == ["No worker for pool big"]
    with pytest.raises(DevicesMissing, match="gpu=a100"):
        with_devices(machine, ["big"])
