"""Brings an app's broker connections to the fused transport, whatever spelling its Redis URL has.

kombu chooses the transport by the URL alone for ``redis+socket://``, whatever ``broker_transport`` says, and
shows a chosen one as the URL's scheme, which Flower does not know. So the choice is made in the connection's
class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from kombu.connection import Connection as KombuConnection
from kombu.connection import ConnectionPool, PooledConnection
from kombu.exceptions import OperationalError
from kombu.utils.collections import HashedSeq

from agentq.core.errors import StoreUnavailable
from agentq.engine import capture
from agentq.engine.messages import HEADER
from agentq.engine.outcome import keep_trying
from agentq.engine.split.stock import StockSentinelTransport, StockTransport
from agentq.engine.this_step import current_attempt
from agentq.engine.transport import SentinelTransport, Transport
from agentq.store import Store
from agentq.store.wire import redacted

RETRIES = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 2.0}
"""Seconds between attempts to connect: the first pause, how much longer the next one is, and the longest."""

KINDS = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}
"""Our transports, by kombu's names of its own."""

STOCK_KINDS = {"redis": StockTransport, "rediss": StockTransport, "sentinel": StockSentinelTransport}
"""The same where kombu's own serve."""


class Fused:
    """Part of a kombu connection: reaches Redis through our transport; other brokers stay kombu's."""

    open_store: ClassVar[Callable[[], Store]]
    is_fused: ClassVar[Callable[[], bool]]
    transport_cls: Any

    @property
    def store(self) -> Store:
        """The app's store."""
        return type(self).open_store()

    def get_transport_cls(self) -> Any:
        """Return the class of the transport."""
        by_name = KINDS if type(self).is_fused() else STOCK_KINDS
        if self.transport_cls in by_name:
            return by_name[self.transport_cls]
        return super().get_transport_cls()  # type: ignore[misc]  # a kombu Connection comes next

    def ensure_connection(self, errback: Any = None, max_retries: int | None = None, **kwargs: Any) -> Any:
        """Connect, trying again soon: kombu's pauses grow to half a minute, in which a worker stands idle.

        A refused connection costs next to nothing.
        """
        return super().ensure_connection(errback, max_retries, **{**RETRIES, **kwargs})  # type: ignore[misc]

    def ensure(self, obj: Any, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Have ``fun`` done, as kombu does; what an attempt sends waits for the server as long as it is away.

        Celery's policy gives up after a second. The message itself goes nowhere yet, it is caught for the commit: only
        its queue is declared. But the attempt would fail, and its run with it, for a server that restarts.
        """
        ensured: Callable[..., Any] = super().ensure(obj, fun, *args, **kwargs)  # type: ignore[misc]
        if capture.active() is None or current_attempt.get() is None:
            return ensured

        def patiently(*args: Any, **kwargs: Any) -> Any:
            try:
                return ensured(*args, **kwargs)
            except OperationalError as error:
                raise StoreUnavailable(url=redacted(self.store.url), reason=str(error)) from error

        return lambda *args, **kwargs: keep_trying(lambda: patiently(*args, **kwargs))

    def __eqhash__(self) -> Any:
        """Keep kombu's process-wide pools apart: a stock connection to the same server is another one."""
        return HashedSeq(*super().__eqhash__(), id(type(self).open_store))  # type: ignore[misc]


class FusedPool(ConnectionPool):
    """A pool whose connections are of the same kind as the one that it was made for."""

    def new(self) -> Any:
        """Return a connection that has not connected yet."""
        made = type(self.connection)
        return _fused(PooledConnection, made.open_store, made.is_fused)(
            self, **dict(self.connection._info(resolve=False))
        )


class Connection(Fused, KombuConnection):
    """A kombu connection of an app; see ``fuse``."""

    def Pool(self, limit: int | None = None, **kwargs: Any) -> FusedPool:  # kombu's name
        """Return a pool of connections like this one."""
        return FusedPool(self, limit, **kwargs)


def _always() -> bool:
    return True


def fuse(app: Any, open_store: Callable[[], Store], is_fused: Callable[[], bool] = _always) -> None:
    """Have all of ``app``'s broker connections take and offer through its store.

    The broker and the store must be one server; where ``is_fused`` says that they are not, kombu's own transport
    serves, in which what is no message does no harm. Call it before the app publishes; a second call replaces the
    first.
    """
    app.amqp.Connection = _fused(Connection, open_store, is_fused)
    app.amqp.create_task_message = _message_maker(app)


def _message_maker(app: Any) -> Callable[..., Any]:
    """Return Celery's maker of messages, with protocol 2 for steps: protocol 1 has no room for what they carry."""

    def make(*args: Any, headers: Any = None, **options: Any) -> Any:
        amqp = app.amqp
        protocol = 2 if headers and HEADER in headers else app.conf.task_protocol
        return amqp.task_protocols[protocol](*args, headers=headers, **options)

    return make


_classes: dict[tuple[type, Callable[[], Store], Callable[[], bool]], type] = {}


def _fused(base: type, open_store: Callable[[], Store], is_fused: Callable[[], bool]) -> Any:
    key = (base, open_store, is_fused)
    if key not in _classes:
        bases = (base,) if issubclass(base, Fused) else (Fused, base)
        parts = {"open_store": staticmethod(open_store), "is_fused": staticmethod(is_fused)}
        _classes[key] = type(base.__name__, bases, parts)
    return _classes[key]
