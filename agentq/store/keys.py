"""The only home of a key's spelling, for Python and, rendered, for the Lua scripts.

Every key of a run holds the layout version and the root run's id in braces (the cluster slot). Parts that users
choose (ids) are checked by ``refs``; tenant and key of a keyed start enter only as a hash. Must not know what the
records behind the keys hold.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

LAYOUT_VERSION: Final = 1

LANE_SEPARATOR: Final = "\x06\x16"
"""kombu's separator between a queue's name and its priority: lanes are kombu's own lists."""

RESULT_PREFIX: Final = "celery-task-meta-"
"""Where ``AsyncResult`` looks."""

_RUN_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "step": ("root", "id"),
    "message": ("root", "id"),
    "log": ("root", "run"),
    "wake": ("root", "run"),
    "signals": ("root", "run"),
    "join": ("root", "id"),
    "bits": ("root", "id"),
    "ask": ("root", "id"),
    "payload": ("root", "name"),
    "account": ("root", "run"),
    "tree": ("root",),
    "members": ("root",),
    "cancelled": ("root",),
    "events": ("root",),
}
"""Key kinds that belong to one run: the parts after the kind, the first is the root run's id."""

_PLAIN_KEYS: Final[dict[str, tuple[str, ...]]] = {
    "start": ("digest",),
    "held": ("worker",),
    "worker": ("worker",),
    "dead": ("worker",),
    "workers": (),
    "reaping": (),
    "ticks": (),
    "due": (),
    "unsent": (),
    "outbox": (),
    "queued": (),
    "line": ("way", "lane", "digest", "queue"),
    "turns": ("way", "lane", "queue"),
    "shared": (),
    "retiring": (),
    "reviving": (),
    "unwinding": (),
    "ended": (),
    "watched": (),
    "runs": (),
    "asks": (),
    "agents": (),
    "drained": (),
    "warm": (),
    "bell": ("queue",),
    "near": ("queue",),
    "seat": ("worker", "seat"),
    "suspects": ("queue",),
    "freeing": ("queue",),
    "letters": (),
    "losses": (),
    "unserved": (),
    "letter": ("id",),
    "gate": ("digest",),
    "waiters": ("digest",),
    "called": ("digest",),
    "gates": (),
    "cached": ("digest",),
    "caches": (),
    "hedges": (),
    "spans": ("digest",),
    "allowance": ("name",),
    "backlog": ("lane", "digest", "queue"),
    "backlogs": (),
    "survey": (),
    "pace": ("queue",),
    "leaders": (),
    "sized": (),
    "decisions": ("pool",),
    "seasons": ("pool",),
}

_PREFIX = re.compile(r"[A-Za-z0-9_.\-]{1,40}\Z")
"""What may stand in the scripts' text between quotes, and in front of a colon."""

PERMANENT: Final = frozenset(
    {
        *("workers", "reaping", "ticks", "due", "unsent", "outbox", "queued"),
        *("retiring", "reviving", "unwinding", "ended", "watched"),
        *("runs", "asks", "agents", "drained", "warm", "held", "bell"),
        *("suspects", "letters", "letter", "unserved", "pace", "line", "turns", "shared"),
        *("waiters", "called", "gates", "backlog", "backlogs", "leaders", "caches", "hedges"),
    }
)
"""Kinds that may stand without an end: registries, and what holds work in custody."""


