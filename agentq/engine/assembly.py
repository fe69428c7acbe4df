"""Puts the engine's parts into a Celery app through its public settings and signals; patches nothing.

The app's broker and result backend may be configured before or after; the parts are put in when its configuration is
read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from celery import Celery
from kombu.entity import Queue

from agentq.core.errors import AgentqError, InvalidSetting
from agentq.engine.agent import Agent
from agentq.engine.batch import open_batches
from agentq.engine.binding import Binding, bind, find_binding
from agentq.engine.bootsteps import attach
from agentq.engine.connection import fuse
from agentq.engine.internal import register_internal_steps
from agentq.engine.messages import HEADER
from agentq.engine.mode import REDIS_SCHEMES, is_redis
from agentq.engine.split.sending import divert
from agentq.engine.split.steps import SplitTerms, attach_split
from agentq.engine.worker_terms import Terms
from agentq.store import Store
from agentq.store.client import is_sentinel, normalise, sentinel_place, without_query
from agentq.store.wire import redacted

BACKEND = "agentq.engine.backend:Backend"
"""As Celery names a class of another package."""

CELERYS_AUTOSCALER = "celery.worker.autoscale:Autoscaler"
"""The setting's default: one who has named another has meant it."""

DEFAULT_CONNECTION_RETRIES = 100
"""Celery's default; a worker that gives up after it would need somebody to start it when the server is back."""

BACKENDS = {
    "redis": BACKEND,
    "rediss": BACKEND,
    "sentinel": "agentq.engine.backend:SentinelResults",
}
"""By Celery's names of its Redis backends, what stands in their place."""


def bind_app(
    app: Celery,
    binding: Binding,
    terms: Terms,
    *,
    open_store: Callable[[], Store],
    celery_url: Callable[[], str],
    broker_url: Callable[[], str] | None = None,
    split: SplitTerms | None = None,
) -> None:
    """Make ``app`` run steps and agents. A second call replaces the first.

    ``celery_url`` is the store's, ``broker_url`` (by default the same) the one for an app that names none; both are
    asked for when the configuration is read: in it a private server may be started. ``split``: on which terms there may
    be a broker beside the store.
    """

    def is_split() -> bool:
        return split is not None and split.is_split()

    first = find_binding(app) is None
    bind(app, binding)
    fuse(app, open_store, lambda: not is_split())
    open_batches(app, open_store)
    attach(app, terms)
    if split is not None:
        attach_split(app, split)

    def begin(sender: Any = None, **_kwargs: Any) -> None:
        binding.loader = threading.get_ident()

    def configure(sender: Any = None, source: Any = None, **_kwargs: Any) -> None:
        try:
            complete(source)
        finally:
            binding.loader = None
            binding.configured.set()

    def complete(source: Any) -> None:
        conf = source if source is not None else app.conf
        try:
            url = celery_url()
            _check_backend(conf.result_backend, url)
            in_split = is_split()
        except AgentqError as error:
            # Celery's signals swallow what a receiver raises: it is raised when the app first uses agentq.
            binding.failure = error
            return
        if not conf.broker_url:
            conf.broker_url = url if broker_url is None else broker_url()
        # By Celery's own table of backends, so that the setting stays a URL as everybody knows it.
        app.loader.override_backends = {**app.loader.override_backends, **BACKENDS}
        conf.result_backend = url
        name_master(conf, open_store().url)
        # What runs is fenced by its holder: a lost connection is no reason to cut it off, nor to take less afterwards.
        conf.worker_cancel_long_running_tasks_on_connection_loss = False
        if in_split:
            divert(app, open_store)
        else:
            conf.worker_prefetch_multiplier = 1
            conf.worker_enable_prefetch_count_reduction = False
            given = conf.broker_transport_options or {}
            conf.broker_transport_options = {"low_share": binding.limits.low_share, **given}
        if conf.worker_autoscaler == CELERYS_AUTOSCALER:
            conf.worker_autoscaler = "agentq.engine.elastic:QueueAutoscaler"
        if conf.broker_connection_retry_on_startup is None:
            conf.broker_connection_retry_on_startup = True
        if conf.broker_connection_max_retries == DEFAULT_CONNECTION_RETRIES:
            conf.broker_connection_max_retries = None

    def register(sender: Any = None, **_kwargs: Any) -> None:
        declare_queues(app, binding)

    if first:
        register_internal_steps(app)
    if app.configured:
        configure()
    else:
        app.on_configure.connect(begin, weak=False)
        app.on_after_configure.connect(configure, weak=False)
    if app.finalized:
        register()
    else:
        app.on_after_finalize.connect(register, weak=False)


