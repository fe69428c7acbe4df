"""What a worker that stops does with the requests that its children have not yet said to have begun.

The real thing needs a SIGTERM between a write to a child and its first word: ``test_a_warm_stop_hands_back`` meets that
moment now and then, and hung.
"""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from amqp.transport import TCPTransport
from celery.bootsteps import CLOSE, RUN
from celery.concurrency.asynpool import AsynPool
from kombu.connection import Connection

from agentq.engine import stopping
from agentq.engine.stopping import bound_goodbye, keep_what_was_sent


def call(cache: dict[int, Any], number: int, *, alive: bool | None) -> None:
    """Put a request into a pool's memory: sent to a child that lives or not; None: not sent."""
    child = None if alive is None else SimpleNamespace(pid=100 + number, inqW_fd=number, _is_alive=lambda: alive)
    cache[number] = SimpleNamespace(
        _write_to=child,
        _scheduled_for=child,
        _accepted=False,
        _worker_pid=None,
        discard=lambda: cache.pop(number),
    )


@pytest.mark.parametrize(("state", "kept"), [(CLOSE, [1]), (RUN, [])])
def test_only_one_that_stops_keeps_what_a_living_child_has(state: int, kept: list[int]) -> None:
    """By Celery's own ``flush``."""
    cache: dict[int, Any] = {}
    children = AsynPool.__new__(AsynPool)
    children.__dict__.update(
        _cache=cache,
        _state=RUN,
        synack=False,
        outbound_buffer=[],
        maintain_pool=lambda: None,
        _active_writers=set(),
        _active_writes=set(),
        _busy_workers={1, 2, 3},
    )
    call(cache, 1, alive=True)
    call(cache, 2, alive=False)
    call(cache, 3, alive=None)
    pool = SimpleNamespace(_pool=children, flush=children.flush)
    keep_what_was_sent(SimpleNamespace(pool=pool, blueprint=SimpleNamespace(state=state)))
    pool.flush()
    assert sorted(cache) == kept
    assert [each._worker_pid for each in cache.values()] == [100 + number for number in kept]


def test_a_broker_that_does_not_answer_holds_no_goodbye_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has stopped to read: as a broker does with who publishes more than it bears."""
    monkeypatch.setattr(stopping, "GOODBYE_S", 0.2)
    here, there = socket.socketpair()
    with here, there:
        transport = TCPTransport("localhost")
        transport.sock = here
        bound_goodbye(SimpleNamespace(_connection=SimpleNamespace(transport=transport)))
        with pytest.raises(TimeoutError):
            here.recv(1)
        transport.sock = None


def test_a_connection_that_was_never_made_needs_no_goodbye() -> None:
    bound_goodbye(None)
    bound_goodbye(Connection("redis://"))
