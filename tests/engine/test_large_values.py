"""Values that are too large for messages and journals lie in keys of their own, which end with the tree."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord

from agentq.core.errors import InvalidArguments
from agentq.engine.handle import Handle
from tests.kit.sample import TIMEOUT, lines
from tests.kit.server import PrivateServer
from tests.kit.stopping import Stopping
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.timeout(90)

INLINE = 64 * 1024
LARGE = "x" * 200_000


def keys_of(server: PrivateServer, kind: str) -> dict[str, int]:
    """Return the keys of a kind with their seconds of life."""
    names = server.client.scan_iter(match=f"agentq:1:{kind}:*", count=1000)
    return {name.decode(): server.client.ttl(name) for name in names}


def longest_entry(server: PrivateServer) -> int:
    """Return the length of the longest message in a lane, in hands or in a journal."""
    client = server.client
    lengths = [0]
    for key in client.scan_iter(count=1000):
        if client.type(key) == b"list":
            lengths += [len(entry) for entry in client.lrange(key, 0, -1)]
        elif b":held:" in key or b":step:" in key:
            lengths += [len(entry) for entry in client.hvals(key)]
        elif b":message:" in key:
            lengths.append(client.strlen(key))
    return max(lengths)


def test_every_place_takes_large_values(stopping: Stopping) -> None:
    handle = stopping.start("carries", LARGE, 300_000, 1)
    for asked in (1, 2):
        wait_until(lambda: handle.status() == "parked", description=f"parked for the {asked}. time")
        assert longest_entry(stopping.server) < INLINE
        living = [name for name, left in keys_of(stopping.server, "payload").items() if left == -1]
        assert len(living) == 2, "the agent's arguments and one local result"
        handle.signal("go", True)
        if asked == 1:
            wait_until(lambda: len(handle.steps()) == 0 or handle.status() != "parked", description="it goes on as new")
    assert handle.get(timeout=TIMEOUT) == [300_000, 200_000, 200_000, 300_000, 1]
    wait_until(
        lambda: -1 not in keys_of(stopping.server, "payload").values(),
        description="the large values end with the tree",
    )


def test_a_replay_reads_them_again(stopping: Stopping) -> None:
    handle = stopping.start("carries", LARGE, 100_000, 0)
    wait_until(lambda: handle.status() == "parked", description="parked")
    stopping.worker.kill_child()
    handle.signal("go", False)
    assert handle.get(timeout=TIMEOUT) == [100_000, 200_000, 200_000, 100_000, 1]


def test_a_signal_that_is_too_large_is_refused_in_words(stopping: Stopping) -> None:
    """It would stand in the journal, which every replay reads."""
    handle = Handle[Any](stopping.app.store, "run", root="run")
    with pytest.raises(InvalidArguments, match=r"is 1048577 bytes as JSON, and may have 1048576 \(AGENTQ_SIGNAL_LIMIT"):
        handle.signal("go", "x" * (2**20 - 1))
    with pytest.raises(InvalidArguments, match='Argument "answer" of "ask a"'):
        stopping.app.store.answer("run", "a", '"' + "x" * 2**20 + '"', by="me")


def test_a_retry_keeps_its_arguments(stopping: Stopping) -> None:
    tries = stopping.notes
    assert stopping.step("measures_at_last").delay(str(tries), LARGE).get(timeout=TIMEOUT) == len(LARGE)
    assert lines(tries) == ["attempt"] * 2


def test_a_replaced_step_takes_others(stopping: Stopping) -> None:
    assert stopping.step("measures_elsewhere").delay(LARGE).get(timeout=TIMEOUT) == 2 * len(LARGE)


def test_canvas_carries_them(stopping: Stopping) -> None:
    echoes, measures = stopping.step("echoes"), stopping.step("measures")
    assert chain(echoes.s(LARGE), echoes.s(), measures.s()).apply_async().get(timeout=TIMEOUT) == len(LARGE)
    body = stopping.step("measures_body")
    assert chord([echoes.s("a"), echoes.s("b")], body.s(LARGE)).apply_async().get(timeout=TIMEOUT) == 2 + len(LARGE)


def test_arguments_go_when_their_step_is_done(stopping: Stopping) -> None:
    before = keys_of(stopping.server, "payload")
    assert stopping.step("measures").delay(LARGE).get(timeout=TIMEOUT) == len(LARGE)
    wait_until(lambda: keys_of(stopping.server, "payload").keys() == before.keys(), description="they are gone")
