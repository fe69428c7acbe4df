"""How much memory a process may still get, by the machine and by the control groups that it runs in (Linux)."""

from __future__ import annotations

from pathlib import Path

KIB = 1024


def free_bytes(root: Path = Path("/")) -> int | None:
    """Return how much is free: of the machine, or of the container that has least; None where that cannot be told."""
    found = [_machine(root), *(_group(folder) for folder in _groups(root))]
    known = [each for each in found if each is not None]
    return min(known) if known else None


def _machine(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * KIB
    return None


def _groups(root: Path) -> list[Path]:
    """Return the folders of the control groups that this process is in, the innermost first (version 2)."""
    for line in _lines(root / "proc/self/cgroup"):
        if line.startswith("0::"):
            path = line[3:].strip().lstrip("/")
            top = root / "sys/fs/cgroup"
            inner = top / path
            return [inner, *(each for each in inner.parents if each == top or top in each.parents)]
    return []


def _group(folder: Path) -> int | None:
    most = next(iter(_lines(folder / "memory.max")), "max").strip()
    used = next(iter(_lines(folder / "memory.current")), "").strip()
    if not most.isdigit() or not used.isdigit():
        return None
    # The kernel gives back pages of files that nobody reads before it ends a process.
    idle = [line.split()[1] for line in _lines(folder / "memory.stat") if line.startswith("inactive_file ")]
    return max(0, int(most) - int(used) + int(idle[0] if idle else 0))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
