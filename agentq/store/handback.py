"""What a server holds for agentq, gathered and handed back to stock Celery before agentq is removed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentq.core.errors import StoreUnavailable
from agentq.core.lanes import PRIORITIES
from agentq.store.connection import StoreConnection
from agentq.store.wire import redacted, text

LABEL = "handback"

_CHUNK = 200
_NAME = re.compile(rb'\{"agentq":"([^"|]*)\|([^"|]*)\|\d+",')
"""How a step's message begins, as ``name_of`` in common.lua has it."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A gathered message. ``root`` is empty for a plain task's; ``message`` is without its name."""

    take: int
    queue: str
    lane: int
    root: str
    id: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a gathered message.

    ``give``: ``messages`` (queue, lane, message) become stock Celery's. ``aside``: it waits for agentq to come back.
    """

    take: int
    what: Literal["give", "aside"]
    messages: tuple[tuple[str, int, str], ...] = ()


class HandbackCalls(StoreConnection):
    """The scripts of handing back, and what they need to be told."""

    def _command(self, command: str, *arguments: Any, **options: Any) -> Any:
        return self.guarded(lambda: getattr(self.client, command)(*arguments, **options))

    def _keys_like(self, pattern: str) -> list[str]:
        found = self.guarded(lambda: list(self.client.scan_iter(match=pattern, count=1000)))
        return [key.decode(errors="replace") for key in found]

    def due_steps(self) -> dict[str, int]:
        """Return what stands in the timers or is held back, by name (``root|step|generation``): when it is due, in ms.

        Parked runs stand there too; gathering leaves them alone.
        """
        found = self._command("zrange", self.keys.of("due"), 0, -1, withscores=True)
        held_back = [
            name for key in self._keys_like(self.keys.of("backlog", "*", "*", "*")) for name in self._listed(key)
        ]
        return {name.decode(): int(due) for name, due in [*((name, 0) for name in held_back), *found]}

    def gather(self, worker: str, queues: Sequence[str], names: Sequence[str]) -> None:
        """Move all that waits in the queues, and the steps under ``names``, into the custody of ``worker``.

        Raises StoreUnavailable when the worker was marked dead meanwhile.
        """
        for queue in queues:
            for lane in PRIORITIES.values():
                self._gather_all(worker, "lane", queue, lane)
            self._gather_all(worker, "suspects", queue)
        listed = [*names, *self._guarded_steps(), *self._unsent_steps()]
        for at in range(0, len(listed), _CHUNK):
            self._gather_some(worker, "names", *listed[at : at + _CHUNK])

    def _gather_all(self, worker: str, *what: Any) -> None:
        while self._gather_some(worker, *what) == _CHUNK:
            pass

    def _gather_some(self, worker: str, *what: Any) -> int:
        found = int(self.run_script("gather", worker, LABEL, _CHUNK, *what))
        if found < 0:
            reason = "this process stood still for longer than its lease, and what it had gathered is back: try again"
            raise StoreUnavailable(url=redacted(self.url), reason=reason)
        return found

    def holdings(self, worker: str) -> Iterator[Holding]:
        """Yield what a worker holds, in the order of its takes."""
        held = self.keys.held(worker)
        takes = sorted(int(take) for take in self._command("hkeys", held))
        for at in range(0, len(takes), _CHUNK):
            chunk = takes[at : at + _CHUNK]
            entries = self._command("hmget", held, chunk)
            for take, entry in zip(chunk, entries, strict=True):
                if entry is not None:
                    yield _holding(take, entry)

    def peek(self, queues: Sequence[str]) -> Iterator[Holding]:
        """Yield what ``gather`` would find in the queues and timers; nothing moves."""
        for queue in queues:
            for lane in PRIORITIES.values():
                for message in self._waiting_in(queue, lane):
                    yield _named(0, queue, lane, message)
            for suspect in self._listed(self.keys.of("suspects", queue)):
                _, found_lane, message = suspect.split(b"\n", 2)
                yield _named(0, queue, int(found_lane), message)
        for name in [*self.due_steps(), *self._guarded_steps(), *self._unsent_steps()]:
            root, step, _ = name.split("|")
            yield from self._recorded(root, step)

    def _waiting_in(self, queue: str, lane: int) -> Iterator[bytes]:
        yield from self._listed(self.keys.lane(queue, lane))
        for turn in self._command("lrange", self.keys.of("turns", "fused", str(lane), queue), 0, -1):
            tenant = turn.partition(b"|")[2]
            if tenant:
                yield from self._listed(self.keys.line("fused", queue, lane, tenant))

    def _recorded(self, root: str, step: str) -> Iterator[Holding]:
        fields = ("s", "nm", "k", "pr", "q", "l")
        state, name, kind, parent, queue, lane = (
            text(value) for value in self._command("hmget", self.keys.step(root, step), fields)
        )
        if state in ("l", "q"):
            ours = {"k": kind, **({"pr": parent} if parent is not None else {})}
            message = json.dumps({"headers": {"task": name, "agentq": ours}})
            yield Holding(0, queue or "", int(lane or 0), root, step, message)

    def _guarded_steps(self) -> list[str]:
        """Return what waits for breakers, limits and budgets, by name."""
        digests = [digest.decode() for digest in self._command("zrange", self.keys.of("gates"), 0, -1)]
        lines = [self._command("zrange", self.keys.of("waiters", digest), 0, -1) for digest in digests]
        return [name.decode() for line in lines for name in line]

    def _unsent_steps(self) -> list[str]:
        found = self._command("zrange", self.keys.of("unsent"), 0, -1)
        return [name.decode() for name in found if not name.startswith(b"|")]

    def _listed(self, key: str) -> Iterator[bytes]:
        length = int(self._command("llen", key))
        for at in range(0, length, _CHUNK):
            yield from self._command("lrange", key, at, at + _CHUNK - 1)

    def hand_back(self, worker: str, verdicts: Sequence[Verdict]) -> int:
        """Carry the verdicts out, at once; return how many of the messages were still held."""
        arguments: list[Any] = []
        for verdict in verdicts:
            messages = verdict.messages or (("", 0, ""),)
            for at, (queue, lane, message) in enumerate(messages):
                whole = message.encode(errors="surrogateescape")
                arguments += [verdict.take if at == 0 else "", verdict.what, queue, lane, whole]
        return int(self.run_script("handback", worker, *arguments)) if arguments else 0

    def close_join(self, group_id: str) -> None:
        """Forget an open canvas join; its members' arrivals stand in stock Celery's keys."""
        self.run_script("handback", "", "join", group_id)

    def open_canvas_joins(self) -> Iterator[str]:
        """Yield the groups whose chords wait for members."""
        pattern = self.keys.join("*", "*")
        for key in self._keys_like(pattern):
            sent, body = self._command("hmget", key, "sent", "bo")
            if sent == b"0" and body is not None:
                yield key.split("{", 1)[1].split("}", 1)[0]

    def arrived_in_canvas(self, group_id: str) -> set[str]:
        """Return the ids of the tasks that have arrived at a canvas join."""
        found = self._command("smembers", self.keys.of("bits", group_id, group_id))
        return {name.decode().removeprefix("t:") for name in found}

    def body_root(self, group_id: str) -> str:
        """Return the root id of a canvas join's body."""
        body = self._command("hget", self.keys.join(group_id, group_id), "bo")
        return str(json.loads(body)["root"])

    def is_of_agent(self, root: str) -> bool:
        """Tell whether a tree's root is an agent's run."""
        return text(self._command("hget", self.keys.step(root, root), "k")) == "a"

    def has_dead_workers(self) -> bool:
        """Tell whether a worker whose lease has run out still holds something, or is not marked yet."""
        now = self.now_ms()
        late = self._command("zcount", self.keys.of("workers"), "-inf", now)
        return bool(late or self._command("zcard", self.keys.of("reaping")))

    def held_without_lease(self) -> int:
        """Return how many messages those hold that are no workers of agentq's: plain kombu consumers."""
        names = self._command("zrange", self.keys.of("workers"), 0, -1)
        return sum(int(self._command("hlen", self.keys.held(n.decode()))) for n in names)

    def outbox_length(self) -> int:
        """Return how many plain messages the broker has not confirmed yet, in split mode."""
        return int(self._command("hlen", self.keys.of("outbox")))

    def parked_runs(self) -> int:
        """Return how many runs wait for an input."""
        names = [name.decode() for name in self._command("zrange", self.keys.of("runs"), 0, -1)]
        parked = 0
        for at in range(0, len(names), _CHUNK):
            with self.client.pipeline(transaction=False) as pipe:
                for name in names[at : at + _CHUNK]:
                    pipe.hget(self.keys.step(*name.split("|", 1)), "s")
                parked += self.guarded(pipe.execute).count(b"p")
        return parked

    def declared_queues(self) -> list[str]:
        """Return the queues that kombu has noted in its exchange tables."""
        names: set[str] = set()
        for key in self._keys_like("_kombu.binding.*"):
            if self._command("type", key) == b"set":
                for entry in self._command("smembers", key):
                    names.add(entry.decode(errors="replace").rsplit("\x06\x16", 1)[-1])
        return sorted(names)


def _holding(take: int, entry: bytes) -> Holding:
    # As entry_of in common.lua writes it: lane, length of the queue's name, the name, the message.
    lane, length, rest = entry.split(b"\n", 2)
    size = int(length)
    return _named(take, rest[:size].decode(), int(lane), rest[size + 1 :])


def _named(take: int, queue: str, lane: int, message: bytes) -> Holding:
    root = identity = ""
    if name := _NAME.match(message):
        root, identity = (part.decode() for part in name.groups())
        message = b"{" + message[name.end() :]
    # What is no text goes back as it came, byte by byte.
    return Holding(take, queue, lane, root, identity, message.decode(errors="surrogateescape"))