def name_master(conf: Any, url: str) -> None:
    """Have Celery's own clients ask the Sentinels for the same master."""
    if not is_sentinel(url):
        return
    place = sentinel_place(url)
    for name in ("broker_url", "result_backend"):
        if is_sentinel(str(conf[name])):
            conf[name] = without_query(str(conf[name]))
    options: dict[str, Any] = {"master_name": place.master_name}
    if place.sentinel:
        options["sentinel_kwargs"] = place.sentinel
    for name in ("broker_transport_options", "result_backend_transport_options"):
        conf[name] = {**options, **(conf.get(name) or {})}


def _check_backend(given: Any, url: str) -> None:
    """Return if results may stand where the records do; raises InvalidSetting when the app wants them elsewhere."""
    if not given:
        return
    if urlsplit(str(given)).scheme not in REDIS_SCHEMES or _place(str(given)) != _place(url):
        raise InvalidSetting(
            name="result_backend",
            value=redacted(str(given)),
            reason="agentq writes results in one instant with its records, so they stand on the same Redis, in "
            f"the same database: set result_backend to {redacted(url)}, or leave it out",
        )


def _place(url: str) -> tuple[str, int, str, str]:
    """Return host, port, path of the socket, and database of a Redis URL: what tells two servers apart."""
    if is_sentinel(url):
        place = sentinel_place(url)
        return "sentinel", 0, str(sorted(place.hosts)), str(place.master["db"])
    parts = urlsplit(normalise(url))
    if parts.scheme == "unix":
        return "", 0, parts.path, dict(parse_qsl(parts.query)).get("db", "0")
    database = parts.path.strip("/") or dict(parse_qsl(parts.query)).get("db", "0")
    # Whether by TLS or not: a port speaks one of the two.
    return parts.hostname or "", parts.port or 6379, "", database


def broker_address(app: Celery) -> str | None:
    """Return the broker's URL if the app's configuration names one, else None."""
    return _configured(app, "broker_url")


def backend_address(app: Celery) -> str | None:
    """Return the result backend's URL if the app's configuration names a Redis, else None."""
    url = _configured(app, "result_backend")
    return url if url is not None and is_redis(url) else None


def _configured(app: Celery, name: str) -> str | None:
    value = app.conf.get(name) if app.configured else app._preconf.get(name)
    return str(value) if value else None


def master_named(app: Celery) -> str | None:
    """Return the name that the app's configuration gives the master behind its Sentinels."""
    options = (
        app.conf.get("broker_transport_options") if app.configured else app._preconf.get("broker_transport_options")
    )
    return (options or {}).get("master_name")


def named_queues(app: Celery) -> list[str]:
    """Return the queues that the declarations of this app's steps and agents name."""
    names: list[str] = []
    for task in app._tasks.values():
        options = getattr(task, HEADER, None)
        if options is not None:
            name = options.queue if options.queue is not None else options.pool
            if name is not None and name not in names:
                names.append(name)
    return names


def declare_queues(app: Celery, binding: Binding) -> None:
    """Have a worker without ``-Q`` serve every queue that a step may be sent to, not only Celery's default."""
    queues = app.amqp.queues
    for name in dict.fromkeys([*named_queues(app), *binding.pools]):
        if name not in queues:
            # Where -Q has chosen already, a queue is for sending alone; Celery's ``add`` makes each of them such a one.
            declare = queues.add if queues._consume_from is not None else queues.select_add
            declare(Queue(name, routing_key=name, exchange=name))


def load_tasks(app: Celery) -> None:
    """Import the modules that the app includes or discovers: Celery does so in its workers alone."""
    app.loader.import_default_modules()
    app.finalize(auto=True)


def agents_of(app: Celery) -> dict[str, Agent[..., Any]]:
    """Return the agents among an app's tasks, by name; loads the modules that the app includes, as its workers do."""
    load_tasks(app)
    return {name: task for name, task in app.tasks.items() if getattr(task, "is_agent", False)}
