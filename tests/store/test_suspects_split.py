"""Suspects where a broker stands beside the store: its hints are taken apart in the same way."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from agentq.store.refs import TakeReply
from agentq.store.unsent import Hint
from tests.kit.server import PrivateServer
from tests.store.bench import Bench, gots


@pytest.fixture
def bench(clean_server: PrivateServer) -> Iterator[Bench]:
    """A store in split mode with three workers."""
    made = Bench(clean_server, split=True)
    for name in ("w1", "w2", "w3"):
        made.worker(name)
    yield made
    clean_server.flush()
    made.store.close()


def claim(bench: Bench, worker: str, *names: str, idle: bool = True) -> TakeReply:
    hints = [Hint(name, "q", 6) for name in names]
    return bench.store.claim(worker, uuid.uuid4().hex, hints, label=worker, idle=idle)


def name_of(bench: Bench, step_id: str) -> str:
    return f"{step_id}|{step_id}|{bench.generation(step_id)}"


def ids(worker: str, reply: TakeReply) -> list[str]:
    return [got.holder.id for got in gots(worker, reply)]


def test_a_hint_that_comes_to_nothing_comes_again(bench: Bench) -> None:
    """Also one that serves for another step than it names: nobody else has a hint for that one."""
    bench.store.offer([bench.step("s0")])
    claim(bench, "w1", "s0|s0|1")
    bench.store.requeue("w1", 1, lost=True)
    bench.store.offer([bench.step("one"), bench.step("two")])
    assert len(bench.store.publish(chunk=10, pause_ms=3_600_000)) == 3
    assert ids("w2", claim(bench, "w2", "two|two|1")) == ["one"]
    assert ids("w1", claim(bench, "w1", name_of(bench, "s0"))) == ["s0"]
    assert ids("w1", claim(bench, "w1", "one|one|1")) == [], "a suspect is there"
    unsent = bench.keys.of("unsent")
    assert bench.client.zscore(unsent, "one|one|1") < bench.store.now_ms() + 1000
    bench.client.zadd(unsent, {"one|one|1": 1})
    assert [post.name for post in bench.store.publish(chunk=10, pause_ms=3_600_000)] == ["one|one|1"]
    assert bench.store.publish(chunk=10, pause_ms=3_600_000) == []
    assert ids("w3", claim(bench, "w3", "one|one|1")) == ["two"]


def test_a_suspect_is_taken_apart(bench: Bench) -> None:
    bench.store.offer([bench.step("s0"), bench.step("other")])
    assert ids("w1", claim(bench, "w1", "s0|s0|1")) == ["s0"]
    bench.kill("w1")
    suspect = name_of(bench, "s0")
    assert ids("w2", claim(bench, "w2", suspect, idle=False)) == []
    assert ids("w2", claim(bench, "w2", "other|other|1", suspect)) == ["other"]
    reply = claim(bench, "w3", suspect)
    assert (ids("w3", reply), reply.rest) == (["s0"], True)
    bench.store.offer([bench.step("third")])
    assert ids("w3", claim(bench, "w3", "third|third|1")) == []
    bench.finish(gots("w3", reply)[0].holder)
    assert ids("w3", claim(bench, "w3", "third|third|1")) == ["third"]


def test_a_refused_hint_comes_again_soon(bench: Bench) -> None:
    bench.store.offer([bench.step("s0")])
    claim(bench, "w1", "s0|s0|1")
    bench.kill("w1")
    suspect = name_of(bench, "s0")
    bench.client.zadd(bench.keys.of("unsent"), {suspect: bench.store.now_ms() + 3_600_000})
    claim(bench, "w2", suspect, idle=False)
    assert bench.client.zscore(bench.keys.of("unsent"), suspect) < bench.store.now_ms() + 1000


def test_one_makes_itself_free_for_one_that_has_waited_long(bench: Bench) -> None:
    bench.store.offer([bench.step("s0")])
    claim(bench, "w1", "s0|s0|1")
    bench.kill("w1")
    bench.client.hset(bench.keys.step("s0", "s0"), "ss", 1)
    assert claim(bench, "w2", name_of(bench, "s0"), idle=False).rest
    assert not claim(bench, "w3", name_of(bench, "s0"), idle=False).rest
    assert ids("w2", claim(bench, "w2", name_of(bench, "s0"))) == ["s0"]


def test_the_third_death_alone_condemns(bench: Bench) -> None:
    bench.store.offer([bench.step("s0")])
    for number in range(3):
        worker = bench.worker(f"x{number}")
        assert ids(worker, claim(bench, worker, name_of(bench, "s0"))) == ["s0"]
        bench.kill(worker)
    assert bench.state("s0") == "x"
    assert bench.client.zcard(bench.keys.of("unsent")) == 0
