"""GPU pools with simulated devices: each step on its kind, each child on its slot's, also when children are killed."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from celery import group

from agentq import Needs
from tests.kit.process import ManagedProcess, clean_environment
from tests.kit.projects import load_module
from tests.kit.sample import lines, wait_for_lines
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess
from tests.projects import devices as declarations

PROJECT = "tests.projects.devices"
BIG, SMALL = ("GPU-b0", "GPU-b1"), ("GPU-s0", "GPU-s1")
STEPS = 1000

Places = list[dict[str, Any]]


@pytest.fixture(scope="module")
def pools_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The declared pools."""
    file = tmp_path_factory.mktemp("pools") / "pools.toml"
    file.write_text(declarations.POOLS)
    return file


@pytest.fixture(scope="module")
def notes(pools_file: Path) -> Path:
    """A line with its process for each attempt that has begun."""
    return pools_file.with_name("notes")


@pytest.fixture(scope="module")
def env(pools_file: Path, notes: Path) -> dict[str, str]:
    """What every process of the project has; a killed child makes no step a dead letter."""
    return {
        "AGENTQ_POOLS_FILE": str(pools_file),
        "AGENTQ_DEATH_LIMIT": "1000",
        "AGENTQ_SUSPECT_WAIT": "0s",
        "DEVICES_NOTES": str(notes),
    }


@pytest.fixture(scope="module")
def fleet(
    module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess], env: dict[str, str]
) -> dict[str, WorkerProcess]:
    """A worker for each pool; those with GPUs have two devices each, all four with names of their own.

    In one of them three slots share the two, and no child does more than a few steps.
    """
    plans: list[tuple[str, int, dict[str, str]]] = [
        ("cpu", 2, {}),
        ("big", 3, {"AGENTQ_GPUS": ",".join(f"a100:80@{name}" for name in BIG)}),
        ("small", 2, {"AGENTQ_GPUS": ",".join(f"l4:24@{name}" for name in SMALL)}),
    ]
    return {
        pool: start_module_worker(
            PROJECT,
            url=module_server.celery_url,
            queues=[pool],
            concurrency=slots,
            env={**env, **gpus},
            options=["--max-tasks-per-child", "25"] if pool == "big" else [],
        )
        for pool, slots, gpus in plans
    }


@pytest.fixture
def project(clean_server: PrivateServer, env: dict[str, str], fleet: dict[str, WorkerProcess]) -> Any:
    """The project's module, with its workers."""
    return load_module(PROJECT, url=clean_server.celery_url, **env)


def check(places: Places, fleet: dict[str, WorkerProcess]) -> None:
    """Each step ran in its pool's worker, on the device of its slot, which its process had from the start."""
    for place in places:
        expected = {"cpu": (None,), "big": BIG, "small": SMALL}[place["pool"]]
        assert place["main"] == fleet[place["pool"]].pid, place
        assert place["device"] in expected, place
        assert place["first"] == place["device"], place
        if place["device"] is not None:
            assert place["device"] == expected[place["slot"] % 2], place
    devices: dict[int, set[str]] = {}
    for place in places:
        devices.setdefault(place["pid"], set()).add(place["device"])
    assert all(len(seen) == 1 for seen in devices.values()), "a process changed its device"


def with_pool(places: Places, pools: tuple[str, ...]) -> Places:
    return [{**place, "pool": pools[place["number"] % len(pools)]} for place in places]


def test_a_thousand_mixed_steps_land_where_they_belong_while_children_are_killed(
    project: Any, fleet: dict[str, WorkerProcess], notes: Path, rng: random.Random
) -> None:
    """None runs on a wrong worker or device, and none is lost."""
    run = project.spread.start(STEPS)
    killed: set[int] = set()
    for share in (0.1, 0.25, 0.4, 0.55, 0.7):
        wait_for_lines(notes, int(share * STEPS))
        for pool in ("big", "small"):
            pid = rng.choice(fleet[pool].pool_children())
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
    places = with_pool(run.get(timeout=120), ("big", "small", "small"))
    assert len(places) == STEPS
    check(places, fleet)
    worked = {int(line) for line in lines(notes)}
    # One that was killed as soon as it was there has done none.
    assert len(killed & worked) >= 2, "the children that were killed had done some of the steps"
    assert {place["device"] for place in places} == {*BIG, *SMALL}
    assert "devices_shared pool=big: 3 slots share 2 devices" in fleet["big"].log()
    recycled = {place["pid"] for place in places if place["pool"] == "big"} - killed
    assert len(recycled) > 3 + 5


