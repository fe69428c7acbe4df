"""What a keeper says to the server: the scripts of a worker's lease, each call made once and within a time.

Imports redis and nothing else of weight: the keeper is a process beside every worker. The scripts' texts come from the
store of the main process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

import redis

from agentq.store.alarm import report_condemned
from agentq.store.client import connect

SCRIPTS: Final = ("renew", "enroll", "tick", "leave", "settle", "overdue")
"""What a keeper may need."""

ALIVE, DEAD, UNKNOWN = 1, 0, 2
"""What ``renew`` answers."""

TICK_CHUNK: Final = 50
"""Of what one tick may do, so that it holds the server for about 3 ms at most; with more behind, it comes again."""

_CHUNK = 200
_CONDEMNED: Final = 2


class Away(Exception):
    """The server cannot be reached or takes no commands now; nothing is lost, the call may be repeated."""


class Lease:
    """One worker's lease on the server at ``url``.

    Args:
        worker: the worker's id.
        lease_ms: length of the lease.
        scripts: text by name, of ``SCRIPTS``.
        dead: key of the mark that the worker is dead.
        timeout_s: of one call, and of connecting: a connection that hangs must not cost the lease.
    """

    def __init__(
        self, url: str, worker: str, *, lease_ms: int, scripts: dict[str, str], dead: str, timeout_s: float
    ) -> None:
        self.worker = worker
        self._lease_ms = lease_ms
        self._scripts = {name: (_digest(text), text) for name, text in scripts.items()}
        self._dead = dead
        self._client: Any = connect(url, socket_timeout=timeout_s, retries=0)

    def renew(self, report: bytes | None = None, *, warm: Iterable[str] = ()) -> tuple[int, dict[str, str]]:
        """Extend the lease; return how the worker stands, and what is drained (see ``WorkerCalls.drains``).

        ``report``: what the worker tells of itself, and what it has open; None where nothing has changed.
        """
        more = () if report is None else ("report", report, "warm", "".join(f"\n{name}\n" for name in warm))
        reply = self._run("renew", self.worker, self._lease_ms, *more)
        if not isinstance(reply, list):
            return int(reply), {}
        fields = [each.decode(errors="replace") for each in reply[1:]]
        return int(reply[0]), dict(zip(fields[::2], fields[1::2], strict=False))

    def is_dead(self) -> bool:
        """Tell whether the worker was given up, and extend nothing."""
        return bool(self._guarded(lambda: self._client.exists(self._dead)))

    def enroll(self, card: tuple[str, ...], *, floor: int) -> int:
        """Make the worker alive, or alive again after the server lost its data; return how it stands."""
        return int(self._run("enroll", self.worker, self._lease_ms, floor, *card))

    def tick(self) -> bool:
        """Let time pass: others' leases, timers, retention; tell whether more waits for another tick."""
        *_, condemned, behind = (int(count) for count in self._run("tick", self._lease_ms, TICK_CHUNK))
        if condemned:
            report_condemned(condemned)
        return bool(behind)

    def mark_overdue(self, take: int) -> None:
        """Note that the attempt is killed next for its hard limit."""
        self._run("overdue", self.worker, take)

    def give_back(self, take: int) -> None:
        """Give back what an attempt held that was killed."""
        if int(self._run("settle", self.worker, take, "lost")) == _CONDEMNED:
            report_condemned()

    def leave(self, *, counted: bool) -> int:
        """Give back all that the worker holds and end its name; return how much it was.

        ``counted``: its attempts died; else they were handed back.
        """
        total = 0
        while True:
            returned = int(self._run("leave", self.worker, _CHUNK, "0" if counted else "1"))
            total += returned
            if returned < _CHUNK:
                return total

    def _run(self, name: str, *arguments: Any) -> Any:
        digest, text = self._scripts[name]

        def call() -> Any:
            try:
                return self._client.evalsha(digest, 0, *arguments)
            except redis.exceptions.NoScriptError:
                # A restarted server has forgotten it; this loads it too.
                return self._client.eval(text, 0, *arguments)

        return self._guarded(call)

    def _guarded(self, call: Any) -> Any:
        try:
            return call()
        except redis.RedisError as error:
            # Also what it refuses: a full server, a replica, a password that is changed just now. A keeper that ended
            # by it would take the worker along.
            raise Away(f"{type(error).__name__}: {error}") from error


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
