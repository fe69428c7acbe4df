"""A controller for a command: its driver, its pools, and what it has to say."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from threading import Event
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agentq.cli.errors import CommandRefused
from agentq.cli.workers import (
    check_installed,
    child_environment,
    plan_workers,
    servable,
    with_devices,
    worker_argv,
)

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.cli.session import Session
    from agentq.core.pools import PoolSpec
    from agentq.core.sizing import Decision
    from agentq.fleet.controller import Controller
    from agentq.fleet.endpoint import Endpoint
    from agentq.fleet.live_pools import LivePools
    from agentq.fleet.published import Published
    from agentq.fleet.push import PushServer

Say = Callable[[str], None]

STORE_TIMEOUT_S = 5.0
"""For one answer of the store: while it is away the leader's lease runs out, and somebody else may reach it."""


def live_pools(
    session: Session, only: Collection[str], say: Say, *, without: Collection[str] = frozenset()
) -> LivePools:
    """The pools that are scaled but for those in `without`; refused where one that is named is not scaled."""
    from agentq.core.errors import UnknownPool
    from agentq.fleet.live_pools import LivePools

    app = session.app
    declared = dict(app.pools)
    for name in only:
        if name not in declared:
            raise UnknownPool(name=name, known=declared)
        if declared[name].max is None:
            raise CommandRefused(f"Pool {name} is not scaled: say the most workers it may have, max = 8, in its table.")
    return LivePools(declared, app.settings.pools_file, only=only, without=without, say=say)


def unservable(app: AgentQ, driver: str | None, say: Say) -> set[str]:
    """The pools that this machine lacks the GPUs for, where workers are to run on it; each is told.

    Who led one of them would keep a machine that has what it needs from leading it.
    """
    if (driver or app.settings.autoscale_driver) != "local":
        return set()
    here, lacking = servable(app, [name for name, spec in app.pools.items() if spec.max is not None])
    for words in lacking:
        say(words)
    return {name for name, spec in app.pools.items() if spec.max is not None} - set(here)


def make_controller(
    session: Session,
    pools: LivePools,
    *,
    driver: str | None = None,
    is_dry: bool = False,
    is_once: bool = False,
    outlives: bool = True,
    log_level: str = "WARNING",
    say: Callable[[str, str], None] = lambda who, words: None,
    hear: Callable[[str, str], None] | None = None,
    grace_s: float = 30.0,
    hurry: Event | None = None,
) -> Controller:
    """The controller of these pools, by the driver named, else by the one that the settings name.

    The rest is as in the driver's `Setup`.
    """
    from agentq.fleet.bounds import gates_of
    from agentq.fleet.controller import Controller, Terms
    from agentq.fleet.drivers import Setup, make_driver

    app = session.app
    setup = Setup(
        pools=pools,
        store=app.open_store(socket_timeout=STORE_TIMEOUT_S),
        command=_Commands(session, pools, log_level),
        folder=app.settings.state_dir.absolute() / "fleet" / _place_of(app),
        say=say,
        hear=hear,
        outlives=outlives,
        grace_s=grace_s,
        hurry=hurry if hurry is not None else Event(),
    )
    terms = Terms(
        pools=pools,
        slots=slots_of,
        gates=gates_of(app.celery.tasks),
        is_dry=is_dry,
        is_once=is_once,
        worker_lease_s=app.settings.lease.total_seconds(),
    )
    return Controller(setup.store, make_driver(driver or app.settings.autoscale_driver, setup), terms)


@contextmanager
def serving(session: Session, *, metrics: str | None, push: str | None, say: Say) -> Iterator[None]:
    """What is decided is served at each `[HOST:]PORT` meanwhile; where no host is named, to this machine alone."""
    if metrics is None and push is None:
        yield
        return
    from agentq.fleet.published import Known, Published

    store = session.app.open_store(socket_timeout=STORE_TIMEOUT_S)
    published = Published(lambda: Known(store.now_ms(), store.decisions()))
    with ExitStack() as served:
        served.callback(store.close)
        for address, usual, make, words in (
            (metrics, 9464, _endpoint, "Decisions are served at http://{}/pools and /metrics."),
            (push, 9465, _push_server, "Decisions are pushed to KEDA from {} (gRPC)."),
        ):
            if address is not None:
                host, port = _place(address, usual)
                server = make(published, host, port)
                server.start()
                served.callback(server.stop)
                say(words.format(f"{_shown(host)}:{server.port}"))
        yield


def _endpoint(published: Published, host: str, port: int) -> Endpoint:
    from agentq.fleet.endpoint import Endpoint

    return Endpoint(published, host=host, port=port)