class Keys:
    """Builds keys under one prefix; ``keys.step(root, id)`` and so on, as in the tables above."""

    def __init__(self, prefix: str = "agentq") -> None:
        if not _PREFIX.match(prefix):
            raise ValueError(f"a key prefix is 1 to 40 of A-Z a-z 0-9 _ . -, not {prefix!r}")
        self.prefix = prefix
        self._stem = f"{prefix}:{LAYOUT_VERSION}"

    def of(self, kind: str, *parts: str) -> str:
        """Return the key of ``kind``; raises KeyError for an unknown kind, ValueError for a wrong number of parts."""
        if kind in _RUN_KEYS:
            if len(parts) != len(_RUN_KEYS[kind]):
                raise ValueError(f"key {kind!r} takes {_RUN_KEYS[kind]}, got {len(parts)} parts")
            return ":".join([self._stem, kind, "{" + parts[0] + "}", *parts[1:]])
        if len(parts) != len(_PLAIN_KEYS[kind]):
            raise ValueError(f"key {kind!r} takes {_PLAIN_KEYS[kind]}, got {len(parts)} parts")
        return ":".join([self._stem, kind, *parts])

    def kind_of(self, key: str) -> str | None:
        """Return the kind of one of our keys, None for a key that is not ours (a lane, a result)."""
        if not key.startswith(self._stem + ":"):
            return None
        return key[len(self._stem) + 1 :].split(":", 1)[0]

    def step(self, root: str, step_id: str) -> str:
        """The record of a step."""
        return self.of("step", root, step_id)

    def message(self, root: str, step_id: str) -> str:
        """The message of a step that is delayed or parked."""
        return self.of("message", root, step_id)

    def log(self, root: str, run: str) -> str:
        """The ordered log of an agent's run."""
        return self.of("log", root, run)

    def wake(self, root: str, run: str) -> str:
        """The bell that a lingering turn waits on."""
        return self.of("wake", root, run)

    def join(self, root: str, join_id: str) -> str:
        """A join's counters and body."""
        return self.of("join", root, join_id)

    def ask(self, root: str, ask_id: str) -> str:
        """A question to a person."""
        return self.of("ask", root, ask_id)

    def payload(self, root: str, name: str) -> str:
        """A large value: a step's arguments, a local call's result."""
        return self.of("payload", root, name)

    def tree(self, root: str) -> str:
        """What a run shares with its sub-agents: live steps, budget, spending."""
        return self.of("tree", root)

    def members(self, root: str) -> str:
        """The ids of a tree's records, in the order of their making."""
        return self.of("members", root)

    def events(self, root: str) -> str:
        """The history of a tree; also the name of its pub/sub channel."""
        return self.of("events", root)

    def held(self, worker: str) -> str:
        """Take number to message, for what a worker holds."""
        return self.of("held", worker)

    def worker(self, worker: str) -> str:
        """A worker's card: label, queues, last token."""
        return self.of("worker", worker)

    def start(self, digest: str) -> str:
        """A keyed start; ``digest`` is a hash of agent, tenant and key."""
        return self.of("start", digest)

    def line(self, way: str, queue: str, lane: int, tenant: bytes) -> str:
        """What of a tenant waits in a lane; empty for what has no tenant, in split mode."""
        digest = hashlib.sha1(tenant, usedforsecurity=False).hexdigest() if tenant else ""
        return self.of("line", way, str(lane), digest, queue)

    def bell(self, queue: str) -> str:
        """The bell of a queue: bounded wake-ups of idle workers."""
        return self.of("bell", queue)

    def seat(self, worker: str, seat: str) -> str:
        """The bell of one slot of a worker, which waits for a moment."""
        return self.of("seat", worker, seat)

    @staticmethod
    def lane(queue: str, priority: int) -> str:
        """The list of a queue's lane, spelled as kombu spells it (0 is the highest)."""
        return queue if priority == 0 else f"{queue}{LANE_SEPARATOR}{priority}"

    @staticmethod
    def result(task_id: str) -> str:
        """Where Celery's result backend keeps a task's outcome."""
        return RESULT_PREFIX + task_id

    def lua(self) -> str:
        """Render the same builders as a Lua table ``K``, for the head of every script."""
        lines = ["local K = {}"]
        for kind, parts in _RUN_KEYS.items():
            names = ", ".join(parts)
            tail = "".join(f" .. ':' .. {part}" for part in parts[1:])
            lines.append(f"function K.{kind}({names}) return '{self._stem}:{kind}:{{' .. {parts[0]} .. '}}'{tail} end")
        for kind, parts in _PLAIN_KEYS.items():
            tail = "".join(f" .. ':' .. {part}" for part in parts)
            lines.append(f"function K.{kind}({', '.join(parts)}) return '{self._stem}:{kind}'{tail} end")
        lines.append(
            "function K.lane(queue, priority) if tonumber(priority) == 0 then return queue end "
            "return queue .. '\\6\\22' .. priority end"
        )
        lines.append(f"function K.result(id) return '{RESULT_PREFIX}' .. id end")
        return "\n".join(lines) + "\n"
