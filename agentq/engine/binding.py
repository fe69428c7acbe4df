"""What a Celery app gets with agentq: the store, the pools, the middleware. One binding per app, kept beside it.

Assembly makes bindings; tasks, backend and transport look theirs up. Nothing is set on the app's class.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from agentq.core.errors import AgentqError, UsageError
from agentq.core.guards import Budget
from agentq.core.pools import Declared
from agentq.core.prices import Prices
from agentq.core.routes import OnFull, Outlook
from agentq.core.tenants import TenantSpec
from agentq.core.zombies import NONE, Zombies
from agentq.engine.watching import Watcher
from agentq.store import Store

if TYPE_CHECKING:
    from agentq.engine.attempt import Attempt


class Middleware(Protocol):
    """Wraps a step's attempt: ``call`` runs the rest of the chain and returns the step's value."""

    def concerns(self, attempt: Attempt) -> bool:
        """Tell whether it has anything to do with this attempt; else the attempt is run without it."""
        ...

    def __call__(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        """Return the step's value; may raise ``outcome.Again`` to have the step run again later."""
        ...


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a turn of an agent ended.

    Attributes:
        kind: ``parked`` and ``restarted`` have written already; ``value``, ``error`` and ``cancelled`` are to be
            committed.
        value: the agent's return value, not encoded.
        error: what the agent raised.
        closes, cancels: open asks and running children that end with it.
        torn: it could not say which those are; all of them end.
    """

    kind: str
    value: Any = None
    error: BaseException | None = None
    closes: tuple[str, ...] = ()
    cancels: tuple[str, ...] = ()
    torn: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Default limits, in seconds and bytes.

    Attributes:
        step_s: soft limit of a step's attempt.
        grace_s: from the soft limit to the hard one.
        turn_s: how long an agent may compute between two of its awaits.
        linger_s: how long a turn waits for inputs before it parks.
        low_share: every N-th take begins with the lowest lane.
        inline_bytes: of a result that still stands in the parent's log itself; larger ones are read from the step's
            own result.
        result_bytes: of a result at the most; a larger one makes the step fail.
        cache_bytes: of an answer at the most that a cached step's answers are kept of.
        prefer_wait_s: how much longer a call waits for a pool that it prefers.
        on_full: what a start does that says nothing itself when too many wait in its pool.
        full_wait_s: how long it waits for room at most.
    """

    step_s: float = 600.0
    grace_s: float = 30.0
    turn_s: float = 60.0
    linger_s: float = 0.5
    low_share: int = 8
    inline_bytes: int = 64 * 1024
    result_bytes: int = 16 * 1024 * 1024
    cache_bytes: int = 1024 * 1024
    prefer_wait_s: float = 5.0
    on_full: OnFull = "raise"
    full_wait_s: float = 60.0


@dataclass(slots=True)
class Binding:
    """agentq's part of one Celery app.

    Attributes:
        open_store: gives the store.
        read_pools: gives the declared pools by name.
        read_tenants: gives what is declared of tenants.
        outlook: gives what this process knows of the workers; None where it knows nothing.
        default_queue: gives the queue of what names none: Celery's default.
        middleware: outermost first.
        run_turn: runs one turn of an agent; set by assembly, since the engine must not know the runtime.
        limits: default limits.
        prices: of models, by which spending is counted where it names no amount.
        tenant_budget: of all that a tenant runs on a day.
        watcher: is told of failures, losses and dead letters.
        zombies: when runs are stopped whose agent says nothing about it.
        failure: why the app's configuration cannot be used.
        loader: the thread that reads the app's configuration now.
        configured: set once our part of the configuration is in it.
    """

    open_store: Callable[[], Store]
    read_pools: Callable[[], Declared] = Declared
    read_tenants: Callable[[], Mapping[str, TenantSpec]] = dict
    outlook: Callable[[], Outlook | None] = lambda: None
    default_queue: Callable[[], str] = lambda: "celery"
    middleware: list[Middleware] = field(default_factory=list)
    run_turn: Callable[[Attempt], TurnEnd] | None = None
    limits: Limits = Limits()
    prices: Prices = field(default_factory=Prices)
    tenant_budget: Budget | None = None
    watcher: Watcher = field(default_factory=Watcher)
    zombies: Zombies = NONE
    failure: AgentqError | None = None
    loader: int | None = None
    configured: threading.Event = field(default_factory=threading.Event)

    def await_configuration(self, app: Any) -> None:
        """Return once no other thread is in the middle of reading the app's configuration.

        Celery shows what it has read before the receivers of its signal have completed it, ours among them, which may
        start a server first. Who takes a broker from it then has another one, for as long as the process lives.
        """
        if self.loader is None or self.loader == threading.get_ident() or not app.configured:
            return
        if not self.configured.wait(LOADING_S):
            # Reading failed before our part began: nobody need wait for it again.
            self.loader = None

    @property
    def store(self) -> Store:
        """The store of this app; raises what made its configuration fail."""
        if self.failure is not None:
            raise self.failure
        return self.open_store()

    @property
    def pools(self) -> Declared:
        """The declared pools by name."""
        return self.read_pools()


LOADING_S = 60.0
"""More than the start of a private server takes on a busy machine."""

_bindings: WeakKeyDictionary[Any, Binding] = WeakKeyDictionary()


def bind(app: Any, binding: Binding) -> None:
    """Make ``binding`` the one of ``app``; a second call replaces the first."""
    _bindings[app] = binding


def binding_of(app: Any) -> Binding:
    """Return the binding of ``app``; raises UsageError when agentq was not installed in it."""
    found = find_binding(app)
    if found is None:
        name = getattr(app, "main", None)
        raise UsageError(
            f"agentq is not installed in the Celery app {name!r}: call agentq.install(app), or use AgentQ."
        )
    found.await_configuration(app)
    if found.failure is not None:
        raise found.failure
    return found


def find_binding(app: Any) -> Binding | None:
    """Return the binding of ``app``, None when agentq was not installed in it."""
    current = getattr(app, "_get_current_object", None)
    return _bindings.get(current() if current is not None else app)
