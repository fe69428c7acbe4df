"""Split mode: what a broker beside the store is to hear of, and claims of what it delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentq.store.connection import StoreConnection
from agentq.store.refs import TakeReply
from agentq.store.wire import parse_take

PUBLISHERS_BELL = ""
"""The bell of those who publish: no queue is nameless."""

LONGEST_PAUSE_MS = 3_600_000
"""Between two hints of one step: however long a step has waited, a lost hint costs it no more than an hour."""


@dataclass(frozen=True, slots=True)
class Hint:
    """What a broker has delivered: the name of a step that waits, or waited, and the lane that it was published for."""

    name: str
    queue: str
    lane: int


@dataclass(frozen=True, slots=True)
class Post:
    """Something that the broker is to hear of.

    Attributes:
        name: ``root|step|generation``; of a plain message its place in the outbox.
        queue, lane: where it waits.
        pause_ms: after which it is published again if nobody has claimed it.
        message: of a plain message, kombu's virtual message as JSON, or whatever else somebody has put into a lane,
            with bytes that are no text as surrogates; None for a step, of which a hint is enough.
        since_ms: server time since when the step waits; None for a plain message.
    """

    name: str
    queue: str
    lane: int
    pause_ms: int
    message: str | None
    since_ms: int | None = None


class UnsentCalls(StoreConnection):
    """The scripts of split mode."""

    def publish(self, *, chunk: int, pause_ms: int) -> list[Post]:
        """Return what is to be published now, and have it come again: after ``pause_ms``, doubling each time."""
        replies = self.run_script("publish", chunk, pause_ms, LONGEST_PAUSE_MS)
        return [
            Post(
                name=name.decode(),
                queue=queue.decode(),
                lane=int(lane),
                pause_ms=int(pause),
                message=message.decode(errors="surrogateescape") or None,
                since_ms=int(since) if since else None,
            )
            for name, queue, lane, pause, message, since in replies
        ]

    def await_posts(self, timeout_s: float) -> None:
        """Return when there may be something to publish, at the latest after the time-out, well below the socket's."""
        bell = self.keys.bell(PUBLISHERS_BELL)
        self.guarded(lambda: self.client.brpop([bell], timeout=timeout_s))

    def confirm(self, posts: Sequence[Post]) -> None:
        """End the custody of plain messages that the broker has confirmed; of steps nothing, which their claim ends."""
        plain = [post for post in posts if post.message is not None]
        if plain:
            self.run_script("confirm", *(part for post in plain for part in (post.name, post.queue, post.lane)))

    def relist(
        self, queues: Sequence[str], *, plain: bool = False, found: Sequence[tuple[str, str, str]] = (), chunk: int = 50
    ) -> int:
        """Bring steps that processes in fused mode have queued to where the broker is told of them; return how many.

        Args:
            queues: whose lanes are looked at.
            plain: plain messages there go to the broker too.
            found: (root, step, message without its name) of steps that came out of a lane by themselves.
            chunk: of each lane at most.
        """
        moved = [part for step in found for part in step]
        return int(self.run_script("relist", chunk, int(plain), len(queues), *queues, *moved))

    def claim(
        self, worker: str, token: str, hints: Sequence[Hint], *, label: str, floor: int = 0, idle: bool = False
    ) -> TakeReply:
        """Take for each hint what is next in its lane, if anything waits there; as ``take`` otherwise."""
        told = [part for hint in hints for part in (hint.name, hint.queue, hint.lane)]
        return parse_take(self.run_script("take", worker, token, len(hints), label, 0, floor, int(idle), *told))