def _push_server(published: Published, host: str, port: int) -> PushServer:
    from agentq.fleet.push import PushServer

    return PushServer(published, host=host, port=port)


def _place(address: str, usual: int) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535 or (colon and not host):
        raise CommandRefused(f'"{address}" is no address: write {usual}, or 0.0.0.0:{usual} for all who can reach it.')
    return host.strip("[]") or "127.0.0.1", int(port)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class _Commands:
    """The command lines of workers, by the pools' present declarations."""

    def __init__(self, session: Session, pools: LivePools, log_level: str) -> None:
        self._session = session
        self._pools = pools
        self._log_level = log_level

    def __call__(self, pool: str, instance: str) -> tuple[list[str], Mapping[str, str]]:
        from agentq.core.errors import DriverFailed, UsageError

        session = self._session
        try:
            # As the pools file says now: it may have changed since the start.
            known = with_devices(session.app, [pool], declared=self._pools.all)
            plan = plan_workers(known, [pool])[0]
            check_installed(plan)
        except (UsageError, CommandRefused) as error:
            raise DriverFailed(driver="local", pool=pool, reason=str(error)) from error
        label = instance.rpartition("/")[2]
        argv = worker_argv(plan, session.celery_spec, label=label, log_level=self._log_level)
        return argv, {**child_environment(session.source), "AGENTQ_INSTANCE": instance}


def _place_of(app: AgentQ) -> str:
    """A name for the store: what runs for another one, from the same folder, is none of this controller's."""
    url = urlsplit(app.store.url)
    place = f"{url.hostname}:{url.port}{url.path}?{url.query} {app.settings.prefix}"
    return hashlib.sha256(place.encode()).hexdigest()[:12]


def slots_of(spec: PoolSpec) -> int:
    """How many slots a worker of the pool will have."""
    return plan_workers({spec.name: spec}, [spec.name])[0].concurrency


class Rounds:
    """The controller's rounds among what a command does besides, and what they come to in words.

    Args:
        tell: hears of each decision that changes something.
        say: hears of the store's going and coming back, and of another leader.
    """

    def __init__(self, controller: Controller, *, tell: Callable[[Decision], None], say: Say) -> None:
        self._controller = controller
        self._tell = tell
        self._say = say
        self._next = 0.0
        self._told: dict[str, tuple[int, str | None]] = {}
        self._is_away = False
        self._leaders: dict[str, str] = {}
        self._troubles: dict[str, str] = {}

    def tend(self) -> None:
        """One round, when its time has come; most calls only look at the clock."""
        from agentq.core.errors import StoreUnavailable
        from agentq.fleet.controller import ROUND_S

        now = time.monotonic()
        if now < self._next:
            # That the store is away the next round says.
            with suppress(StoreUnavailable):
                self._controller.let_time_pass()
            return
        # From the beginning of one to that of the next; never two at once to catch up.
        self._next = max(self._next + ROUND_S, now + ROUND_S / 2)
        try:
            decided = self._controller.round()
        except StoreUnavailable as error:
            if not self._is_away:
                self._say(f"{error} The workers go on as they are.")
            self._is_away = True
            return
        if self._is_away:
            self._is_away = False
            self._say("The store is reached again.")
        self._tell_leaders()
        for decision in decided:
            news = (decision.desired, decision.trouble)
            if self._told.get(decision.pool) != news:
                self._told[decision.pool] = news
                self._tell(decision)
        self._tell_troubles({decision.pool for decision in decided})

    def _tell_troubles(self, decided: Collection[str]) -> None:
        """Of pools that nothing was decided of; the others' stand in their decisions."""
        troubles = {pool: words for pool, words in self._controller.troubles.items() if pool not in decided}
        for pool, words in troubles.items():
            if self._troubles.get(pool) != words:
                self._say(f"Pool {pool}: {words}.")
        self._troubles = troubles

    def _tell_leaders(self) -> None:
        leaders = dict(self._controller.leading.leaders)
        for pool in leaders.keys() - self._leaders.keys():
            self._say(f"Pool {pool} is led by {leaders[pool]}; this controller takes over when that one is gone.")
        for pool in self._leaders.keys() - leaders.keys():
            if pool in self._controller.controls:
                self._say(f"Pool {pool} is led by this controller now.")
        self._leaders = leaders


def words_of(decision: Decision) -> str:
    """One line: `tools: 1 → 4 workers: 12 waiting`."""
    change = f"{decision.had} → {decision.desired}" if decision.had != decision.desired else f"{decision.desired}"
    noun = "worker" if decision.desired == 1 else "workers"
    beside = f" ({decision.foretold})" if decision.foretold is not None else ""
    return f"{decision.pool}: {change} {noun}: {decision.why}{beside}"
