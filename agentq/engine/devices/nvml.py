"""What NVIDIA's driver says of the devices, by ``nvidia-ml-py`` (extra ``gpu``), which is imported at the first use.

NVML is no CUDA: a process that has asked it may fork, and its children may use CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from agentq.core.devices import Device

GB = 1e9


class NoDriver(Exception):
    """The driver cannot be asked; the text says why, and what helps."""


@dataclass(frozen=True, slots=True)
class Use:
    """How a device is used: by all processes of the machine.

    Attributes:
        busy: share of the last moments in which something ran on it, 0 to 1; None where the driver does not say (MIG).
        used_gb: of its memory, in 10^9 bytes.
    """

    busy: float | None
    used_gb: float


class Driver:
    """NVML, opened; raises NoDriver where it cannot be."""

    def __init__(self) -> None:
        try:
            self._nvml: Any = import_module("pynvml")
        except ImportError:
            raise NoDriver(
                'the driver cannot be asked without nvidia-ml-py: pip install "agentq-celery[gpu]", or say with '
                "AGENTQ_GPUS which devices there are"
            ) from None
        self.error: type[Exception] = self._nvml.NVMLError
        try:
            self._nvml.nvmlInit()
        except self.error as error:
            raise NoDriver(f"NVIDIA's driver does not answer ({error})") from None
        self._handles: dict[str, Any] = {}

    def devices(self) -> tuple[Device, ...]:
        """Return the devices as ``nvidia-smi`` counts them; of a GPU that is cut into MIG parts the parts."""
        found = []
        for index in range(self._ask(self._nvml.nvmlDeviceGetCount)):
            for handle in self._parts(self._ask(self._nvml.nvmlDeviceGetHandleByIndex, index)):
                uuid, name = (_text(self._ask(each, handle)) for each in self._identity)
                memory = float(self._ask(self._nvml.nvmlDeviceGetMemoryInfo, handle).total) / GB
                self._handles[uuid] = handle
                found.append(Device(id=uuid, index=index, kind=name, memory_gb=memory))
        return tuple(found)

    def use(self, device: str) -> Use | None:
        """Return how a device is used now; None for one that is not there, or no more."""
        handle = self._handles.get(device)
        if handle is None:
            return None
        try:
            used = float(self._nvml.nvmlDeviceGetMemoryInfo(handle).used) / GB
        except self.error:
            return None
        try:
            busy = self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        except self.error:
            busy = None
        return Use(busy=busy, used_gb=used)

    @property
    def _identity(self) -> tuple[Callable[..., Any], ...]:
        return self._nvml.nvmlDeviceGetUUID, self._nvml.nvmlDeviceGetName

    def _parts(self, handle: Any) -> Iterator[Any]:
        try:
            is_cut = self._nvml.nvmlDeviceGetMigMode(handle)[0] == self._nvml.NVML_DEVICE_MIG_ENABLE
        except self.error:
            is_cut = False
        if not is_cut:
            yield handle
            return
        for place in range(self._ask(self._nvml.nvmlDeviceGetMaxMigDeviceCount, handle)):
            try:
                yield self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
            except self.error:
                continue

    def _ask(self, question: Callable[..., Any], *args: Any) -> Any:
        try:
            return question(*args)
        except self.error as error:
            raise NoDriver(f"NVIDIA's driver answers with an error ({error})") from None


def _text(value: Any) -> str:
    # Older versions of the binding give bytes.
    return value.decode() if isinstance(value, bytes) else str(value)
