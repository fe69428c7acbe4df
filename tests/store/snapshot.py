"""All that a server holds at one instant, read in one call, and the check that custody holds in it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agentq.core.lanes import PRIORITIES
from agentq.store.keys import Keys

_EVERYTHING = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind, value = redis.call('TYPE', key)['ok'], nil
  if kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1)
  elseif kind == 'stream' then value = redis.call('XLEN', key)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  else value = redis.call('GET', key) end
  found[#found + 1] = { key, kind, value, redis.call('PTTL', key) }
end
return found
"""

Where = dict[tuple[str, str, str], list[str]]
"""(root, id, generation) of a message to the places where it stands."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Values by key; a hash as a dictionary of texts, all else as the server gives it."""

    keys: Keys
    values: dict[str, Any]
    endless: frozenset[str]

    @classmethod
    def of(cls, client: Any, keys: Keys) -> Snapshot:
        """Read everything."""
        values: dict[str, Any] = {}
        endless = set()
        for name, kind, value, ttl in client.eval(_EVERYTHING, 0):
            key = name.decode(errors="replace")
            values[key] = _texts(value) if kind == b"hash" else value
            if ttl == -1:
                endless.add(key)
        return cls(keys, values, frozenset(endless))

    def parts(self, kind: str) -> list[list[str]]:
        """Return the parts after the kind of every key of one kind, braces left out."""
        chosen = [key for key in self.values if self.keys.kind_of(key) == kind]
        return [key.replace("{", "").replace("}", "").split(":")[3:] for key in chosen]

    def records(self) -> dict[tuple[str, str], dict[str, str]]:
        """Return all steps' records by (root, id)."""
        return {(root, step_id): self.values[self.keys.step(root, step_id)] for root, step_id in self.parts("step")}

    def log(self, root: str, run: str) -> list[dict[str, Any]]:
        """Return a run's log."""
        return [json.loads(line) for line in self.values.get(self.keys.log(root, run), [])]

    def result(self, task_id: str) -> dict[str, Any]:
        """Return Celery's meta of a task; empty when there is none."""
        found: dict[str, Any] = json.loads(self.values.get(self.keys.result(task_id), b"{}"))
        return found

    def without_end(self, *kinds: str) -> list[str]:
        """Return the keys of these kinds that have no end; what is not ours counts as a result."""
        return sorted(key for key in self.endless if (self.keys.kind_of(key) or "result") in kinds)

    def misplaced(self, queues: Iterable[str] = ("q",), *, duplicates: bool = False) -> list[str]:
        """Return what breaks custody: each record that is not in exactly the one place that its state names.

        A queued one is in a lane or among the suspects, a condemned one among the dead letters, a held one in its
        holder's hands, a delayed one among the timers or in a line, a parked one keeps its message in its record; a
        replaced or done one is nowhere. In split mode unsent is the lane. With ``duplicates`` lanes may hold further
        copies of messages, which nobody will take.
        """
        where = self._messages(queues)
        problems = self.misled()
        for (root, step_id), record in self.records().items():
            state, generation = record["s"], record["g"]
            found = where.pop((root, step_id, generation), [])
            in_split = state == "q" and f"{root}|{step_id}|{generation}".encode() in self.values.get(
                self.keys.of("unsent"), []
            )
            if (state in ("l", "p") or in_split) and self.keys.message(root, step_id) not in self.values:
                problems.append(f"{step_id} is {state} without its message")
            if state == "p":
                # Its next timer, under its own name.
                found = [place for place in found if place != "l"]
            if duplicates:
                found = sorted(set(found)) if state == "q" else [place for place in found if place != "q"]
            wanted = {"q": ["q"], "h": [f"h:{record.get('w')}:{record.get('t')}"], "l": ["l"], "x": ["x"]}.get(
                state, []
            )
            if found != wanted:
                problems.append(f"{step_id} is {state} in generation {generation}, but stands in {found}")
        for name, places in where.items():
            if not (duplicates and set(places) == {"q"}):
                problems.append(f"{name} stands in {places}, which no record names")
        return problems

    def _messages(self, queues: Iterable[str]) -> Where:
        where: Where = {}
        for queue in queues:
            for number in PRIORITIES.values():
                for message in self.values.get(self.keys.lane(queue, number), []):
                    _note(where, json.loads(message).get("agentq"), "q")
            for line in self._lines(queue):
                for message in self.values[line]:
                    _note(where, json.loads(message).get("agentq"), "q")
            for entry in self.values.get(self.keys.of("suspects", queue), []):
                _note(where, json.loads(entry.split(b"\n", 2)[2]).get("agentq"), "q")
        for (worker,) in self.parts("held"):
            for take, entry in self.values[self.keys.held(worker)].items():
                _lane, length, rest = entry.encode().split(b"\n", 2)
                _note(where, json.loads(rest[int(length) + 1 :]).get("agentq"), f"h:{worker}:{take}")
        for (letter,) in self.parts("letter"):
            fields = self.values[self.keys.of("letter", letter)]
            if "id" in fields and self.values[self.keys.step(fields["root"], fields["id"])]["s"] == "x":
                name = [fields["root"], fields["id"], self.values[self.keys.step(fields["root"], fields["id"])]["g"]]
                _note(where, "|".join(name), "x")
        for name in self.values.get(self.keys.of("due"), []):
            _note(where, name.decode(), "l")
        for (digest,) in self.parts("waiters"):
            for name in self.values[self.keys.of("waiters", digest)]:
                record = self.values.get(self.keys.step(*name.decode().split("|")[:2]), {})
                # Who was called off has left its line with the generation that stands there.
                if record.get("ln") == digest and record["s"] == "l":
                    _note(where, name.decode(), "l")
        for parts in self._split("backlog", 3):
            for name in self.values[self.keys.of("backlog", *parts)]:
                _note(where, name.decode(), "l")
        for name in self.values.get(self.keys.of("unsent"), []):
            # The nameless ones are plain messages, which have no record; what is taken already has but a hint to come.
            if not name.startswith(b"|") and self._waits(name.decode()):
                _note(where, name.decode(), "q")
        return where

    def _waits(self, name: str) -> bool:
        root, step_id, generation = name.split("|")
        record = self.values.get(self.keys.step(root, step_id), {})
        return (record.get("s"), record.get("g")) == ("q", generation)

    def _lines(self, queue: str) -> list[str]:
        """Return the lines of a queue that hold messages: those of tenants, in fused mode."""
        return [
            self.keys.of("line", *parts) for parts in self._split("line", 4) if (parts[0], parts[3]) == ("fused", queue)
        ]

    def _split(self, kind: str, count: int) -> list[list[str]]:
        """Return the parts of keys of which the last, a queue's name, may hold colons."""
        return [[*parts[: count - 1], ":".join(parts[count - 1 :])] for parts in self.parts(kind)]

    def misled(self) -> list[str]:
        """Return what is wrong with lines and turns: each tenant's line has one place in its lane's turns."""
        problems = []
        lines = self._split("line", 4)
        wanted = sorted((way, lane, queue, digest) for way, lane, digest, queue in lines if digest)
        found = []
        for way, lane, queue in self._split("turns", 3):
            entries = self.values[self.keys.of("turns", way, lane, queue)]
            tenants = [entry.partition(b"|")[2] for entry in entries]
            if tenants.count(b"") != 1 or len(tenants) < 2:
                problems.append(f"the turns of {way} {lane} {queue} are {entries}")
            found += [(way, lane, queue, self.keys.line(way, queue, int(lane), t).split(":")[5]) for t in tenants if t]
        if sorted(found) != wanted:
            problems.append(f"turns name {sorted(found)}, lines are {wanted}")
        shared = {entry.decode() for entry in self.values.get(self.keys.of("shared"), [])}
        if shared != {f"{way}|{lane}|{queue}" for way, lane, queue, _ in wanted}:
            problems.append(f"shared names {shared}, lines are {wanted}")
        unsent = set(self.values.get(self.keys.of("unsent"), []))
        named = {name for parts in lines if parts[0] == "split" for name in self.values[self.keys.of("line", *parts)]}
        return [*problems, *(f"{name} stands in a line and is not unsent" for name in sorted(named - unsent))]


def _note(where: Where, name: str | None, place: str) -> None:
    if name is not None:
        root, step_id, generation = name.split("|")
        where.setdefault((root, step_id, generation), []).append(place)


def _texts(flat: list[bytes]) -> dict[str, str]:
    return {flat[at].decode(): flat[at + 1].decode() for at in range(0, len(flat), 2)}
