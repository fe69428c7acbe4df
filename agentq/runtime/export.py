"""A run's journal as a file: one JSON object a line, whole in itself.

The first line is the header: `agentq_journal` (the format's version, 1), `run_id`, `agent`, `key`, `tenant`, `args`,
`kwargs` (encoded). Then come the entries of the log in their order, as `core.journal` spells them, but for two: a
result that lay elsewhere stands in its entry, and a `joined` entry has `members`, one `{"s", "v"}` each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from agentq.core.codec import dumps, loads
from agentq.core.errors import JournalUnreadable
from agentq.core.journal import Ask, Entry, Joined, Result, decode, encode
from agentq.runtime.machine import Machine

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a journal does not say of its run."""

    run_id: str
    agent: str
    key: str | None = None
    tenant: str | None = None
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Journal:
    """A run's journal that was read from a file; entries come with the members' outcomes of joins."""

    header: Header
    entries: list[tuple[Entry, list[Result]]]


def write_journal(
    header: Header,
    lines: Iterable[bytes | str],
    *,
    load_result: Callable[[str], Any],
    load_members: Callable[[Ask, Sequence[int] | None], Sequence[Result]],
) -> str:
    """The text of the file for a log; what it only points to is read by the two functions."""
    asks: dict[str, Ask] = {}
    fields = {name: getattr(header, name) for name in header.__slots__}
    written = [dumps({"agentq_journal": _FORMAT, **fields})]
    for line in lines:
        entry = decode(line)
        if isinstance(entry, Ask):
            asks[entry.id] = entry
        elif isinstance(entry, Result) and entry.large:
            entry = replace(entry, large=False, value=load_result(entry.id))
        text = encode(entry)
        if isinstance(entry, Joined):
            members = load_members(asks[entry.id], entry.at) if entry.id in asks else ()
            told = [{"s": member.status, "v": member.value} for member in members]
            text = f'{text[:-1]},"members":{dumps(told)}}}'
        written.append(text)
    return "\n".join(written) + "\n"


def read_journal(file: Path | str) -> Journal:
    """The journal in a file; raises JournalUnreadable for anything else."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    try:
        head = loads(lines[0])
        version = head.pop("agentq_journal")
        if version != _FORMAT:
            raise ValueError(f"its format is {version}, and this version of agentq reads {_FORMAT}")
        header = Header(**head)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        first = lines[0][:200] if lines else ""
        raise JournalUnreadable(entry=first, reason=f"it is no header of an exported journal: {error}") from error
    return Journal(header, [_entry(line) for line in lines[1:]])


def replay(machine: Machine, entries: Sequence[tuple[Entry, list[Result]]]) -> None:
    """The machine has seen all inputs; raises ReplayMismatch when the agent does not fit its journal."""
    for entry, _ in entries:
        if isinstance(entry, Ask):
            machine.record(entry)
    for entry, members in entries:
        if not isinstance(entry, Ask) and machine.outcome is None:
            machine.feed(entry, members)


def _entry(line: str) -> tuple[Entry, list[Result]]:
    entry = decode(line)
    if not isinstance(entry, Joined):
        return entry, []
    told = loads(line).get("members") or []
    return entry, [Result(id=f"{entry.id}/{at}", status=each["s"], value=each["v"]) for at, each in enumerate(told)]
