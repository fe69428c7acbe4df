"""Runs that are looked after from outside, since a run that hangs cannot look after itself.

A run is listed with the time of its next look when it begins. It must not know the rules: those are ``core.zombies``'.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from agentq.core.journal import Resume, decode
from agentq.core.zombies import Standing
from agentq.store.logs import LogCalls
from agentq.store.reading import Reads

_PAGE: Final = 500
"""Lines of history, or records, that are read at once."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A run that is looked after.

    Attributes:
        watch: after how many ms, by ``quiet`` and ``wall``.
        is_stopped: it stands still already.
        lines: how long its log was when this was read.
    """

    standing: Standing
    watch: dict[str, int]
    is_stopped: bool
    lines: int


class WatchCalls(LogCalls, Reads):
    """The list of them, and how each stands."""

    def watched(self, *, limit: int = 50) -> list[tuple[str, str]]:
        """Return root and id of runs that are to be looked at now."""
        key = self.keys.of("watched")
        if not self.guarded(lambda: self.client.exists(key)):
            return []
        now = self.now_ms()
        names = self.guarded(lambda: self.client.zrangebyscore(key, "-inf", now, start=0, num=limit))
        split = [name.decode().partition("|") for name in names]
        return [(root, run) for root, _, run in split]

    def look_again(self, root: str, run: str, at_ms: int | None) -> None:
        """Set when a run is looked at next; None: not any more."""
        key, name = self.keys.of("watched"), f"{root}|{run}"
        if at_ms is None:
            self.guarded(lambda: self.client.zrem(key, name))
        else:
            self.guarded(lambda: self.client.zadd(key, {name: at_ms}, xx=True))

    def stops(self, root: str) -> list[tuple[str, str]]:
        """Return the runs of a tree that a rule or a person has stopped, each with the reason."""
        marks = self.guarded(lambda: self.client.smembers(self.keys.of("cancelled", root)))
        runs = sorted(mark.decode().removeprefix("stop|") for mark in marks if mark.startswith(b"stop|"))
        return [(run, self.record(root, run).get("st", "")) for run in runs]

    def standing(self, root: str, run: str) -> Watched | None:
        """Return how a run stands; None when it has ended."""
        record = self.record(root, run)
        if not record or record.get("s") == "d" or "zw" not in record:
            return None
        watch: dict[str, int] = {name: int(span) for name, span in json.loads(record["zw"]).items()}
        lines = self.read_log(root, run)
        now, since, allowed = self.now_ms(), int(record["c"]), frozenset[str]()
        moved = max(since, int(record.get("b", 0)), _last_time(lines))
        for line in lines:
            if b'"k":"resume"' in line and isinstance(entry := decode(line), Resume):
                since = max(since, entry.t or 0)
                allowed |= frozenset(entry.allow)
        family = _Family(self, root, run)
        is_running = False
        quiet = watch.get("quiet")
        if quiet is not None and now - moved >= quiet:
            moved = max(moved, self._last_event(root, family, now - quiet))
            is_running = now - moved >= quiet and self._has_running(root, family)
        standing = Standing(now_ms=now, since_ms=since, moved_ms=moved, is_running=is_running, allowed=allowed)
        return Watched(standing, watch, "st" in record, len(lines))

    def _last_event(self, root: str, family: _Family, earliest_ms: int) -> int:
        """Return when something was last heard of a run or of what stands below it; 0: not since that time."""
        key = self.keys.events(root)
        for line in self._backwards(key):
            event: dict[str, Any] = json.loads(line)
            if int(event["t"]) < earliest_ms:
                return 0
            # A line without a run is of the root's.
            if family.has(event.get("r", root)) or family.has(event.get("s")):
                return int(event["t"])
        return 0

    def _backwards(self, key: str) -> Iterator[bytes]:
        end = -1
        while True:
            first = end - _PAGE + 1
            lines = self.guarded(lambda first=first, end=end: self.client.lrange(key, first, end))  # type: ignore[misc]
            yield from reversed(lines)
            if len(lines) < _PAGE:
                return
            end = first - 1

    def _has_running(self, root: str, family: _Family) -> bool:
        ids = self.member_ids(root)
        for at in range(0, len(ids), _PAGE):
            chunk = ids[at : at + _PAGE]
            for step_id, record in zip(chunk, self.records(root, chunk), strict=True):
                if record.get("s") == "h" and (family.has(step_id) or family.has(record.get("pr", root))):
                    return True
        return False


class _Family:
    """A run and all runs below it."""

    def __init__(self, store: WatchCalls, root: str, run: str) -> None:
        self._store, self._root = store, root
        self._known: dict[str, bool] = {run: True}
        if run != root:
            self._known[root] = False

    def has(self, run: str | None) -> bool:
        """Whether the run is one of them; a step is asked for by its run."""
        if run is None:
            return False
        known = self._known.get(run)
        if known is None:
            # Until it is known otherwise: a record that names itself must not go round.
            self._known[run] = False
            known = self._known[run] = self.has(self._store.record(self._root, run).get("pr", self._root))
        return known


def _last_time(lines: list[bytes]) -> int:
    """Return the time of the last input of a log: asks have none."""
    for line in reversed(lines):
        time = getattr(decode(line), "t", None)
        if time is not None:
            return int(time)
    return 0
