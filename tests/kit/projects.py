"""Loads the test projects' apps in this process, once per server address."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from weakref import WeakSet

from celery.backends.asynchronous import BaseResultConsumer

_loaded: dict[str, list[Any]] = {}


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables for the length of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def load_module(name: str, *, url: str, **env: str) -> ModuleType:
    """Import a project's module anew, with its server at ``url``.

    An app reads its settings once, so another server means another import of the module, and of all beside
    it in the same project.
    """
    family = name if name.count(".") <= 2 else name.rsplit(".", 1)[0]
    for loaded in [m for m in sys.modules if m == family or m.startswith(family + ".")]:
        del sys.modules[loaded]
    with environment(AGENTQ_REDIS_URL=url, **env):
        module = importlib.import_module(name)
        app: Any = getattr(module, "app", None)
        if hasattr(app, "conf"):
            # Celery reads its configuration and discovers tasks lazily: now, while the environment is set.
            assert app.conf.task_default_queue
            app.loader.import_default_modules()
            app.finalize()
            _loaded.setdefault(url, []).append(app)
    return module


def load_app(name: str, *, url: str, **env: str) -> Any:
    """Return the app of a project's module, imported anew."""
    return load_module(name, url=url, **env).app


_consumers: WeakSet[BaseResultConsumer] = WeakSet()


@functools.wraps(BaseResultConsumer.__init__)
def _note(self: Any, *args: Any, **kwargs: Any) -> None:
    _begin(self, *args, **kwargs)
    _consumers.add(self)


# A stock app's results too, and those that threads wait for: Celery makes a backend for each thread.
_begin: Any = BaseResultConsumer.__init__
BaseResultConsumer.__init__ = _note


def close_app(app: Any) -> None:
    """Close an app's connections, and have its results forget a server that is about to go."""
    consumer = getattr(app.backend, "result_consumer", None)
    if consumer is not None:
        _forget(consumer)
    app.close()


def _forget(consumer: Any) -> None:
    # A pending result of Celery's own backend that is collected later, in some other test, would else try for long to
    # reach the server again, and then raise.
    consumer.stop()
    consumer._pubsub = None


def close_apps(url: str) -> None:
    """Close all apps that were loaded for the server at ``url``, and have everybody's results forget it."""
    for app in _loaded.pop(url, []):
        close_app(app)
    for consumer in list(_consumers):
        if url in (consumer.backend.url, f"redis+{consumer.backend.url}"):
            _forget(consumer)
