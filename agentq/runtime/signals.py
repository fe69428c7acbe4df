"""The signals of one run: those that came and were not taken, by name, and who waits for one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from agentq.core.journal import Signal


@dataclass(slots=True)
class Mailbox:
    """The signals of one name that nobody has taken yet, each behind its place among the inputs; and how many wait."""

    queue: asyncio.Queue[tuple[int, Signal]] = field(default_factory=asyncio.Queue)
    waiting: int = 0


class Mailboxes:
    """One mailbox for each name that a signal or an agent has named."""

    def __init__(self) -> None:
        self._by_name: dict[str, Mailbox] = {}

    def named(self, name: str) -> Mailbox:
        """The mailbox of this name."""
        return self._by_name.setdefault(name, Mailbox())

    def put(self, place: int, signal: Signal) -> None:
        """The signal came as this input."""
        self.named(signal.name).queue.put_nowait((place, signal))

    @property
    def waits(self) -> list[str]:
        """Names of the signals that somebody waits for."""
        return [name for name, mailbox in self._by_name.items() if mailbox.waiting > 0]

    def take_all(self) -> list[Signal]:
        """What nobody has taken, in the order in which it came."""
        boxes = self._by_name.values()
        left = [box.queue.get_nowait() for box in boxes for _ in range(box.queue.qsize())]
        return [signal for _, signal in sorted(left, key=lambda item: item[0])]
