"""Assembly: the class ``AgentQ`` and ``install``, the only place that knows every part.

``AgentQ`` is a Celery app; ``install`` gives the same to an app that exists. Both hold the decorators and the
directories of agents, runs and asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from celery import Celery

from agentq.core.errors import InvalidSetting, StoreUnavailable
from agentq.core.pools import Declared, PoolSpec, declared_in_code, load_pools
from agentq.core.tenants import TenantSpec, load_tenants
from agentq.directory import Agents, Asks, Breakers, Caches, DeadLetters, Limits, Runs
from agentq.engine.assembly import (
    agents_of,
    backend_address,
    bind_app,
    broker_address,
    load_tasks,
    master_named,
    named_queues,
)
from agentq.engine.binding import Binding, find_binding
from agentq.engine.declare import Declarations
from agentq.engine.devices.finding import Outfit, find_outfit
from agentq.engine.lookout import SHARED_MS, Lookout
from agentq.engine.messages import stow
from agentq.engine.mode import Mode, decide_mode, is_redis
from agentq.engine.remote import announcement_of
from agentq.engine.routing import home_of
from agentq.engine.split.steps import SplitTerms
from agentq.engine.tls import tls_named, with_tls
from agentq.engine.worker_terms import Terms
from agentq.guards import AdmissionGuard, FallbackGuard, RetryGuard
from agentq.runtime.port import run_turn
from agentq.settings import Settings
from agentq.store import Store
from agentq.store.client import is_sentinel, normalise, sentinel_place
from agentq.store.embedded import ServerAddress, ensure_server
from agentq.store.runner import Patience
from agentq.store.wire import redacted
from agentq.terms import health_of, limits_of, prices_of, tenant_budget_of, watcher_of, weights_of, zombies_of


class Toolkit(Declarations):
    """agentq's part of one Celery app: decorators, agents, runs, asks, store, pools, settings."""

    celery: Celery
    """The Celery app."""

    def _equip(self, celery: Celery, *, settings: Settings | None) -> None:
        self.celery = celery
        self.agents = Agents(self)
        self.runs = Runs(self)
        self.asks = Asks(self)
        self.dead = DeadLetters(self)
        self.breakers = Breakers(self)
        self.limits = Limits(self)
        self.caches = Caches(self)
        self._settings = settings if settings is not None else Settings.load()
        self._in_code: dict[str, PoolSpec] = {}
        self._declared: Declared | None = None
        self._tenants: Mapping[str, TenantSpec] | None = None
        self._address: ServerAddress | None = None
        self._mode: Mode | None = None
        self._embedded = False
        self._store: Store | None = None
        self._lookout = Lookout(lambda: self.store.survey(list(self.declared_pools), fresh_ms=SHARED_MS))
        watcher = watcher_of(self._settings)
        bind_app(
            celery,
            Binding(
                open_store=lambda: self.store,
                read_pools=lambda: self.declared_pools,
                read_tenants=lambda: self.tenants,
                outlook=self._lookout.outlook,
                default_queue=lambda: str(celery.conf.task_default_queue),
                middleware=[FallbackGuard(), RetryGuard(), AdmissionGuard()],
                run_turn=run_turn,
                limits=limits_of(self._settings),
                prices=prices_of(self._settings),
                tenant_budget=tenant_budget_of(self._settings),
                watcher=watcher,
                zombies=zombies_of(self._settings),
            ),
            Terms(
                open_store=lambda: self.store,
                open_brief_store=lambda: self.open_store(socket_timeout=self.settings.lease.total_seconds() / 2),
                open_archive_store=lambda: self.open_store() if self._settings.archive_url is not None else None,
                announcements=self.announcements,
                pools=lambda: self.declared_pools,
                queues=lambda: list(self.pools),
                stranded_s=self._settings.stranded_after.total_seconds(),
                lease_s=self._settings.lease.total_seconds(),
                renew_s=self._settings.renew.total_seconds(),
                tick_s=self._settings.tick.total_seconds(),
                find_outfit=self.outfit_for,
                health=health_of(self._settings),
                instance=self._settings.instance,
                cancel_grace_s=self._settings.cancel_grace.total_seconds(),
                hard_s=(self._settings.step_soft_limit + self._settings.step_hard_grace).total_seconds(),
                watcher=watcher,
            ),
            open_store=lambda: self.store,
            celery_url=lambda: self.address.celery_url,
            broker_url=lambda: self._named_broker or self.address.celery_url,
            split=SplitTerms(
                is_split=lambda: self.mode == "split",
                open_store=self.open_store,
                open_brisk_store=lambda: self.open_store(socket_timeout=self.settings.lease.total_seconds() / 2),
                prefix=self._settings.prefix,
                kind=self._settings.hint_queues,
                requeue_after_s=self._settings.requeue_after.total_seconds(),
                low_share=self._settings.low_share,
                age_s=self._settings.age_after.total_seconds(),
            ),
        )

    def _make_task(self, **settings: Any) -> Callable[[Callable[..., Any]], Any]:
        # A step belongs to the app of its store; Celery's default would put it into every other app as well.
        made: Callable[[Callable[..., Any]], Any] = self.celery.task(**{"shared": False, **settings})
        return made

    @property
    def settings(self) -> Settings:
        """The settings, read once: environment over file over defaults."""
        return self._settings

    def declare_pool(self, name: str, **fields: Any) -> PoolSpec:
        """Declare a pool in code, with the fields that its table in the pools file would have, and return it.

        The file's table of that name goes before this one, so that who runs the workers has the last word; a later call
        replaces an earlier one. Raises InvalidArguments.
        """
        spec = declared_in_code(name, fields)
        self._in_code[name] = spec
        self._declared = None
        return spec

    @property
    def declared_pools(self) -> Declared:
        """The pools of the pools file, and those that code declares, by name; empty where there are none."""
        if self._declared is None:
            file = self.settings.pools_file
            in_file = load_pools(file) if file is not None else {}
            self._declared = Declared({**self._in_code, **in_file}.values())
        return self._declared

    @property
    def tenants(self) -> Mapping[str, TenantSpec]:
        """What the pools file says of tenants, by name; empty where it says nothing."""
        if self._tenants is None:
            file = self.settings.pools_file
            self._tenants = load_tenants(file) if file is not None else {}
        return self._tenants

    @property
    def pools(self) -> Mapping[str, PoolSpec]:
        """The declared pools by name, and a default one for each queue that only code names."""
        pools = dict(self.declared_pools)
        default_queue = str(self.celery.conf.task_default_queue)
        load_tasks(self.celery)
        for name in [*named_queues(self.celery), default_queue]:
            if name not in pools:
                pools[name] = PoolSpec(name=name)
        return pools

    def outfit_for(self, queues: Iterable[str]) -> Outfit | None:
        """Return the GPUs of this machine for a worker of these queues; None where none of them is a GPU pool's.

        Raises DevicesMissing when the machine lacks what such a pool declares.
        """
        return find_outfit(self.declared_pools, queues, gpus=self.settings.gpus)

    @property
    def mode(self) -> Mode:
        """``fused`` where broker and store are one Redis, ``split`` where there is a broker beside the store."""
        if self._mode is None:
            self._mode = decide_mode(self.settings.transport, self._named_broker)
        return self._mode

    @property
    def _named_broker(self) -> str | None:
        """The broker's URL: the app's own, else the settings'; None where neither names one."""
        named = broker_address(self.celery)
        if named is None and self.settings.broker_url is not None:
            return self.settings.broker_url.get_secret_value()
        return named

    def _named_store(self) -> str | None:
        """The URL of the records' Redis: in fused mode the broker, in split mode the result backend, if they are named.

        Else the settings', and in split mode over Redis the broker at last.
        """
        broker = self._named_broker
        first, by = broker, "broker_use_ssl"
        if self.mode == "split":
            first, by = backend_address(self.celery), "redis_backend_use_ssl"
        if first is not None:
            return with_tls(first, tls_named(self.celery, by), setting=by)
        if self.settings.redis_url is not None:
            return self.settings.redis_url.get_secret_value()
        if broker is None or not is_redis(broker):
            return None
        return with_tls(broker, tls_named(self.celery, "broker_use_ssl"), setting="broker_use_ssl")

    @property
    def address(self) -> ServerAddress:
        """Where the records' server is; a private one, which is started, where no URL names it."""
        if self._address is None:
            url = self._named_store()
            self._embedded = url is None
            if url is not None and is_sentinel(url):
                url = with_master(url, master_named(self.celery))
            self._address = address_of(url) if url is not None else ensure_server(self.settings.state_dir)
        return self._address

    @property
    def store(self) -> Store:
        """The store; opened at the first use."""
        if self._store is None:
            self._store = self.open_store()
        return self._store

    def open_store(self, *, socket_timeout: float = 30.0) -> Store:
        """Return a new store at the app's server, with connections of its own; the time-out is in seconds."""
        retention_ms = int(self.settings.result_retention.total_seconds() * 1000)
        store = Store(
            self.address.url,
            prefix=self.settings.prefix,
            retention_ms=retention_ms,
            socket_timeout=socket_timeout,
            event_limit=self.settings.history_limit,
            split=self.mode == "split",
            archive_url=self.settings.archive_url,
            patience=Patience(
                deaths=self.settings.death_limit,
                suspect_ms=int(self.settings.suspect_wait.total_seconds() * 1000),
                unknown_ms=int(self.settings.unknown_task_grace.total_seconds() * 1000),
                age_ms=int(self.settings.age_after.total_seconds() * 1000),
            ),
            weights=weights_of(self.tenants),
        )
        store.inline_bytes = int(self.settings.inline_limit)
        store.stow = partial(stow, most_bytes=store.inline_bytes)
        store.most_input_bytes = int(self.settings.signal_limit)
        return store

    def announcements(self) -> dict[str, dict[str, Any]]:
        """Return what this app's workers publish of the agents that they serve."""
        return {name: announcement_of(agent, home_of(agent)) for name, agent in agents_of(self.celery).items()}

    def server_words(self) -> str:
        """Return where the server is, without its password; starts the private one if it is needed."""
        return self.address.where

    def revive_server(self) -> str | None:
        """Return None when the server answers; start the private one again if it died, and return what was done.

        Raises StoreUnavailable when the server is not ours to start.
        """
        try:
            self.store.now_ms()
        except StoreUnavailable:
            if not self._embedded:
                raise
            self._address = ensure_server(self.settings.state_dir)
            return f"The embedded server had stopped and was started again: {self._address.where}"
        return None


