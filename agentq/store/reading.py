"""Reads for handles, consoles and listings: runs, steps, events, asks, outcomes. Writes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

import redis

from agentq.core.errors import StoreUnavailable
from agentq.core.lanes import priority_of
from agentq.core.models import AskState, AskSummary, Event, RunStatus, RunSummary
from agentq.store.client import connect_async
from agentq.store.connection import StoreConnection
from agentq.store.refs import JoinMembers
from agentq.store.unserved import unserved_of
from agentq.store.wire import moment, redacted, text

_STATUS: Final[dict[str, RunStatus]] = {
    "q": "queued",
    "h": "running",
    "p": "parked",
    "l": "delayed",
    "r": "running",
    "x": "condemned",
}
_ENDED: Final[dict[str, RunStatus]] = {"SUCCESS": "succeeded", "FAILURE": "failed", "REVOKED": "cancelled"}

_TOLD: Final = {"a": "attempt", "o": "outcome", "q": "queue"}
"""The short names that scripts write into each line of history, as readers know them."""

_LOOK_S: Final = 1.0
"""So often who listens for an outcome looks whether it is there: what is said on a channel may be lost."""

EVENT_CHUNK: Final = 1000
_PAGE: Final = 200


class Reads(StoreConnection):
    """What people and programs look at."""

    # -- outcomes

    def outcomes(self, task_ids: Sequence[str]) -> list[bytes | None]:
        """Return Celery's meta of each task as JSON; None where there is none (yet, or any more)."""
        if not task_ids:
            return []
        keys = [self.keys.result(task_id) for task_id in task_ids]
        found: list[bytes | None] = self.query("MGET", *keys)
        return found

    def outcome(self, task_id: str) -> dict[str, Any] | None:
        """Return a task's final outcome; None when it is not there (yet, or any more)."""
        return final(self.outcomes([task_id])[0])

    def wait_outcome(self, task_id: str, timeout: float | None) -> dict[str, Any] | None:
        """Block until a task's final outcome is there, at most ``timeout`` seconds; None when it is not.

        States that are no outcome (RETRY, STARTED, a custom one) are passed over.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        key = self.keys.result(task_id)

        def wait() -> dict[str, Any] | None:
            with self.ears.on(key, timeout) as channel:
                while True:
                    found = final(self.query("GET", key))
                    left = _LOOK_S if deadline is None else min(deadline - time.monotonic(), _LOOK_S)
                    if channel is None or (found is None and left <= 0):
                        return found
                    if found is not None or (found := final(channel.hear(left))) is not None:
                        channel.is_over = True
                        return found

        return self.guarded(wait)

    async def await_outcome(self, task_id: str, seconds: float | None) -> dict[str, Any] | None:
        """Wait for a task's outcome without blocking the event loop; as ``wait_outcome`` otherwise."""
        deadline = None if seconds is None else time.monotonic() + seconds
        key = self.keys.result(task_id)
        client = connect_async(self.url)
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(key)
                while True:
                    found = final(cast("bytes | None", await client.get(key)))
                    if found is not None:
                        return found
                    left = 1.0 if deadline is None else min(deadline - time.monotonic(), 1.0)
                    if left <= 0:
                        return None
                    await channel.get_message(timeout=left)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise StoreUnavailable(url=redacted(self.url), reason=str(error) or type(error).__name__) from error
        finally:
            await client.aclose()

    def join_members(self, root: str, join_id: str) -> JoinMembers | None:
        """Return where the results of a canvas join lie; None when the join is gone."""
        fields = ("ids", "size", "ok")
        members, size, succeeded = self.guarded(lambda: self.client.hmget(self.keys.join(root, join_id), fields))
        return None if members is None else JoinMembers(members.decode(), int(size), int(succeeded))

    def is_begun(self, run_id: str) -> bool:
        """Tell whether a root step has been taken and is not done: what Celery calls STARTED."""
        state = text(self.guarded(lambda: self.client.hget(self.keys.step(run_id, run_id), "s")))
        return state in ("h", "p", "r")

    # -- runs

    def record(self, root: str, step_id: str) -> dict[str, str]:
        """Return a step's record as text; empty when there is none."""
        found = self.guarded(lambda: self.client.hgetall(self.keys.step(root, step_id)))
        return {name.decode(): value.decode(errors="replace") for name, value in found.items()}

    def records(self, root: str, step_ids: Sequence[str]) -> list[dict[str, str]]:
        """Return the records of several steps of a tree, in order; empty ones for what is not there."""

        def read() -> list[dict[str, str]]:
            with self.client.pipeline(transaction=False) as pipe:
                for step_id in step_ids:
                    pipe.hgetall(self.keys.step(root, step_id))
                return [
                    {name.decode(): value.decode(errors="replace") for name, value in found.items()}
                    for found in pipe.execute()
                ]

        return self.guarded(read) if step_ids else []

    def root_of(self, run_id: str) -> str | None:
        """Return the root run's id of an agent's run; None when no such run is known."""
        if self.guarded(lambda: self.client.exists(self.keys.step(run_id, run_id))):
            return run_id
        escaped = "".join(f"\\{char}" if char in "*?[]\\" else char for char in run_id)

        def scan() -> str | None:
            for name, _ in self.client.zscan_iter(self.keys.of("runs"), match=f"*|{escaped}", count=1000):
                root, _, run = name.decode().partition("|")
                if run == run_id and self.client.exists(self.keys.step(root, run)):
                    return str(root)
            return None

        return self.guarded(scan)

    def run(self, run_id: str) -> RunSummary | None:
        """Return what a listing says of an agent's run; None when it is not known (any more)."""
        root = self.root_of(run_id)
        if root is None:
            return None
        return summary_of(root, run_id, self.record(root, run_id))

    def runs(
        self,
        *,
        agent: str | None = None,
        status: str | None = None,
        limit: int = 50,
        roots_only: bool = False,
    ) -> list[RunSummary]:
        """Return agents' runs, newest first; forgets the names of runs whose retention has ended."""
        found: list[RunSummary] = []
        at = 0
        while names := self._run_names(at):
            at += len(names)
            gone = []
            for name, record in zip(names, self._records_of(names), strict=True):
                root, _, run = name.partition("|")
                if not record:
                    gone.append(name)
                    continue
                summary = summary_of(root, run, record)
                wanted = (agent is None or summary.agent == agent) and (status is None or summary.status == status)
                if wanted and not (roots_only and root != run):
                    found.append(summary)
                    if len(found) == limit:
                        return found
            at -= self._forget_runs(gone)
        return found

    def _run_names(self, start: int) -> list[str]:
        names = self.guarded(lambda: self.client.zrevrange(self.keys.of("runs"), start, start + _PAGE - 1))
        return [name.decode() for name in names]

    def _forget_runs(self, names: Sequence[str]) -> int:
        if names:
            self.guarded(lambda: self.client.zrem(self.keys.of("runs"), *names))
        return len(names)

    def _records_of(self, names: Sequence[str]) -> list[dict[str, str]]:
        def read() -> list[dict[str, str]]:
            with self.client.pipeline(transaction=False) as pipe:
                for name in names:
                    root, _, run = name.partition("|")
                    pipe.hgetall(self.keys.step(root, run))
                return [
                    {name.decode(): value.decode(errors="replace") for name, value in found.items()}
                    for found in pipe.execute()
                ]

        return self.guarded(read)

    def tree(self, root: str) -> dict[str, int]:
        """Return a tree's counters: live steps, limits (``b_``), what was used (``n_``)."""
        found = self.guarded(lambda: self.client.hgetall(self.keys.tree(root)))
        return {name.decode(): int(value) for name, value in found.items()}

    def account(self, root: str, run: str) -> dict[str, int]:
        """Return the counters of a run's own budget: the tree's for a root, else those of the sub-agent."""
        if run == root:
            return self.tree(root)
        found = self.guarded(lambda: self.client.hgetall(self.keys.of("account", root, run)))
        return {name.decode(): int(value) for name, value in found.items()}

    def member_ids(self, root: str) -> list[str]:
        """Return the ids of a tree's steps and agents, in the order of their making."""
        names = self.guarded(lambda: self.client.lrange(self.keys.members(root), 0, -1))
        split = [name.decode().partition("|") for name in names]
        root_too = [root] if self.guarded(lambda: self.client.exists(self.keys.step(root, root))) else []
        return root_too + [member for kind, _, member in split if kind in ("s", "a")]

    # -- history

    def events(self, root: str, *, after: int = 0, limit: int = EVENT_CHUNK) -> list[Event]:
        """Return the lines of a tree's history behind offset ``after``; offsets count from 1 and never move."""

        def read() -> list[Event]:
            cut = int(self.client.hget(self.keys.tree(root), "cut") or 0)
            while True:
                start = max(after - cut, 0)
                with self.client.pipeline(transaction=True) as pipe:
                    pipe.lrange(self.keys.events(root), start, start + limit - 1)
                    pipe.hget(self.keys.tree(root), "cut")
                    lines, found = pipe.execute()
                # A script may have cut the list in between: what was read then lies further on than asked for.
                if int(found or 0) == cut:
                    return [event_of(root, cut + start + at, line) for at, line in enumerate(lines, start=1)]
                cut = int(found or 0)

        return self.guarded(read)

    def wait_events(self, root: str, timeout: float) -> Generator[None, None, None]:
        """Yield whenever a tree's history may have grown, and at least every ``timeout`` seconds."""
        with self.client.pubsub(ignore_subscribe_messages=True) as channel:
            self.guarded(lambda: channel.subscribe(self.keys.events(root)))
            while True:
                yield
                if self.guarded(lambda: channel.get_message(timeout=timeout)) is not None:
                    # What else has come by now is read in the same round.
                    while self.guarded(lambda: channel.get_message(timeout=0)) is not None:
                        pass

    async def await_events(self, root: str, seconds: float) -> AsyncGenerator[None, None]:
        """Yield as ``wait_events`` does, without blocking the event loop."""
        client = connect_async(self.url)
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(self.keys.events(root))
                while True:
                    yield
                    if await channel.get_message(timeout=seconds) is not None:
                        while await channel.get_message(timeout=0) is not None:
                            pass
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise StoreUnavailable(url=redacted(self.url), reason=str(error) or type(error).__name__) from error
        finally:
            await client.aclose()

    # -- questions to people

    def asks(self, *, run_id: str | None = None) -> list[AskSummary]:
        """Return the open asks, oldest first."""

        def read() -> list[AskSummary]:
            names = [name.decode() for name in self.client.zrange(self.keys.of("asks"), 0, -1)]
            found = []
            for name in names:
                root, _, ask_id = name.partition("|")
                ask = self.client.hgetall(self.keys.ask(root, ask_id))
                summary = self._ask(root, ask_id, ask) if ask else None
                if summary is None:
                    self.client.zrem(self.keys.of("asks"), name)
                    continue
                if run_id is None or run_id in (summary.run_id, root):
                    found.append(summary)
            return found

        return self.guarded(read)

    def ask(self, ask_id: str) -> tuple[str, AskSummary] | None:
        """Return the root run's id and the state of an ask, open or decided; None when it is not known (any more)."""

        def read() -> tuple[str, AskSummary] | None:
            root = self._root_of_ask(ask_id)
            ask = self.client.hgetall(self.keys.ask(root, ask_id)) if root is not None else None
            summary = self._ask(root, ask_id, ask) if root is not None and ask else None
            return (root, summary) if root is not None and summary is not None else None

        return self.guarded(read)

    def _root_of_ask(self, ask_id: str) -> str | None:
        for name in self.client.zrange(self.keys.of("asks"), 0, -1):
            root, _, found = name.decode().partition("|")
            if found == ask_id:
                return str(root)
        # A decided ask stands in no list. Who answers late is rare, and may wait for a scan.
        pattern = self.keys.ask("*", "".join(f"\\{char}" if char in "*?[]\\" else char for char in ask_id))
        for key in self.client.scan_iter(match=pattern, count=1000):
            return str(key.decode().split("{", 1)[1].split("}", 1)[0])
        return None

    def _ask(self, root: str, ask_id: str, ask: dict[bytes, bytes]) -> AskSummary | None:
        """Return an ask; None for an open one whose run has ended, by a hard limit for instance."""
        card = json.loads(ask[b"card"])
        agent, state = self.client.hmget(self.keys.step(root, card["run"]), "nm", "s")
        if state in (None, b"d") and ask[b"s"] == b"open":
            return None
        answer = ask.get(b"answer")
        return AskSummary(
            ask_id=ask_id,
            run_id=card["run"],
            agent=text(agent) or "",
            question=card["q"],
            answer_schema=card.get("schema") or {},
            asked_at=moment(ask[b"c"]) or datetime.now(UTC),
            state=cast(AskState, text(ask[b"s"])),
            answer=json.loads(answer) if answer is not None else None,
            answered_by=text(ask.get(b"by")) or None,
        )


