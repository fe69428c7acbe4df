"""Gives each child of a worker's pool its device, by ``CUDA_VISIBLE_DEVICES``, before it runs anything of the user's.

CUDA reads the variable when it is first used in a process, so that modules which the main process has imported may know
CUDA, but must not have used it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from celery.utils.log import get_logger

from agentq.core.devices import Device, decide_device
from agentq.core.errors import DeviceTaken
from agentq.engine.devices.finding import VISIBLE, Outfit
from agentq.engine.request import has_children

logger = get_logger(__name__)

PLACE = "_AGENTQ_DEVICES"
"""Variable by which the pool's children know the devices, however they were started."""


def equip(worker: Any, outfit: Outfit) -> None:
    """Have this worker's children get a device each, by their slots; threads share all of them.

    Called before the pool starts. Raises DeviceTaken when CUDA was used in this process already: a forked child could
    not use it any more.
    """
    refuse_used(outfit.pool)
    names = [device.id for device in outfit.devices]
    words = ", ".join(f"{device.id} {device.describe()}" for device in outfit.devices)
    if not forks(worker):
        os.environ[VISIBLE] = ",".join(names)
        logger.info("devices pool=%s: all slots of this process see all of: %s", outfit.pool, words)
        return
    os.environ[PLACE] = ",".join(names)
    slots = int(worker.concurrency)
    logger.info("devices pool=%s slots=%d: one for each slot, in turn, of: %s", outfit.pool, slots, words)
    if slots < len(names):
        logger.warning("devices_idle pool=%s: %d devices and %d slots", outfit.pool, len(names), slots)
    elif slots > len(names):
        logger.warning(
            "devices_shared pool=%s: %d slots share %d devices, and their memory", outfit.pool, slots, len(names)
        )


def forget() -> None:
    """Undo ``equip`` for children of pools that start later."""
    os.environ.pop(PLACE, None)


def is_pinned() -> bool:
    """Tell whether this worker's children get devices by their slots."""
    return bool(os.environ.get(PLACE))


def pin(slot: int) -> None:
    """Let this process, the child in a slot of a pool, see its device and no other; nothing happens in other pools."""
    names = [name for name in os.environ.get(PLACE, "").split(",") if name]
    if not names or slot < 0:
        return
    devices = [Device(id=name, index=place) for place, name in enumerate(names)]
    os.environ[VISIBLE] = decide_device(devices, slot).id


def forks(worker: Any) -> bool:
    """Tell whether a worker's pool, which need not have started, runs its steps in processes of their own."""
    from celery.concurrency.prefork import TaskPool

    return issubclass(worker.pool_cls, TaskPool) if isinstance(worker.pool_cls, type) else has_children(worker.pool)


def refuse_used(pool: str) -> None:
    """Return if no CUDA was used in this process yet, as far as can be seen."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_initialized():
        raise DeviceTaken(pool=pool)
