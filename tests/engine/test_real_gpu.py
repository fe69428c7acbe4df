"""Pinning on NVIDIA's hardware: chosen with ``pytest -m gpu``; wants torch and the extra ``gpu``."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from celery import group

from agentq.engine.devices.nvml import Driver
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess
from tests.projects import hardware

PROJECT = "tests.projects.hardware"


@pytest.mark.gpu
def test_each_child_computes_on_the_device_of_its_slot(
    server: PrivateServer, start_worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    """Two slots for each device; a child is killed, and the next one computes on the same device."""
    driver = Driver()
    devices = driver.devices()
    names = {device.id for device in devices}
    pools = tmp_path / "pools.toml"
    pools.write_text(hardware.POOLS)
    env = {"AGENTQ_POOLS_FILE": str(pools), "AGENTQ_DEATH_LIMIT": "100"}
    slots = 2 * len(devices)
    worker = start_worker(PROJECT, url=server.celery_url, queues=["cuda"], concurrency=slots, env=env)
    module = load_module(PROJECT, url=server.celery_url, **env)

    def compute() -> list[dict[str, Any]]:
        found = group(module.multiply.s(number) for number in range(20 * slots)).apply_async().get(timeout=240)
        for place in found:
            assert place["visible"] in names
            assert place["count"] == 1
            assert place["uuid"] in ("", place["visible"].removeprefix("GPU-"))
            assert place["sum"] == 64 * 64 * 64 * place["number"] ** 2
        assert {place["visible"] for place in found} == names
        return list(found)

    before = {place["pid"] for place in compute()}
    for pid in worker.pool_children():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert before.isdisjoint(place["pid"] for place in compute())
    card = module.app.store.workers()[0]
    assert {device["id"] for device in card.details["devices"]} == names
    assert all(driver.use(name) is not None for name in names)