def final(meta: bytes | None) -> dict[str, Any] | None:
    """Return Celery's meta if it is an outcome."""
    if meta is None:
        return None
    decoded: dict[str, Any] = json.loads(meta)
    return decoded if decoded.get("status") in _ENDED else None


def event_of(root: str, offset: int, line: bytes | str) -> Event:
    """Return one line of a tree's history; what it leaves out is the root run's."""
    fields: dict[str, Any] = json.loads(line)
    at = datetime.fromtimestamp(fields.pop("t") / 1000, tz=UTC)
    said: dict[str, Any] = fields.pop("f", None) or {}
    return Event(
        offset=offset,
        at=at,
        kind=fields.pop("e"),
        step_id=fields.pop("s", root if "r" not in fields else None),
        run_id=fields.pop("r", root),
        name=fields.pop("n", None),
        worker=fields.pop("w", None),
        # What an agent or a step says itself stands apart in the line, since its names are the users'.
        fields={**dict(_told(name, value) for name, value in fields.items()), **said},
    )


def _told(name: str, value: Any) -> tuple[str, Any]:
    if name == "due":
        return name, datetime.fromtimestamp(int(value) / 1000, tz=UTC).isoformat()
    return _TOLD.get(name, name), _ENDED.get(value, value) if name == "o" else value


def status_of(record: dict[str, str]) -> RunStatus:
    """Return the status that a record stands for."""
    state = record.get("s", "q")
    if state == "d":
        return _ENDED.get(record.get("o", ""), "succeeded")
    if "st" in record or (state == "l" and "zs" in record):
        return "stopped"
    if unserved_of(record.get("un"), record.get("a"), state) is not None:
        return "unschedulable"
    return _STATUS[state]


def summary_of(root: str, run_id: str, record: dict[str, str]) -> RunSummary:
    """Return what a listing says of a run with this record."""
    card = json.loads(record["cd"]) if "cd" in record else {}
    started = moment(record.get("c")) or datetime.fromtimestamp(0, tz=UTC)
    return RunSummary(
        run_id=run_id,
        agent=record.get("nm", ""),
        status=status_of(record),
        started_at=started,
        finished_at=moment(record.get("f")),
        tenant=card.get("tenant"),
        priority=priority_of(int(record["l"])) if "l" in record else None,
        version=record.get("v"),
        parent_id=record.get("pr"),
        key=card.get("key"),
    )


__all__ = ["EVENT_CHUNK", "Reads", "event_of", "final", "moment", "status_of", "summary_of"]
