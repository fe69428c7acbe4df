"""Which files of a folder are read, in what slices, and how these are shared among steps.

Owns the walk, the rules for links and hidden folders, and the cutting of large files. Knows no words.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from workers.agents.retrieval.models import Kind, Listing, Part, Slice, Unread
from workers.agents.retrieval.reading import Unreadable, cut_pages, cut_text

KINDS: dict[str, Kind] = {
    ".md": "markdown", ".markdown": "markdown", ".mdx": "markdown", ".txt": "text", ".text": "text",
    ".rst": "rst", ".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf",
}  # fmt: skip
SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__"})
"""Passed over like those whose name begins with a dot."""

CHUNK_FILES = 400
"""Files in one listing: about 40 KB of JSON."""
CHUNK_BYTES = 256 * 1024 * 1024
"""A listing ends early when so many bytes stood in files that had to be cut (which reads them once)."""
SLICE_BYTES = 512 * 1024
"""The most that a step holds of a file at once; reading it takes about twelve times as much memory."""
PARTS = 128
"""Up to so many slices each is a part of its own. Beyond, neighbours share a part, so that the fan-out stays
small."""
_LEAST_WEIGHT = 4096
"""Opening a file costs about as much as reading this many bytes."""

_Key = tuple[str, ...]


def list_files(folder: str, after: str | None = None) -> Listing:
    """The next chunk of the folder's readable files after the path `after`, in the order of their paths.

    Links are followed only to files inside the folder that the walk would not meet by itself; a link that
    leads out of it or back up is reported. Never raises for what stands in the folder.
    """
    root = Path(folder).expanduser()
    place = str(root.absolute())
    if not os.path.lexists(root) or not root.exists():
        return Listing(problem="missing", place=place)
    if not root.is_dir():
        return Listing(problem="not_a_folder", place=place)
    root = root.resolve()
    try:
        with os.scandir(root):
            pass
    except OSError:
        return Listing(problem="unreadable", place=place)
    return _chunk(root, tuple(after.split("/")) if after else (), place)


def _chunk(root: Path, after: _Key, place: str) -> Listing:
    slices: list[Slice] = []
    unread: list[Unread] = []
    other: dict[str, int] = {}
    seen = cut_bytes = 0
    last = ""
    for name, met in _walk(root, root, (), after):
        if seen >= CHUNK_FILES or cut_bytes >= CHUNK_BYTES:
            return Listing(place=place, slices=slices, unread=unread, other=other, after=last)
        seen, last = seen + 1, name
        if isinstance(met, str):
            unread.append(Unread(file=_printable(name), reason=met))
            continue
        suffix = Path(name).suffix.lower()
        if suffix not in KINDS:
            kind = _printable(suffix) or "no suffix"
            other[kind] = other.get(kind, 0) + 1
            continue
        try:
            cut = slice_file(met, name, KINDS[suffix])
        except Unreadable as problem:
            unread.append(Unread(file=_printable(name), reason=str(problem)))
            continue
        cut_bytes += 0 if len(cut) == 1 else sum(piece.weight for piece in cut)
        slices.extend(cut)
    return Listing(place=place, slices=slices, unread=unread, other=other)


def _walk(root: Path, folder: Path, key: _Key, after: _Key) -> Iterator[tuple[str, Path | str]]:
    """Yields (relative path, the file or the reason why it cannot be read) in the order of path parts."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as problem:
        yield "/".join(key), f"the folder cannot be listed: {problem.strerror or problem}"
        return
    for entry in entries:
        here = (*key, entry.name)
        if here < after[: len(here)] or here == after:
            continue
        name = "/".join(here)
        if entry.is_dir(follow_symlinks=False):
            if not entry.name.startswith(".") and entry.name not in SKIPPED_FOLDERS:
                yield from _walk(root, Path(entry.path), here, after)
        elif not entry.name.startswith("."):
            met = _linked(root, Path(entry.path)) if entry.is_symlink() else _plain(entry)
            if met is not None:
                yield name, met


def _plain(entry: os.DirEntry[str]) -> Path | str:
    if not entry.is_file(follow_symlinks=False):
        return "it is not a regular file (a pipe, a socket or a device)"
    try:
        entry.path.encode()
    except UnicodeEncodeError:
        return "its name is not valid text"
    return Path(entry.path)


def _linked(root: Path, link: Path) -> Path | str | None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as problem:
        loop = isinstance(problem, RuntimeError) or "symbolic link" in str(problem).lower()
        return "a symbolic link that leads to itself" if loop else "a symbolic link that leads nowhere"
    if not target.is_relative_to(root):
        return "a symbolic link out of the folder: not followed"
    if link.parent.resolve().is_relative_to(target):
        return f"a symbolic link back up to {target.relative_to(root).as_posix()!r} (a loop): not followed"
    below = target.relative_to(root).parts
    hidden = any(part.startswith(".") or part in SKIPPED_FOLDERS for part in below)
    # What a walk meets under its own name is not read twice; a mounted ConfigMap, all of whose files are
    # links into a hidden folder, is read.
    return target if hidden and target.is_file() else None


def slice_file(path: Path, name: str, kind: Kind) -> list[Slice]:
    """The file's slices: one, or more where it is larger than `SLICE_BYTES`. Raises Unreadable."""
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as problem:
        raise Unreadable(f"it cannot be opened: {problem.strerror or problem}") from problem
    if size <= SLICE_BYTES:
        return [Slice(file=name, kind=kind, weight=size)]
    if kind == "pdf":
        return [
            Slice(file=name, kind=kind, start=start, end=end, weight=(end - start) * _LEAST_WEIGHT)
            for start, end in cut_pages(path)
        ]
    encoding, cuts = cut_text(path, SLICE_BYTES)
    return [
        Slice(file=name, kind=kind, start=start, end=end, line=line, encoding=encoding, weight=end - start)
        for start, end, line in cuts
    ]


def plan_parts(folder: str, slices: Sequence[Slice], *, parts: int = PARTS) -> list[Part]:
    """The slices shared among parts, in their order: one each up to `parts`, else neighbours together."""
    if len(slices) <= parts:
        return [Part(folder=folder, slices=[piece]) for piece in slices]
    share = sum(max(piece.weight, _LEAST_WEIGHT) for piece in slices) / parts
    limit = min(share, SLICE_BYTES)
    planned: list[Part] = []
    group: list[Slice] = []
    weight = 0
    for piece in slices:
        cost = max(piece.weight, _LEAST_WEIGHT)
        if group and weight + cost / 2 > limit:
            planned.append(Part(folder=folder, slices=group))
            group, weight = [], 0
        group.append(piece)
        weight += cost
    return [*planned, Part(folder=folder, slices=group)] if group else planned


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
