"""Which GPUs a worker may use: how they are written, which of them a pool's tags mean, and which one a slot gets.

It must not know how they are found: a driver tells, or a setting.

The setting `AGENTQ_GPUS` is a number of devices, or a list of kinds, in the order of the devices:

    4                               four devices of which nothing else is known
    a100:80,a100:80                 two of a kind, with 80 GB each
    2xa100:80,l4:24                 the same and a third one
    a100:80@GPU-5ac1…,l4@2          with the names that CUDA_VISIBLE_DEVICES uses for them
    0                               none
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

GPU: Final = "gpu"
VRAM_GB: Final = "vram_gb"

ANY: Final = frozenset({"any", "true", "yes"})
"""As the tag `gpu`: a device of whatever kind."""

MOST_DEVICES: Final = 256
"""More is a slip of the pen."""

_ITEM: Final = re.compile(
    r"(?:(?P<count>\d+)\s*x\s*)?(?P<kind>[A-Za-z][A-Za-z0-9 ._-]*?)(?:\s*:\s*(?P<gb>\d+(?:\.\d+)?)\s*(?:GB|gb)?)?"
    r"(?:\s*@\s*(?P<id>[A-Za-z0-9/-]+))?"
)
_GRAMMAR: Final = 'write a number such as 4, or kinds with their memory in GB such as "2xa100:80,l4:24"'


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, or a part of one.

    Attributes:
        id: its name in `CUDA_VISIBLE_DEVICES`: a UUID where the driver gives one, else its number.
        index: the number of the GPU that it is, or is a part of.
        kind: the product's name; empty where it is not known.
        memory_gb: in 10^9 bytes; None where it is not known.
    """

    id: str
    index: int
    kind: str = ""
    memory_gb: float | None = None

    def describe(self) -> str:
        """The device in words."""
        memory = f" ({self.memory_gb:.0f} GB)" if self.memory_gb is not None else ""
        return f"{self.kind or 'a device of unknown kind'}{memory}"


def read_devices(text: str) -> tuple[Device, ...]:
    """The devices that the setting tells; raises ValueError with the reason where it cannot be read."""
    text = text.strip()
    if text.isdigit():
        return tuple(Device(id=str(place), index=place) for place in range(_sane(int(text))))
    found: list[tuple[str, float | None, str | None]] = []
    for word in text.split(","):
        match = _ITEM.fullmatch(word.strip())
        if match is None:
            raise ValueError(f'"{word.strip()}" is no device: {_GRAMMAR}')
        count, name = int(match["count"] or 1), match["id"]
        if count < 1:
            raise ValueError(f'"{word.strip()}" says none of a kind: leave it out')
        if count > 1 and name is not None:
            raise ValueError(f'"{word.strip()}" gives one name to {count} devices')
        memory = float(match["gb"]) if match["gb"] is not None else None
        _sane(len(found) + count)
        found += [(match["kind"].strip(), memory, name)] * count
    names = [name for _, _, name in found if name is not None]
    if names and len(names) < len(found):
        raise ValueError("some devices have names (@…) and some have none: name all, or none")
    if len(set(names)) < len(names):
        raise ValueError(f"two devices have one name: {', '.join(names)}")
    return tuple(
        Device(id=name or str(place), index=place, kind=kind, memory_gb=memory)
        for place, (kind, memory, name) in enumerate(found)
    )


def _sane(count: int) -> int:
    if count > MOST_DEVICES:
        raise ValueError(f"{count} devices are more than one machine has ({MOST_DEVICES} at the most)")
    return count


def decide_visible(devices: Sequence[Device], visible: str | None) -> tuple[Device, ...]:
    """The devices that the operator's `CUDA_VISIBLE_DEVICES` leaves, in its order; None leaves all.

    Numbers count as `nvidia-smi` does. A UUID may be cut as long as it names one device alone. Raises ValueError for a
    device that is not there, where CUDA would silently leave out all that follow.
    """
    if visible is None:
        return tuple(devices)
    words = [word.strip() for word in visible.split(",")]
    if words[0].lower() in ("", "-1", "none", "void", "nodevfiles"):
        return ()
    return tuple(dict.fromkeys(_named(devices, word) for word in words))


def _named(devices: Sequence[Device], word: str) -> Device:
    # Of a GPU that is cut into parts its number means the first one, as in CUDA.
    found = [each for each in devices if str(each.index) == word][:1] if word.isdigit() else []
    found = found or [each for each in devices if each.id == word]
    if not found and not word.isdigit():
        found = [each for each in devices if word and each.id.startswith(word)]
    if len(found) != 1:
        what = "names more than one device" if found else "names no device of this machine"
        raise ValueError(
            f'CUDA_VISIBLE_DEVICES: "{word}" {what}; there are {", ".join(d.id for d in devices) or "none"}'
        )
    return found[0]


def is_gpu_pool(tags: Mapping[str, str]) -> bool:
    """Whether a pool with these tags is for machines with a GPU."""
    return GPU in tags


def decide_devices(devices: Sequence[Device], tags: Mapping[str, str]) -> tuple[Device, ...]:
    """Those of the devices that are what the pool's tags say: of the kind `gpu`, with `vram_gb` at the least.

    What is not known of a device is taken to be right: whoever wrote the setting has left it out.
    """
    return tuple(each for each in devices if _is_kind(each.kind, tags.get(GPU)) and _has(each, tags.get(VRAM_GB)))


def decide_device(devices: Sequence[Device], slot: int) -> Device:
    """The device of a worker's slot, which counts from 0; with more slots than devices they share them in turn."""
    return devices[slot % len(devices)]


def _is_kind(kind: str, tag: str | None) -> bool:
    """Whether every word of the tag is a word of the product's name, or some that follow one another.

    So `a100` is an "NVIDIA A100-SXM4-80GB" and `rtx4090` an "NVIDIA GeForce RTX 4090", and `a10` is neither.
    """
    if tag is None or not kind or tag.lower() in ANY:
        return True
    words = _words(kind)
    joined = {"".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)}
    return all(word in joined for word in _words(tag))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def _has(device: Device, tag: str | None) -> bool:
    if tag is None or device.memory_gb is None:
        return True
    try:
        return device.memory_gb >= float(tag)
    except ValueError:
        return False
