"""agentq in an application that has its own Celery app: typed decorators, and nothing is patched."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
from celery import Celery

import agentq
from tests.kit.projects import load_module
from tests.kit.sample import TIMEOUT
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess


@pytest.fixture(scope="module")
def existing(module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]) -> ModuleType:
    """The application's module, with a worker of its own."""
    env = {"EXISTING_URL": module_server.celery_url}
    start_module_worker("tests.projects.existing_app", url=module_server.celery_url, env=env)
    return load_module("tests.projects.existing_app", url=module_server.celery_url, **env)


def test_the_installed_object_carries_the_decorators(existing: ModuleType) -> None:
    assert existing.triple.delay(3).get(timeout=TIMEOUT) == 9
    assert existing.nine_times.start(2).get(timeout=TIMEOUT) == 18
    handle = existing.queue.runs.get(existing.nine_times.start(3).id)
    assert handle.get(timeout=TIMEOUT) == 27


def test_nothing_of_celery_is_patched(existing: ModuleType) -> None:
    assert type(existing.app) is Celery
    plain = existing.app.tasks["plain.add"]
    assert type(plain).__module__.split(".")[0] != "agentq"
    assert not any(base.__module__.split(".")[0] == "agentq" for base in type(plain).__mro__)
    assert Celery.send_task.__module__ == "celery.app.base"


def test_a_second_installation_replaces_the_first(existing: ModuleType) -> None:
    again = agentq.install(existing.app)
    handle = existing.nine_times.start(2)
    assert again.runs.get(handle.id).get(timeout=TIMEOUT) == 18
    assert again.agents["existing.nine_times"].start(3).get(timeout=TIMEOUT) == 27
