"""Runs of every kind together while workers are killed at random: each ends as if undisturbed."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from typing import Any

import pytest
from celery import chain, chord

from tests.kit.field import Field, shape_of

logger = logging.getLogger(__name__)

TIMEOUT = 240.0
SECONDS = float(os.environ.get("SOAK_SECONDS", "90"))


def start_all(field: Field, number: int) -> list[tuple[Any, Any]]:
    """Start one of each kind; returns pairs of a handle or result and what it must give."""
    flows = field.flows
    path = str(field.path(f"notes{number}"))
    mixed = flows.mixed.start(path, 6)
    mixed.signal("number", number)
    tally = flows.tally.start(0, 0, 20, 7)
    for value in range(20):
        tally.signal("number", value)
    flaky = flows.flaky.delay(str(field.path(f"tries{number}")), 0)
    return [
        (flows.chain_of.start(path, 4, 0.05), 4),
        (flows.slow_fan.start(path, 12, 0.05), list(range(1, 13))),
        (flows.local_loop.start(path, 20, 0.01), 20),
        (flows.parent.start(4), [n * (n - 1) for n in range(4)]),
        (tally, sum(range(20))),
        (
            mixed,
            {
                "branches": [4 * n for n in range(6)],
                "mapped": list(range(1, 7)),
                "rest": [sum(2 * n for n in range(6)), number],
            },
        ),
        (chain(flows.add.s(1, 2), flows.double.s(), flows.slow.s(path, 0.05)).apply_async(), 7),
        (chord([chain(flows.double.s(n), flows.double.s()) for n in range(6)], flows.total.s()).apply_async(), 60),
        (flaky, None),
    ]


def kill_tree(field: Field) -> None:
    """A machine dies."""
    field.replace_one()


def kill_main(field: Field) -> None:
    """The kernel picks the main process: its children must notice by themselves."""
    field.fleet.ensure(2)
    victim = field.fleet.choose(field.rng)
    victim.kill_main()
    field.fleet.workers.remove(victim)
    field.fleet.start()


def kill_child(field: Field) -> None:
    """The kernel picks a child: its worker goes on with another one."""
    victim = field.fleet.choose(field.rng)
    children = victim.children()
    if children:
        victim.kill_child(field.rng.randrange(len(children)))


def stop_warmly(field: Field) -> None:
    """Somebody deploys."""
    field.fleet.ensure(2)
    victim = field.fleet.choose(field.rng)
    victim.send(signal.SIGTERM)
    field.fleet.workers.remove(victim)
    field.fleet.start()


def stand_still(field: Field) -> None:
    """A machine stands still for longer than its lease, and comes back."""
    field.fleet.ensure(2)
    victim = field.fleet.choose(field.rng)
    victim.pause()
    time.sleep(field.rng.uniform(3.5, 5))
    victim.resume()


def restart_server(field: Field) -> None:
    """The server dies and comes back with all that it has confirmed."""
    field.server.restart()
    field.server.client.config_set("appendfsync", "always")


DISTURBANCES = [kill_tree, kill_tree, kill_main, kill_child, stop_warmly, stand_still, restart_server]


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 2 * TIMEOUT)
def test_runs_of_every_kind_survive_everything(field: Field, rng: random.Random) -> None:
    field.server.client.config_set("appendfsync", "always")
    calm = start_all(field, 0)
    shapes = []
    for handle, expected in calm:
        value = handle.get(timeout=TIMEOUT)
        assert expected is None or value == expected
        shapes.append(shape_of(handle) if hasattr(handle, "steps") else None)

    pending: list[tuple[Any, Any, Any]] = []
    number, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        number += 1
        pending += [(*pair, shape) for pair, shape in zip(start_all(field, number), shapes, strict=True)]
        time.sleep(rng.uniform(0.3, 2.5))
        disturb = rng.choice(DISTURBANCES)
        logger.info("round %d: %s", number, disturb.__name__)
        disturb(field)
        if len(pending) > 40:
            check(pending[:-20])
            pending = pending[-20:]
    check(pending)


def check(pending: list[tuple[Any, Any, Any]]) -> None:
    """Wait for runs and compare results and steps with the undisturbed ones."""
    for handle, expected, shape in pending:
        value = handle.get(timeout=TIMEOUT)
        assert expected is None or value == expected, handle
        if shape is not None:
            assert shape_of(handle) == shape, handle