def test_a_group_of_steps_with_different_needs_lands_where_each_belongs(
    project: Any, fleet: dict[str, WorkerProcess]
) -> None:
    pools = ("big", "small", "cpu")
    asked = (project.on_big, project.anywhere.using(needs=Needs(gpu="l4")), project.anywhere)
    found = group(asked[number % 3].s(number) for number in range(30)).apply_async().get(timeout=60)
    check(with_pool(found, pools), fleet)


def test_a_queue_that_a_worker_has_no_devices_for_is_refused_while_it_runs_too(
    project: Any, fleet: dict[str, WorkerProcess]
) -> None:
    project.app.control.add_consumer("big")
    for pool in ("cpu", "small"):
        fleet[pool].wait_for_log("queue_refused queue=big")
    assert "queue_refused" not in fleet["big"].log()
    found = [project.on_big.delay(number) for number in range(12)]
    check([{**each.get(timeout=60), "pool": "big"} for each in found], fleet)


def test_a_worker_that_lacks_the_declared_device_does_not_start(
    server: PrivateServer, make_worker: Callable[..., WorkerProcess], env: dict[str, str]
) -> None:
    """It ends at once with the reason. A plain one, too: without -Q it serves every pool."""
    mixed = make_worker(PROJECT, url=server.celery_url, env={**env, "AGENTQ_GPUS": "a100:80,l4:24"})
    mixed.start()
    assert mixed.wait(timeout=60) == 2
    assert "cannot_start: One worker cannot serve the pools big and small" in mixed.log()
    assert "Traceback" not in mixed.log()


def test_threads_see_all_devices_and_the_operators_choice_holds(
    server: PrivateServer, start_worker: Callable[..., WorkerProcess], env: dict[str, str]
) -> None:
    worker = start_worker(
        PROJECT,
        url=server.celery_url,
        queues=["small"],
        pool="threads",
        env={**env, "AGENTQ_GPUS": "4xl4:24", "CUDA_VISIBLE_DEVICES": "3,1"},
    )
    assert "all slots of this process see all of: 3 l4 (24 GB), 1 l4 (24 GB)" in worker.log()
    module = load_module(PROJECT, url=server.celery_url, **env)
    assert module.on_small.delay(1).get(timeout=60)["device"] == "3,1"
    card = next(iter(module.app.store.workers()))
    assert [device["id"] for device in card.details["devices"]] == ["3", "1"]


def test_the_command_gives_a_gpu_pool_a_slot_for_each_device(
    server: PrivateServer, env: dict[str, str], tmp_path: Path
) -> None:
    environment = clean_environment({**env, "AGENTQ_REDIS_URL": server.celery_url, "AGENTQ_APP": f"{PROJECT}:app"})
    argv = [sys.executable, "-m", "agentq.cli", "worker", "--pool", "big"]
    good = ManagedProcess(argv, log=tmp_path / "good.log", env={**environment, "AGENTQ_GPUS": "l4:24,3xa100:80"})
    good.start()
    try:
        good.wait_for_log("devices pool=big slots=3: one for each slot, in turn, of: 1 a100 (80 GB), 2 a100")
    finally:
        good.kill_tree()
    bad = ManagedProcess(argv, log=tmp_path / "bad.log", env={**environment, "AGENTQ_GPUS": "l4:24"})
    bad.start()
    try:
        assert bad.wait(timeout=60) == 2
        assert 'is what pool "big" declares' in bad.log()
    finally:
        bad.kill_tree()
