"""``task_always_eager`` runs steps in place; agents say where to look instead."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from celery import chain, chord

from agentq import AgentqError
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer


@pytest.fixture
def flows(server: PrivateServer) -> ModuleType:
    """The flows with an app that does everything in place."""
    module = load_module("tests.projects.flows", url=server.celery_url)
    module.app.conf.task_always_eager = True
    module.app.conf.task_eager_propagates = True
    module.app.conf.task_store_eager_result = False
    return module


def test_steps_run_in_place(flows: Any) -> None:
    assert flows.add.delay(1, 2).get() == 3
    assert flows.double_async.delay(4).get() == 8
    assert chain(flows.add.s(1, 2), flows.double.s()).apply_async().get() == 6
    assert chord([flows.double.s(n) for n in range(4)], flows.total.s()).apply_async().get() == 12
    with pytest.raises(ValueError, match="at once"):
        flows.broken.delay("at once")


def test_arguments_are_checked_in_place_too(flows: Any) -> None:
    with pytest.raises(AgentqError, match="b"):
        flows.add.delay(1, "no number")


def test_agents_say_where_to_look(flows: Any, server: PrivateServer) -> None:
    for start in (lambda: flows.fan.start(3), lambda: flows.fan.delay(3)):
        with pytest.raises(AgentqError, match=r"agentq\.testing"):
            start()
    assert server.client.keys("*{*") == []


def test_called_outside_a_run_a_step_is_a_function(flows: Any) -> None:
    assert flows.add(1, 2) == 3
    assert flows.total([1, 2]) == 3
