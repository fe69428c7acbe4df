"""The pools that are scaled, as their file says now: a controller runs for weeks, and need not be started anew."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from agentq.core.error_base import ended
from agentq.core.errors import InvalidFile
from agentq.core.pools import PoolSpec, load_pools


class LivePools:
    """Reads the file again when it has changed. While it is wrong or gone, the pools stay as they were, and it is said.

    Args:
        declared: those that the app knows, as they stood at its start; what only its code declares stays so.
        path: the pools file; None where there is none.
        only: names of those that count; empty for all.
        without: names of those that do not.
        say: hears of a mistake in the file, with its place, and of its end.
    """

    def __init__(
        self,
        declared: Mapping[str, PoolSpec],
        path: Path | None,
        *,
        only: Collection[str] = (),
        without: Collection[str] = (),
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        self._path = path
        self._only = frozenset(only)
        self._without = frozenset(without)
        self._say = say
        self._stamp = self._look()
        self._all = dict(declared)
        in_file = self._in_file() if path is not None else {}
        self._code = {name: spec for name, spec in declared.items() if name not in in_file}
        self._is_wrong = False

    def __call__(self) -> dict[str, PoolSpec]:
        """Those that say `max`, by name."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._all = {**self._code, **self._in_file()}
            except InvalidFile as error:
                self._is_wrong = True
                self._say(f"{ended(str(error))} The pools stay as they were.")
            else:
                if self._is_wrong:
                    self._say("The pools file can be read again.")
                self._is_wrong = False
        return {
            name: spec
            for name, spec in self._all.items()
            if spec.max is not None and (not self._only or name in self._only) and name not in self._without
        }

    @property
    def all(self) -> Mapping[str, PoolSpec]:
        """All that are declared, scaled or not."""
        return self._all

    def _in_file(self) -> dict[str, PoolSpec]:
        assert self._path is not None
        return load_pools(self._path)

    def _look(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
