"""Workers: their leases, what time brings, and the agents that they announce."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import redis

from agentq.core.lanes import PRIORITIES
from agentq.store import lease
from agentq.store.alarm import report_condemned
from agentq.store.connection import StoreConnection
from agentq.store.wire import dump, text

_DURABLE = b'{"agentq":"'
"""How the message of a recorded step begins: what ``message_of`` in common.lua puts in front."""

_PURGE_CHUNK = 500

Standing = Literal["alive", "dead", "unknown"]

_STANDINGS: dict[int, Standing] = {1: "alive", 0: "dead", 2: "unknown"}


@dataclass(frozen=True, slots=True)
class TickReply:
    """What one tick did; ``behind``: more waits, so that another one soon is worth it."""

    dead: int
    released: int
    due: int
    retired: int
    condemned: int = 0
    behind: int = 0


@dataclass(frozen=True, slots=True)
class WorkerCard:
    """A living worker.

    Attributes:
        held: how many messages are in its custody.
        lease_ms: what is left of its lease.
        details: what it said of itself at its start.
        report: how it is now, some seconds old at the most; ``why`` in it says why it takes nothing, where it does so.
    """

    id: str
    label: str
    queues: tuple[str, ...]
    concurrency: int
    held: int
    lease_ms: int
    details: dict[str, Any]
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def why(self) -> str | None:
        """Why the worker takes nothing; None where it takes."""
        return self.report.get("why")


class WorkerCalls(StoreConnection):
    """The scripts of leases and timers, and the registry."""

    def enroll(
        self,
        worker: str,
        *,
        label: str,
        queues: tuple[str, ...],
        concurrency: int,
        lease_ms: int,
        details: dict[str, Any] | None = None,
        floor: int = 0,
    ) -> bool:
        """Make a worker's id alive for one lease; False when the id was given up before.

        ``floor``: the highest take number that the process has seen.
        """
        card = card_of(label, queues=queues, concurrency=concurrency, details=details or {})
        return int(self.run_script("enroll", worker, lease_ms, floor, *card)) == 1

    def lease_access(self, worker: str) -> dict[str, Any]:
        """Return what ``Lease`` needs to reach this store: ``url``, ``scripts`` and ``dead``, as JSON holds it."""
        texts = {name: self.scripts.texts[name] for name in lease.SCRIPTS}
        return {"url": self.url, "scripts": texts, "dead": self.keys.of("dead", worker)}

    def held_takes(self, worker: str) -> set[int]:
        """Return the take numbers of what a worker holds."""
        found = self.guarded(lambda: self.client.hkeys(self.keys.held(worker)))
        return {int(take) for take in found}

    def renew(self, worker: str, lease_ms: int, *, queues: tuple[str, ...] | None = None) -> Standing:
        """Extend the lease, and say how the worker stands.

        ``dead``: it was given up and must stop what it runs. ``unknown``: the server has lost its data.
        """
        more = () if queues is None else ("queues", dump(list(queues)))
        reply = self.run_script("renew", worker, lease_ms, *more)
        return _STANDINGS[int(reply[0] if isinstance(reply, list) else reply)]

    def drain(self, mark: str, **words: Any) -> None:
        """Have workers take nothing new: ``worker|ID``, ``node|NAME``, or of one queue ``pool|QUEUE``.

        They hear of it with their next renewal. Again: as said last. ``words``: such as ``grace_ms``, after which what
        runs is handed over.
        """
        self.guarded(lambda: self.client.hset(self.keys.of("drained"), mark, dump({**words, "at": self.now_ms()})))

    def undrain(self, mark: str) -> bool:
        """Undo ``drain``; False when it was not drained."""
        return bool(self.guarded(lambda: self.client.hdel(self.keys.of("drained"), mark)))

    def drains(self) -> dict[str, dict[str, Any]]:
        """Return what is drained, by mark."""
        found = self.guarded(lambda: self.client.hgetall(self.keys.of("drained")))
        return {mark.decode(): json.loads(words) for mark, words in found.items()}

    def held_by_queue(self, worker: str) -> dict[str, int]:
        """Return how many messages a worker holds of each queue."""
        counts: dict[str, int] = {}
        for entry in self.guarded(lambda: self.client.hvals(self.keys.held(worker))):
            _, length, rest = entry.split(b"\n", 2)
            queue = rest[: int(length)].decode()
            counts[queue] = counts.get(queue, 0) + 1
        return counts

    def leave(self, worker: str, *, counted: bool = False, chunk: int = 200) -> int:
        """Hand back all that a worker holds and take it off the list; return how many went back.

        ``counted``: the attempts died (a keeper speaks for a dead worker); else they do not count as starts.
        """
        total = 0
        while True:
            released = int(self.run_script("leave", worker, chunk, "0" if counted else "1"))
            total += released
            if released < chunk:
                return total

    def tick(self, lease_ms: int, *, chunk: int = lease.TICK_CHUNK) -> TickReply:
        """Do what time brings: dead workers, timers, retention."""
        reply = TickReply(*(int(count) for count in self.run_script("tick", lease_ms, chunk)))
        if reply.condemned:
            report_condemned(reply.condemned)
        return reply

    def workers(self) -> list[WorkerCard]:
        """Return the workers whose lease stands, by label."""
        now = self.now_ms()

        def read() -> list[WorkerCard]:
            alive = [
                (name.decode(), int(deadline))
                for name, deadline in self.client.zrangebyscore(self.keys.of("workers"), now, "+inf", withscores=True)
            ]
            with self.client.pipeline(transaction=False) as pipe:
                for worker, _ in alive:
                    pipe.hgetall(self.keys.worker(worker))
                    pipe.hlen(self.keys.held(worker))
                replies = pipe.execute()
            cards = []
            for at, (worker, deadline) in enumerate(alive):
                card, held = replies[2 * at], replies[2 * at + 1]
                if b"label" in card:
                    cards.append(_card(worker, card, held, deadline - now))
            return sorted(cards, key=lambda card: card.label)

        return self.guarded(read)

    def eviction_policy(self) -> str | None:
        """Return what the server does when its memory is full; None when it does not say."""
        try:
            found = self.guarded(lambda: self.client.info("memory")).get("maxmemory_policy")
        except redis.exceptions.NoPermissionError:
            return None
        return str(found) if found is not None else None

    def served_versions(self) -> set[tuple[str, str, str | None]]:
        """Return queue, name and version of each agent that a living worker serves."""
        return {
            (queue, name, version)
            for card in self.workers()
            for queue in card.queues
            for name, version in (card.details.get("agents") or {}).items()
        }

    def announce(self, worker: str, agents: dict[str, dict[str, Any]]) -> None:
        """Publish what a worker serves: per agent or step name its schema, version and queue."""
        if not agents:
            return
        fields = {name: dump({**announcement, "worker": worker}) for name, announcement in agents.items()}
        self.guarded(lambda: self.client.hset(self.keys.of("agents"), mapping=fields))

    def announced(self) -> dict[str, dict[str, Any]]:
        """Return what workers have announced, by name; also of workers that are gone."""
        found = self.guarded(lambda: self.client.hgetall(self.keys.of("agents")))
        return {name.decode(): json.loads(value) for name, value in found.items()}

    def waiting(self, queue: str) -> dict[str, int]:
        """Return how many messages wait in each lane of a queue, by the lane's name; in split mode how many steps."""

        def read() -> dict[str, int]:
            with self.client.pipeline(transaction=False) as pipe:
                pipe.hmget(self.keys.of("queued"), [f"{number}|{queue}" for number in PRIORITIES.values()])
                if not self.split:
                    for number in PRIORITIES.values():
                        pipe.llen(self.keys.lane(queue, number))
                counts, *lengths = pipe.execute()
            # In fused mode what has a tenant is counted there, and all else stands in kombu's lists.
            lengths = lengths or [0] * len(PRIORITIES)
            each = zip(PRIORITIES, counts, lengths, strict=True)
            return {name: int(count or 0) + int(length) for name, count, length in each}

        return self.guarded(read)

    def waiting_of(self, tenant: str, queues: Sequence[str]) -> int:
        """Return how many steps of a tenant wait in these queues, in all lanes."""

        def read() -> int:
            with self.client.pipeline(transaction=False) as pipe:
                for queue in queues:
                    for number in PRIORITIES.values():
                        pipe.llen(self.keys.line(self.way, queue, number, tenant.encode()))
                return sum(pipe.execute())

        return self.guarded(read)

    def tenants(self, queue: str) -> dict[str, int]:
        """Return how many steps of each tenant wait in a queue; those without one are not told."""

        def read() -> dict[str, int]:
            with self.client.pipeline(transaction=False) as pipe:
                for number in PRIORITIES.values():
                    pipe.lrange(self.keys.of("turns", self.way, str(number), queue), 0, -1)
                lanes = dict(zip(PRIORITIES.values(), pipe.execute(), strict=True))
                found = [(lane, turn.partition(b"|")[2]) for lane, turns in lanes.items() for turn in turns]
                named = [(lane, tenant) for lane, tenant in found if tenant]
                for lane, tenant in named:
                    pipe.llen(self.keys.line(self.way, queue, lane, tenant))
                counts: dict[str, int] = {}
                for (_, tenant), length in zip(named, pipe.execute(), strict=True):
                    name = tenant.decode(errors="replace")
                    counts[name] = counts.get(name, 0) + int(length)
                return counts

        return self.guarded(read)

    def purge(self, queue: str) -> int:
        """Delete the messages of a queue that have no record, and return how many they were.

        A step's message stays: without it the step would wait for ever, and its run with it. Runs are cancelled.
        """

        def delete() -> int:
            deleted = 0
            for number in PRIORITIES.values():
                lane, kept = self.keys.lane(queue, number), 0
                while messages := self.client.lrange(lane, kept, kept + _PURGE_CHUNK - 1):
                    for message in messages:
                        # What a worker has taken meanwhile is not there to be deleted, and is not counted.
                        gone = 0 if message.startswith(_DURABLE) else self.client.lrem(lane, 1, message)
                        deleted, kept = deleted + gone, kept + 1 - gone
            return deleted

        return self.guarded(delete)


def card_of(label: str, *, queues: tuple[str, ...], concurrency: int, details: dict[str, Any]) -> tuple[str, ...]:
    """Return a worker's card, field by field, as ``enroll`` writes it."""
    return ("label", label, "queues", dump(list(queues)), "slots", str(concurrency), "details", dump(details))


def _card(worker: str, card: dict[bytes, bytes], held: int, lease_ms: int) -> WorkerCard:
    return WorkerCard(
        id=worker,
        label=text(card.get(b"label")) or worker,
        queues=tuple(json.loads(card.get(b"queues", b"[]"))),
        concurrency=int(card.get(b"slots", b"1")),
        held=held,
        lease_ms=lease_ms,
        details=json.loads(card.get(b"details", b"{}")),
        report=json.loads(card.get(b"report", b"{}")),
    )
