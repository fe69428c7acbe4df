"""Which devices a worker gets, by its pools' tags, the setting, the driver and the operator; a driver made of paper."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from agentq.core.devices import Device
from agentq.core.errors import DevicesMissing, DeviceTaken, InvalidSetting
from agentq.core.pools import PoolSpec
from agentq.engine.devices import nvml, pinning
from agentq.engine.devices.finding import Outfit, find_outfit

POOLS = {
    spec.name: spec
    for spec in (
        PoolSpec(name="cpu"),
        PoolSpec(name="big", tags={"gpu": "a100", "vram_gb": "80"}),
        PoolSpec(name="far", tags={"gpu": "a100", "vram_gb": "80", "region": "us"}),
        PoolSpec(name="small", tags={"gpu": "l4"}),
    )
}


class PaperNvml:
    """What the binding has that is used: an A100, an L4, and an H100 in two parts."""

    NVML_DEVICE_MIG_ENABLE = 1

    class NVMLError(Exception):
        pass

    names: ClassVar[dict[str, Any]] = {
        "GPU-1": "NVIDIA A100-SXM4-80GB",
        "GPU-2": b"NVIDIA L4",
        "MIG-1": "NVIDIA H100 MIG 1g.10gb",
        "MIG-2": "NVIDIA H100 MIG 1g.10gb",
    }
    memory: ClassVar[dict[str, float]] = {"GPU-1": 85.9e9, "GPU-2": 24.1e9, "MIG-1": 10.2e9, "MIG-2": 10.2e9}

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return ("GPU-1", "GPU-2", "GPU-3")[index]

    def nvmlDeviceGetMigMode(self, handle: str) -> tuple[int, int]:
        if handle == "GPU-2":
            raise self.NVMLError("not supported")
        return (1, 1) if handle == "GPU-3" else (0, 0)

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, place: int) -> str:
        if place > 1:
            raise self.NVMLError("not found")
        return f"MIG-{place + 1}"

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def nvmlDeviceGetName(self, handle: str) -> Any:
        return self.names[handle]

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        return SimpleNamespace(total=self.memory[handle], used=1.5e9)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:
        if handle.startswith("MIG"):
            raise self.NVMLError("not supported")
        return SimpleNamespace(gpu=40)


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a driver."""
    monkeypatch.setattr(nvml, "import_module", lambda _name: PaperNvml())
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def ids(outfit: Outfit | None) -> list[str]:
    assert outfit is not None
    return [device.id for device in outfit.devices]


@pytest.mark.usefixtures("paper")
def test_the_driver_names_devices_by_uuid_and_parts_one_by_one() -> None:
    assert ids(find_outfit(POOLS, ["big"], gpus=None)) == ["GPU-1"]
    assert ids(find_outfit(POOLS, ["small", "cpu"], gpus=None)) == ["GPU-2"]
    parts = {"parts": PoolSpec(name="parts", tags={"gpu": "h100"})}
    outfit = find_outfit(parts, ["parts"], gpus=None)
    assert ids(outfit) == ["MIG-1", "MIG-2"]
    assert outfit is not None
    assert outfit.devices[0] == Device("MIG-1", 2, "NVIDIA H100 MIG 1g.10gb", 10.2)


@pytest.mark.usefixtures("paper")
def test_the_driver_says_how_a_device_is_used() -> None:
    driver = nvml.Driver()
    driver.devices()
    assert driver.use("GPU-1") == nvml.Use(busy=0.4, used_gb=1.5)
    assert driver.use("MIG-1") == nvml.Use(busy=None, used_gb=1.5)
    assert driver.use("GPU-9") is None


@pytest.mark.usefixtures("paper")
def test_pools_without_devices_need_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "import_module", None)
    assert find_outfit(POOLS, ["cpu", "celery"], gpus=None) is None


@pytest.mark.usefixtures("paper")
def test_the_setting_speaks_instead_of_the_driver() -> None:
    assert ids(find_outfit(POOLS, ["big"], gpus="2xa100:80,l4:24")) == ["0", "1"]
    assert ids(find_outfit(POOLS, ["big", "far"], gpus="4")) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("gpus", "visible", "queues", "words"),
    [
        ("a100:40", None, ["big"], "this worker may use: a100 (40 GB)"),
        ("0", None, ["small"], "this worker may use: no device; AGENTQ_GPUS=0 says so"),
        ("2xl4:24", "", ["small"], "CUDA_VISIBLE_DEVICES='' hides the others"),
        ("a100:80,l4:24", None, ["big", "small"], "One worker cannot serve the pools big and small"),
        (None, "GPU-2", ["big"], "this worker may use: NVIDIA L4 (24 GB); CUDA_VISIBLE_DEVICES='GPU-2' hides"),
    ],
)
@pytest.mark.usefixtures("paper")
def test_what_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, gpus: str | None, visible: str | None, queues: list[str], words: str
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(DevicesMissing) as caught:
        find_outfit(POOLS, queues, gpus=gpus)
    assert words in str(caught.value)


def test_without_the_binding_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(nvml, "import_module", missing)
    with pytest.raises(DevicesMissing, match=r"agentq-celery\[gpu\]"):
        find_outfit(POOLS, ["big"], gpus=None)


@pytest.mark.usefixtures("paper")
def test_a_device_that_the_operator_invents_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(InvalidSetting, match='"7" names no device of this machine; there are GPU-1, GPU-2'):
        find_outfit(POOLS, ["big"], gpus=None)


def test_a_child_sees_the_device_of_its_slot_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pinning.PLACE, "GPU-1,GPU-2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    pinning.pin(3)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-2"
    monkeypatch.delenv(pinning.PLACE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    pinning.pin(0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_cuda_that_was_used_before_the_children_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(is_initialized=lambda: False)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    pinning.refuse_used("big")
    cuda.is_initialized = lambda: True
    with pytest.raises(DeviceTaken, match=r"@app\.resource"):
        pinning.refuse_used("big")
