"""Steps and runs that no worker with their code has taken: they wait, and people are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, cast

from agentq.core.models import Unserved
from agentq.store.connection import StoreConnection
from agentq.store.wire import moment, text

PAGE: Final = 1000
"""So many are read at once."""


class UnservedReads(StoreConnection):
    """The list of them."""

    def unserved(self, *, limit: int | None = None) -> list[Unserved]:
        """Return steps and runs that no worker with their code has taken, the longest first; forgets what goes on.

        ``limit``: look at so many at most; there may be as many as there are steps.
        """
        return list(self._each_unserved(limit))

    def _each_unserved(self, limit: int | None) -> Iterator[Unserved]:
        at, gone = 0, []
        while names := self._unserved_names(at, PAGE if limit is None else min(PAGE, limit - at)):
            for name, fields in zip(names, self._unserved_fields(names), strict=True):
                said = unserved_of(text(fields[0]), text(fields[1]), text(fields[2]))
                if said is None:
                    gone.append(name)
                else:
                    root, _, step_id = name.partition("|")
                    yield _unserved(root, step_id, said, fields)
            at += len(names)
        # Afterwards: what goes meanwhile would move those behind it past the next page.
        for start in range(0, len(gone), PAGE):
            self._forget(gone[start : start + PAGE])

    def _forget(self, names: Sequence[str]) -> None:
        self.guarded(lambda: self.client.zrem(self.keys.of("unserved"), *names))

    def _unserved_names(self, at: int, count: int) -> list[str]:
        key = self.keys.of("unserved")
        if count <= 0:
            return []
        return [name.decode() for name in self.guarded(lambda: self.client.zrange(key, at, at + count - 1))]

    def _unserved_fields(self, names: Sequence[str]) -> list[list[bytes | None]]:
        def read() -> list[list[bytes | None]]:
            with self.client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hmget(self.keys.step(*name.split("|")), "un", "a", "s", "nm", "v", "q", "pr", "k")
                return list(pipe.execute())

        return self.guarded(read)

    def hasten(self, fits: Callable[[Unserved], bool]) -> int:
        """Have what a worker that has just come can run be offered now; return how many steps that were.

        Only its time is changed: what goes on meanwhile has no timer under its generation any more.
        """
        chosen = [each for each in self.unserved() if fits(each)]

        def write() -> int:
            names = {}
            for each in chosen:
                generation = self.client.hget(self.keys.step(each.root_id, each.step_id), "g")
                names[f"{each.root_id}|{each.step_id}|{text(generation)}"] = self.now_ms()
            return int(self.client.zadd(self.keys.of("due"), names, xx=True, ch=True)) if names else 0

        return self.guarded(write)


def unserved_of(field: str | None, attempts: str | None, state: str | None) -> tuple[str, str, str] | None:
    """Return since when (ms), what and in which words a record is unserved; None when it is not, or not any more."""
    if field is None or state in (None, "d", "x", "p"):
        return None
    at, since, what, words = field.split("|", 3)
    begun = int(attempts or 0) - int(at)
    # While a worker that cannot run it looks at it, its attempt counts.
    looked_at = begun == 1 and state == "h" and what != "worker"
    return (since, what, words) if begun == 0 or looked_at else None


def _unserved(root: str, step_id: str, said: tuple[str, str, str], fields: list[bytes | None]) -> Unserved:
    since, what, words = said
    name, version, queue, parent, kind = (text(field) for field in fields[3:8])
    return Unserved(
        step_id=step_id,
        root_id=root,
        run_id=step_id if kind == "a" else parent or root,
        name=name or "",
        version=version,
        queue=queue or "",
        lacks=cast(Literal["task", "version", "worker"], what),
        words=words,
        since=moment(since),
    )
