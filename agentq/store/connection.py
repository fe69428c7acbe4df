"""One server, one prefix: the clients and the scripts that the store's parts call through."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import redis

from agentq.core.errors import StoreUnavailable
from agentq.store.client import connect
from agentq.store.ears import Ears
from agentq.store.keys import Keys
from agentq.store.ready import ReadyConnections, Reply
from agentq.store.runner import EVENT_LIMIT, Patience, ScriptSet, Weights
from agentq.store.wire import redacted

T = TypeVar("T")

RETENTION_MS = 7 * 24 * 3600 * 1000
"""How long the keys of an ended run stay by default: a week, in which people look at what failed."""


_PASSING = ("OOM ", "MISCONF ", "READONLY ", "MASTERDOWN ", "NOREPLICAS ", "BUSY ", "TRYAGAIN ")
"""Errors that say something of the server's state and nothing of the command: full, without a disk, a replica."""


def is_passing(error: redis.ResponseError) -> bool:
    """Tell whether the same command may succeed later, when somebody has seen to the server."""
    named = (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError, redis.exceptions.MasterDownError)
    return isinstance(error, named) or str(error).startswith(_PASSING)


class StoreConnection:
    """Owns the clients; a fork gets new ones, since two processes must not read one socket."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "agentq",
        retention_ms: int = RETENTION_MS,
        socket_timeout: float = 30.0,
        event_limit: int = EVENT_LIMIT,
        split: bool = False,
        archive_url: str | None = None,
        patience: Patience | None = None,
        weights: Weights | None = None,
    ) -> None:
        """Open nothing yet; ``archive_url`` names the database that keeps ended runs, None: they are not kept."""
        self.url = url
        self.archive_url = archive_url
        self.split = split
        self.way = "split" if split else "fused"
        self._socket_timeout = socket_timeout
        self.keys = Keys(prefix)
        self.retention_ms = retention_ms
        archives = archive_url is not None
        self.scripts = ScriptSet(
            self.keys,
            retention_ms=retention_ms,
            event_limit=event_limit,
            split=split,
            archives=archives,
            patience=patience,
            weights=weights,
        )
        self._client: redis.Redis | None = None
        self._patient: redis.Redis | None = None
        self._ready: ReadyConnections | None = None
        self._ears: Ears | None = None
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({redacted(self.url)!r}, prefix={self.keys.prefix!r})"

    @property
    def client(self) -> Any:
        """The redis.Redis for ordinary commands; untyped, since its stubs leave open whether replies are decoded."""
        if self._client is None or self._pid != os.getpid():
            self._forget_parent()
            self._client = connect(self.url, socket_timeout=self._socket_timeout)
        return self._client

    @property
    def patient(self) -> Any:
        """The client for commands that wait on the server: it has no socket time-out."""
        if self._patient is None or self._pid != os.getpid():
            self._forget_parent()
            self._patient = connect(self.url, socket_timeout=None)
        return self._patient

    @property
    def ready(self) -> ReadyConnections:
        """The connections at hand for scripts."""
        client = self.client
        if self._ready is None:
            self._ready = ReadyConnections(client)
        return self._ready

    @property
    def ears(self) -> Ears:
        """The subscriptions that are open."""
        client = self.client
        if self._ears is None:
            self._ears = Ears(client)
        return self._ears

    def _forget_parent(self) -> None:
        if self._pid != os.getpid():
            # Not closed: the sockets are shared with the parent, which goes on using them.
            self._client = self._patient = self._ready = self._ears = None
            self._pid = os.getpid()

    def close(self) -> None:
        """Close the connections; a later call opens them again."""
        for client in (self._client, self._patient):
            if client is not None and self._pid == os.getpid():
                client.close()
        self._client = self._patient = self._ready = self._ears = None

    def guarded(self, call: Callable[[], T]) -> T:
        """Return ``call()``; raises StoreUnavailable when the server cannot be reached, or takes no writes now."""
        try:
            return call()
        except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError) as error:
            raise StoreUnavailable(url=redacted(self.url), reason=str(error) or type(error).__name__) from error
        except redis.ResponseError as error:
            if not is_passing(error):
                raise
            raise StoreUnavailable(url=redacted(self.url), reason=str(error)) from error

    def run_script(self, name: str, *arguments: Any) -> Any:
        """Call a script by its name; raises StoreUnavailable when the server cannot be reached."""
        return self.begin_script(name, *arguments).read()

    def begin_script(self, name: str, *arguments: Any) -> ScriptReply:
        """Send the call of a script; its reply is to be read soon, since a connection is kept for it."""
        return ScriptReply(self, name, arguments)

    def query(self, *command: Any) -> Any:
        """Return the server's answer, as it comes, to a command that changes nothing; raises StoreUnavailable.

        At half the cost of redis-py's way, which is gone when this one fails.
        """
        return self.guarded(lambda: self._asked(command))

    def _asked(self, command: tuple[Any, ...]) -> Any:
        try:
            return self.ready.begin(*command).read()
        except redis.ResponseError:
            raise
        except redis.RedisError:
            return self.client.execute_command(*command)

    def now_ms(self) -> int:
        """Return the server's time in ms."""
        seconds, micros = self.guarded(self.client.time)
        return int(seconds) * 1000 + int(micros) // 1000


class ScriptReply:
    """The answer to a call of a script; whoever reads it makes the call again where it is lost, or was not sent."""

    __slots__ = ("_arguments", "_connection", "_name", "_reply")

    def __init__(self, connection: StoreConnection, name: str, arguments: tuple[Any, ...]) -> None:
        self._connection = connection
        self._name = name
        self._arguments = arguments
        self._reply = self._sent()

    def read(self) -> Any:
        """Return what the script has answered; raises StoreUnavailable when the server cannot be reached."""
        return self._connection.guarded(self._read)

    def leave(self) -> bool:
        """Tell whether it may be read later, behind other calls; False: it is to be read now."""
        return self._reply is not None and self._reply.leave()

    def _read(self) -> Any:
        connection, reply, self._reply = self._connection, self._reply, None
        if reply is None:
            reply = self._sent()
        if reply is not None:
            try:
                return reply.read()
            except (redis.ConnectionError, redis.TimeoutError):
                pass
            except redis.ResponseError as error:
                if not connection.scripts.is_unknown(error):
                    raise
        # As the client would repeat it by itself: a script answers a repeat as it answered the first call.
        return connection.scripts.call(connection.client, self._name, *self._arguments)

    def _sent(self) -> Reply | None:
        try:
            return self._connection.ready.begin(*self._connection.scripts.command(self._name, *self._arguments))
        except redis.RedisError:
            return None
