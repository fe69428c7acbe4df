"""The server is killed and comes back: workers reconnect, and what was confirmed is still there."""

from __future__ import annotations

from tests.kit.field import Field
from tests.kit.sample import wait_for_lines

TIMEOUT = 120.0


def test_a_run_goes_on_after_the_server_restarts(field: Field) -> None:
    field.server.client.config_set("appendfsync", "always")
    started = field.path("started")
    handle = field.flows.slow_fan.start(str(started), 40, 0.1)
    wait_for_lines(started, 10)
    field.server.restart()
    assert handle.get(timeout=TIMEOUT) == list(range(1, 41))


def test_parked_runs_outlive_the_server(field: Field) -> None:
    field.server.client.config_set("appendfsync", "always")
    handles = [field.flows.collect.start(1) for _ in range(5)]
    field.server.restart()
    for number, handle in enumerate(handles):
        handle.signal("number", number)
    assert [handle.get(timeout=TIMEOUT) for handle in handles] == [[n] for n in range(5)]
