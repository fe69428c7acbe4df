"""Short words for the store's tests: make steps, take them, end them, let time pass, and look where everything is."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from agentq.store import Store
from agentq.store.lease import TICK_CHUNK
from agentq.store.refs import GoOn, Holder, Join, Offer, Taken, TakeReply
from agentq.store.workers import TickReply
from tests.kit.server import PrivateServer
from tests.store.snapshot import Snapshot

LEASE_MS = 3_600_000
"""An hour: a test that stands still on a busy machine must not lose a worker by it."""
LONG_AGO = 1
TREE = [{"k": "", "l": ["steps"]}]
"""The accounts of what stands below a run with a budget, as headers name them."""


@dataclass(frozen=True, slots=True)
class Got:
    """A taken message: its attempt, its generation, and what the take said of it."""

    holder: Holder
    generation: int
    cancelled: bool
    overdue: bool
    queue: str
    message: dict[str, Any]


class Bench:
    """A store on a test's server, with workers and steps by name."""

    def __init__(self, server: PrivateServer, **options: Any) -> None:
        self.store = Store(server.url, **options)
        self.client = self.store.client
        self.keys = self.store.keys

    # -- making

    def step(self, step_id: str | None = None, *, root: str | None = None, **options: Any) -> Offer:
        """Return an offer of a step, by default of a run of its own."""
        identity = step_id if step_id is not None else uuid.uuid4().hex
        fields: dict[str, Any] = {
            "root": root if root is not None else identity,
            "id": identity,
            "queue": "q",
            "lane": 6,
            "name": "read",
            "message": json.dumps({"body": identity, "headers": {"id": identity}}),
        }
        return Offer(**{**fields, **options})

    def agent(self, run: str | None = None, **options: Any) -> Offer:
        """Return an offer of an agent's run."""
        return self.step(run, **{"kind": "agent", "name": "research", "version": "1", **options})

    def worker(self, name: str = "w1") -> str:
        """Enroll a worker and return its id."""
        assert self.store.enroll(name, label=name, queues=("q",), concurrency=1, lease_ms=LEASE_MS)
        return name

    # -- moving

    def take_reply(
        self,
        worker: str,
        *,
        slots: int = 1,
        queues: Sequence[str] = ("q",),
        token: str | None = None,
        low_share: int = 0,
        floor: int = 0,
        idle: bool = True,
    ) -> TakeReply:
        """Take as a worker does."""
        named = token if token is not None else uuid.uuid4().hex
        options: dict[str, Any] = {"low_share": low_share, "floor": floor, "idle": idle}
        return self.store.take(worker, named, slots=slots, label=worker, queues=queues, **options)

    def take(self, worker: str = "w1", **options: Any) -> list[Got]:
        """Take, and return what came in the words of the tests; the worker must be alive."""
        reply = self.take_reply(worker, **options)
        assert not reply.refused
        return gots(worker, reply)

    def take_one(self, worker: str = "w1", **options: Any) -> Got:
        """Take exactly one message."""
        (got,) = self.take(worker, **options)
        return got

    def run_agent(self, run: str = "run", worker: str = "w1", **options: Any) -> Holder:
        """Start an agent and take its first turn."""
        self.store.offer([self.agent(run, **options)])
        return self.take_one(worker).holder

    def finish(self, holder: Holder, **options: Any) -> tuple[Taken, ...]:
        """Commit a success; options as in the store's commit; returns the steps to go on with."""
        fields: dict[str, Any] = {"mode": "done", "status": "SUCCESS", "results": [(holder.id, meta(holder.id))]}
        return self.store.commit(holder, **{**fields, **options}).following

    def go_on(
        self, holder: Holder, *, seat: str = "seat", names: Sequence[str] = ("read",), **options: Any
    ) -> Got | None:
        """Commit a success, and take the next step by it; other options as those of ``GoOn``."""
        found = self.go_on_with(holder, seat=seat, names=names, **options)
        return found[0] if found else None

    def go_on_with(
        self, holder: Holder, *, seat: str = "seat", names: Sequence[str] = ("read",), **options: Any
    ) -> list[Got]:
        """Commit a success, and take the next steps by it."""
        fields: dict[str, Any] = {"label": holder.worker, "queues": ("q",), "low_share": 0, "floor": 0, **options}
        taken = self.finish(holder, going_on=GoOn(seat=seat, names=tuple(names), **fields))
        return gots(holder.worker, TakeReply(refused=False, taken=taken))

    def again(self, holder: Holder, *, due_ms: int | None = None, idle: bool = False) -> None:
        """Commit that the step is tried again."""
        offer = self.step(holder.id, root=holder.root, due_ms=due_ms)
        self.store.commit(holder, mode="again", status="RETRY", offers=[offer], error="ValueError: x", idle=idle)

    # -- time

    def tick(self, *, chunk: int = TICK_CHUNK) -> TickReply:
        """Let time bring what it brings, with no grace left from the gap before."""
        ticks, total = self.keys.of("ticks"), TickReply(0, 0, 0, 0, 0)
        while True:
            self.client.hset(ticks, mapping={"at": self.store.now_ms(), "grace": 0, "next": 0})
            reply = self.store.tick(LEASE_MS, chunk=chunk)
            total = TickReply(*(sum(pair) for pair in zip(astuple(total), astuple(reply), strict=True)))
            # This process may stand still between the two for so long that the script sees a gap again.
            if self.client.hget(ticks, "grace") == b"0":
                return total

    def open_gates(self) -> None:
        """Have nothing bound by a breaker, a rate or a limit any more, nor stand still, and call all that waits."""
        for (root,) in self.look().parts("cancelled"):
            for run, _ in self.store.stops(root.strip("{}")):
                self.store.resume(root.strip("{}"), run)
        while lines := self.look().parts("waiters"):
            for (digest,) in lines:
                self.client.hdel(self.keys.of("gate", digest), "in", "rq", "tk", "st")
                self.client.zadd(self.keys.of("gates"), {digest: LONG_AGO})
            self.tick()

    def expire_lease(self, worker: str) -> None:
        """Rewrite a worker's deadline as if it had not been heard of for long."""
        self.client.zadd(self.keys.of("workers"), {worker: LONG_AGO}, xx=True)

    def kill(self, worker: str) -> None:
        """Have a worker marked dead and all that it held given back."""
        self.expire_lease(worker)
        while self.tick().released:
            pass

    def fire_timers(self) -> None:
        """Make everything due and let time pass."""
        # Twice: what a timer wakes may rest, which is a timer again.
        for _ in range(2):
            names = self.client.zrange(self.keys.of("due"), 0, -1)
            if names:
                self.client.zadd(self.keys.of("due"), dict.fromkeys(names, LONG_AGO))
            while self.tick().due:
                pass

    # -- looking

    def record(self, step_id: str, root: str | None = None) -> dict[str, str]:
        """Return a step's record."""
        return self.store.record(root if root is not None else step_id, step_id)

    def state(self, step_id: str, root: str | None = None) -> str | None:
        """Return the letter of a step's state."""
        return self.record(step_id, root).get("s")

    def generation(self, step_id: str, root: str | None = None) -> int:
        """Return a step's generation."""
        return int(self.record(step_id, root)["g"])

    def look(self) -> Snapshot:
        """Return all that the server holds now."""
        return Snapshot.of(self.client, self.keys)

    def log(self, run: str, root: str | None = None) -> list[dict[str, Any]]:
        """Return a run's log."""
        return [json.loads(line) for line in self.store.read_log(root if root is not None else run, run)]

    def kinds(self, run: str, root: str | None = None) -> list[str]:
        """Return the kinds of a run's log entries."""
        return [entry["k"] for entry in self.log(run, root)]

    def lane(self, queue: str = "q", lane: int = 6) -> list[dict[str, Any]]:
        """Return a lane's messages, the next one last."""
        return [json.loads(message) for message in self.client.lrange(self.keys.lane(queue, lane), 0, -1)]

    def suspects(self, queue: str = "q") -> list[str]:
        """Return the ids of a queue's suspects, the next one last."""
        entries = self.client.lrange(self.keys.of("suspects", queue), 0, -1)
        return [json.loads(entry.split(b"\n", 2)[2])["agentq"].split("|")[1] for entry in entries]

    def events(self, root: str) -> list[str]:
        """Return the kinds of a tree's events."""
        return [event.kind for event in self.store.events(root, limit=100_000)]

    def without_end(self, *kinds: str) -> list[str]:
        """Return the keys of these kinds that have no end."""
        return self.look().without_end(*kinds)

    def drain(self) -> None:
        """Bring everything to its end: the workers die, timers fire, and one more worker ends all there is.

        Whatever is lost in between never ends, and its keys are found by the leak check.
        """
        for (worker,) in self.look().parts("held"):
            self.kill(worker)
        worker = f"drain-{uuid.uuid4().hex}"
        self.store.enroll(worker, label=worker, queues=(), concurrency=1, lease_ms=3_600_000)
        while undone := {key: record for key, record in self.look().records().items() if record["s"] != "d"}:
            for (root, step_id), record in undone.items():
                if record["s"] == "r":
                    self.store.offer([self.step(step_id, root=root)])
                if record["s"] == "p":
                    self.client.zadd(self.keys.of("due"), {f"{root}|{step_id}|{record['g']}": LONG_AGO})
            for letter in self.store.letters():
                self.store.replay(letter.letter_id)
            queues = {record["q"] for record in undone.values()}
            self.open_gates()
            self.fire_timers()
            taken = self.take(worker, slots=2000, queues=sorted(queues))
            assert taken, f"nothing can be taken, and yet these are not done: {list(undone)[:5]}"
            for got in taken:
                self.store.commit(got.holder, mode="done", status="REVOKED" if got.cancelled else "SUCCESS")
        self.store.leave(worker)
        while self.client.zcard(self.keys.of("retiring")):
            self.tick()


