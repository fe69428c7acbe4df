"""Which devices a worker uses: those of its machine that are what its pool's tags say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from agentq.core.devices import (
    GPU,
    VRAM_GB,
    Device,
    decide_devices,
    decide_visible,
    is_gpu_pool,
    read_devices,
)
from agentq.core.errors import DevicesMissing, InvalidSetting
from agentq.core.pools import PoolSpec
from agentq.engine.devices.nvml import Driver, NoDriver

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Outfit:
    """The devices of a worker.

    Attributes:
        pool: the GPU pool that it serves.
        devices: what is of use to the pool, at least one.
        driver: who can be asked how they are used; None where a setting names them.
    """

    pool: str
    devices: tuple[Device, ...]
    driver: Driver | None = None

    def uses(self) -> dict[str, dict[str, float | None]]:
        """Return how each device is used now, as JSON holds it; nothing of those whose driver does not say."""
        found = {} if self.driver is None else {each.id: self.driver.use(each.id) for each in self.devices}
        return {
            name: {"busy": use.busy, "used_gb": round(use.used_gb, 1)} for name, use in found.items() if use is not None
        }


def find_outfit(
    pools: Mapping[str, PoolSpec],
    queues: Iterable[str],
    *,
    gpus: str | None,
    open_driver: Callable[[], Driver] = Driver,
) -> Outfit | None:
    """Return the devices for a worker of these queues; None where none of them is a GPU pool's.

    ``gpus`` is the setting, which says what there is instead of the driver. What the operator's CUDA_VISIBLE_DEVICES
    leaves out is left out.

    Raises:
        DevicesMissing: the machine has no device such as the pool's tags say, or pools of several kinds are to share
            this worker.
        InvalidSetting: CUDA_VISIBLE_DEVICES names what is not there.
    """
    served = [pools[name] for name in queues if name in pools and is_gpu_pool(pools[name].tags)]
    if not served:
        return None
    wishes = {_wish(spec): spec for spec in served}
    if len(wishes) > 1:
        raise DevicesMissing(
            pool=" and ".join(spec.name for spec in wishes.values()),
            tags={},
            reason="they want devices of different kinds: start a worker for each",
        )
    spec = served[0]
    devices, driver, reason = _present(gpus, open_driver)
    fit = decide_devices(devices, spec.tags)
    if not fit:
        raise DevicesMissing(
            pool=spec.name, tags=dict(_wish(spec)), found=[each.describe() for each in devices], reason=reason
        )
    return Outfit(pool=spec.name, devices=fit, driver=driver)


def _wish(spec: PoolSpec) -> tuple[tuple[str, str], ...]:
    return tuple((name, spec.tags[name]) for name in (GPU, VRAM_GB) if name in spec.tags)


def _present(gpus: str | None, open_driver: Callable[[], Driver]) -> tuple[tuple[Device, ...], Driver | None, str]:
    """Return the devices that this process may use, who told, and why there are none."""
    visible = os.environ.get(VISIBLE)
    hidden = f"{VISIBLE}={visible!r} hides the others" if visible is not None else ""
    if gpus is not None:
        return _visible(read_devices(gpus), visible), None, hidden or f"AGENTQ_GPUS={gpus} says so"
    try:
        driver = open_driver()
        devices = driver.devices()
    except NoDriver as error:
        return (), None, str(error)
    return _visible(devices, visible), driver, hidden


def _visible(devices: tuple[Device, ...], visible: str | None) -> tuple[Device, ...]:
    try:
        return decide_visible(devices, visible)
    except ValueError as error:
        raise InvalidSetting(name=VISIBLE, value=visible, reason=str(error), source="environment") from error
