"""A run's history as a stream: from an offset on, and through the cuts of the connection.

Owns what a follower remembers (an offset) and its patience. It must not know what an event means.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from agentq.core.errors import StoreUnavailable
from agentq.core.models import Event
from agentq.store import Store

_POLL_S: Final = 1.0
"""Longest silence between two looks at the history: what pub/sub drops shows up after it."""

PATIENCE_S: Final = 30.0
"""A follower waits so long for a server that is away: a restart that reads a large append-only file takes seconds."""

_LONGEST_PAUSE_S: Final = 1.0


@dataclass(slots=True)
class Place:
    """How far a follower has come, and how long it has been without its server."""

    after: int
    patience: float = PATIENCE_S
    gone_at: float | None = None
    pause: float = 0.05

    def move(self, event: Event) -> None:
        """The server has answered with this line."""
        self.after, self.gone_at, self.pause = event.offset, None, 0.05

    def next_pause(self) -> float | None:
        """Return how many seconds to wait before the next try; None when there is to be none."""
        now = time.monotonic()
        self.gone_at = now if self.gone_at is None else self.gone_at
        if now - self.gone_at >= self.patience:
            return None
        self.pause = min(self.pause * 2, _LONGEST_PAUSE_S)
        return self.pause


class EventStream:
    """A run's history, to be iterated with ``for`` or ``async for``; each iteration begins at the given offset.

    Where it follows, it outlives a cut connection and a server that is away for less than half a minute: it goes on
    behind the last line that it has given. Raises StoreUnavailable after that.
    """

    def __init__(self, store: Store, root: str, run_id: str, *, after: int, follow: bool) -> None:
        self._store = store
        self._root = root
        self._id = run_id
        self._after = after
        self._follow = follow

    def __iter__(self) -> Iterator[Event]:
        place = self._begin()
        while True:
            try:
                for event in self._read(place.after):
                    place.move(event)
                    if self._belongs(event):
                        yield event
                return
            except StoreUnavailable as away:
                time.sleep(_pause(place, away))

    def _read(self, after: int) -> Iterator[Event]:
        waits = self._store.wait_events(self._root, _POLL_S)
        try:
            for _ in waits:
                # Asked before the lines are read: an end that comes in between leaves lines for another round.
                ended = self._is_ended()
                while lines := self._store.events(self._root, after=after):
                    after = lines[-1].offset
                    yield from lines
                if ended:
                    return
        finally:
            waits.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        place = self._begin()
        while True:
            try:
                async with aclosing(self._aread(place.after)) as events:
                    async for event in events:
                        place.move(event)
                        if self._belongs(event):
                            yield event
                return
            except StoreUnavailable as away:
                await asyncio.sleep(_pause(place, away))

    async def _aread(self, after: int) -> AsyncGenerator[Event, None]:
        async with aclosing(self._store.await_events(self._root, _POLL_S)) as waits:
            async for _ in waits:
                ended = await asyncio.to_thread(self._is_ended)
                while lines := await asyncio.to_thread(self._store.events, self._root, after=after):
                    after = lines[-1].offset
                    for event in lines:
                        yield event
                if ended:
                    return

    def _begin(self) -> Place:
        # Who does not follow has no patience: it reads what stands, or says that it cannot.
        return Place(self._after, patience=PATIENCE_S if self._follow else 0.0)

    def _belongs(self, event: Event) -> bool:
        """A root run's history is its whole tree's; a sub-agent's is what names it."""
        return self._id == self._root or self._id in (event.run_id, event.step_id)

    def _is_ended(self) -> bool:
        if not self._follow:
            return True
        record = self._store.record(self._root, self._id)
        return not record or record.get("s") == "d"


def _pause(place: Place, away: StoreUnavailable) -> float:
    pause = place.next_pause()
    if pause is None:
        raise away
    return pause