def gots(worker: str, reply: TakeReply) -> list[Got]:
    """Return what a take gave; messages without a name keep an empty holder."""
    found = []
    for taken in reply.taken:
        message = json.loads(taken.message)
        root, step_id, generation = message.get("agentq", "||0").split("|")
        holder = Holder(root=root, id=step_id, worker=worker, take=taken.take)
        found.append(Got(holder, int(generation), taken.cancelled, taken.overdue, taken.queue, message))
    return found


def meta(task_id: str, *, status: str = "SUCCESS", result: Any = 1) -> str:
    """Return Celery's meta of an outcome."""
    return json.dumps({"status": status, "result": result, "task_id": task_id, "children": [], "traceback": None})


def agent_join(run: str, join_id: str, size: int, **options: Any) -> Join:
    """Return a join that tells an agent."""
    return Join(root=run, id=join_id, size=size, parent=run, **options)


def break_rule(bench: Bench, rule: str, instead: str) -> None:
    """Replace ``rule`` in the text of every script that has it, to see whether a check notices."""
    scripts = bench.store.scripts
    broken = {name: text.replace(rule, instead) for name, text in scripts.texts.items() if rule in text}
    assert broken, f"no script has the rule {rule!r}"
    for name, text in broken.items():
        scripts.texts[name] = text
        scripts.hashes[name] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