class AgentQ(Toolkit, Celery):
    """A Celery app with agentq in it.

    ``broker=`` and everything else as for ``celery.Celery``; one Redis URL is enough, ``backend=`` is taken from it.
    Where no broker is named, ``AGENTQ_REDIS_URL`` or ``REDIS_URL`` names the server; where neither is set, agentq
    starts a private one in its state folder when it is first needed.
    """

    def __init__(self, main: str | None = None, *, settings: Settings | None = None, **celery_options: Any) -> None:
        Celery.__init__(self, main, **celery_options)
        self._equip(self, settings=settings)

    @property
    def conf(self) -> Any:
        """The configuration, as Celery's; never half read, also where threads ask for it at once."""
        found = find_binding(self)
        if found is not None:
            found.await_configuration(self)
        return super().conf

    @conf.setter
    def conf(self, value: Any) -> None:
        self._conf = value


class Installed(Toolkit):
    """What ``install`` returns: agentq's decorators and directories for an app that exists."""

    def __init__(self, celery: Celery, *, settings: Settings | None = None) -> None:
        self._equip(celery, settings=settings)

    def __repr__(self) -> str:
        return f"<agentq in {self.celery!r}>"


def install(app: Celery, *, settings: Settings | None = None) -> Installed:
    """Give an existing Celery app steps and agents; its own tasks stay as they are.

    Uses the app's public settings and signals: the transport of its Redis broker, its result backend, one boot step.
    A second call replaces the first. Raises InvalidSetting for a broker that is neither Redis nor RabbitMQ.
    """
    return Installed(app, settings=settings)


def address_of(url: str) -> ServerAddress:
    """Return the address that a URL names, in both spellings: redis-py's and Celery's."""
    plain = normalise(url)
    celery_url = "redis+socket://" + plain.removeprefix("unix://") if plain.startswith("unix://") else plain
    return ServerAddress(where=redacted(url), url=plain, celery_url=celery_url.replace("?db=", "?virtual_host="))


def with_master(url: str, given: str | None) -> str:
    """Return a ``sentinel://`` URL that names its master; raises InvalidSetting when nothing does."""
    if sentinel_place(url).master_name:
        return url
    if not given:
        raise InvalidSetting(
            name="redis_url",
            value=redacted(url),
            reason="nothing names the master that the Sentinels watch: add ?master_name=NAME to the URL, or set "
            'broker_transport_options = {"master_name": NAME}',
        )
    return f"{url}{'&' if '?' in url.rsplit(';', 1)[-1] else '?'}master_name={given}"
