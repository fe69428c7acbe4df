"""Every call survives the loss of its reply: the client connects anew and repeats it, and nothing happens twice.

A proxy between client and server lets a script run and then cuts the connection instead of handing the reply over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from agentq.store import Store
from agentq.store.admissions import Admission, rate_wish
from agentq.store.forks import CopiedJoin, CopiedStep, Fork
from agentq.store.refs import Arrival, Holder, Join
from tests.kit.proxy import Proxy
from tests.kit.server import PrivateServer
from tests.store.bench import LEASE_MS, Bench, agent_join


@pytest.fixture
def cut(bench: Bench, clean_server: PrivateServer) -> Iterator[Callable[[Callable[[Store], Any]], Any]]:
    """Call the store with the loss of one reply."""
    scripts = bench.store.scripts.hashes
    proxy = Proxy(clean_server.socket, clean_server.folder / "cut", scripts)
    proxy.start()
    store = Store(f"unix://{proxy.path}")
    bench.store.load_scripts()

    def call(what: Callable[[Store], Any]) -> Any:
        trap = proxy.trap(scripts, "after", lambda _: "cut")
        reply = what(store)
        assert trap.done.is_set(), "no reply was lost"
        return reply

    yield call
    store.close()
    proxy.close()


Cut = Callable[[Callable[[Store], Any]], Any]
RESULT = '{"k":"result","id":"c","s":"ok","v":1}'


def test_steps(bench: Bench, cut: Cut) -> None:
    cut(lambda store: store.offer([bench.step("s1"), bench.step("s2")]))
    assert len(bench.lane()) == 2
    taken = cut(lambda store: store.take("w1", "t", slots=1, label="w1", queues=["q"]))
    holder = Holder("s1", "s1", "w1", taken.taken[0].take)
    assert len(bench.lane()) == 1
    cut(lambda store: store.emit(holder, ['{"e":"x","r":"s1"}']))
    assert bench.events("s1") == ["x"]
    onward = [bench.step("s3", root="s1"), bench.step("p", kind="plain", message='{"body":"p"}')]
    cut(lambda store: store.commit(holder, mode="done", status="SUCCESS", offers=onward, usage={"tokens": 3}))
    assert len(bench.lane()) == 3
    assert bench.store.tree("s1")["n_tokens"] == 3
    second = bench.take_one("w2").holder
    cut(lambda store: store.commit(second, mode="again", status="RETRY", offers=[bench.step("s2")]))
    assert bench.generation("s2") == 2
    third = bench.take_one("w2").holder
    cut(lambda store: store.requeue("w2", third.take))
    assert len(bench.lane()) == 3
    (plain,) = [got for got in bench.take("w2", slots=3) if "agentq" not in got.message]
    cut(lambda store: store.drop("w2", plain.holder.take))
    assert cut(lambda store: store.leave("w2")) in (0, 2)
    assert len(bench.lane()) == 2


def test_runs(bench: Bench, cut: Cut) -> None:
    assert cut(lambda store: store.start(bench.agent("run", start_digest="d", args_digest="a"), key="k")) == "run"
    run = bench.take_one().holder
    child = bench.step("c", root="run", parent="run", ask="c")
    question = '{"id":"a1","run":"run","q":"?"}'
    tail = cut(
        lambda store: store.send(run, token="t", seen=1, asks=['{"k":"ask"}'], offers=[child], questions=[question])
    )
    assert [json.loads(entry)["k"] for entry in tail] == ["ask"]
    assert cut(lambda store: store.park(run, seen=2, due_ms=None, waits=["go"])) is True
    assert cut(lambda store: store.signal("run", "run", "go", "1", signal_id="i")) == "new"
    assert cut(lambda store: store.quote("run", "run")) == ""
    assert cut(lambda store: store.answer("run", "a1", "true", by="ann")) == ("new", "true")
    assert cut(lambda store: store.cancel("run", "run", "x")) == "new"
    assert bench.kinds("run") == ["start", "ask", "signal", "answer", "cancel"]
    (step,) = [got.holder for got in bench.take("w2", slots=1)]
    cut(lambda store: store.commit(step, mode="done", status="REVOKED", entry=RESULT))
    again = bench.take_one("w2").holder
    cut(lambda store: store.restart(again, token="r", seen=6, message='{"body":"n"}', version="2", carry=[]))
    assert len(bench.lane()) == 1
    assert bench.kinds("run") == ["start"]


def test_joins(bench: Bench, cut: Cut) -> None:
    run = bench.run_agent("run")
    bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 1)])
    cut(lambda store: store.offer([], [Join(root="g", id="g", size=1, body=bench.step("body"))]))
    arrivals = [
        Arrival(root="run", id="map", index=0, succeeded=True),
        Arrival(root="g", id="g", index="t:1", succeeded=True),
    ]
    cut(lambda store: store.arrive(arrivals))
    cut(lambda store: store.fail_behind("run", [], [("run", RESULT)]))
    assert bench.kinds("run") == ["start", "joined", "result"]
    assert len(bench.lane()) == 1


def test_workers(bench: Bench, cut: Cut) -> None:
    assert cut(lambda store: store.enroll("w9", label="w9", queues=("q",), concurrency=1, lease_ms=LEASE_MS))
    assert cut(lambda store: store.renew("w9", LEASE_MS)) == "alive"
    bench.store.offer([bench.step("s1")])
    bench.take_one("w9")
    bench.expire_lease("w9")
    bench.tick()
    cut(lambda store: store.tick(LEASE_MS))
    assert bench.suspects() == ["s1"]
    assert bench.record("s1")["d"] == "1"


def test_guards(bench: Bench, cut: Cut) -> None:
    slot = Admission(gates=[rate_wish("one", in_flight=1)])
    bench.store.offer([bench.step("s1"), bench.step("s2")])
    first, second = (bench.take_one().holder for _ in range(2))
    assert cut(lambda store: store.admit(first, slot, token="t")).verdict == "go"
    assert cut(lambda store: store.admit(second, slot, token="u")).verdict == "waits"
    assert bench.store.gates()[0].in_flight == 1
    cut(lambda store: store.commit(first, mode="done", status="SUCCESS"))
    third = bench.take_one().holder
    assert (third.id, cut(lambda store: store.admit(third, slot, token="v")).verdict) == ("s2", "go")


def test_forks(bench: Bench, cut: Cut) -> None:
    steps = [CopiedStep("s1", {"s": "d", "o": "SUCCESS", "q": "q", "g": "1", "k": "s"}, '{"status":"SUCCESS"}')]
    joins = [CopiedJoin("map", 3, (0, 2))]
    lines = ['{"k":"start","of":"old"}', '{"k":"ask"}']
    fork = Fork(bench.agent("new"), "old", None, lines, steps, joins, used={"n_tokens": 3}, signals=["i"])
    # One call after the other loses its reply: the three copies, then the start.
    for number in range(4):
        check_fork(bench, cut, replace(fork, offer=bench.agent(f"new{number}")), lost=number)


def check_fork(bench: Bench, cut: Cut, fork: Fork, *, lost: int) -> None:
    store, run_script, calls, run = bench.store, bench.store.run_script, iter(range(4)), fork.offer.id

    def losing(name: str, *arguments: Any) -> Any:
        if next(calls) == lost:
            return cut(lambda other: other.run_script(name, *arguments))
        return run_script(name, *arguments)

    store.run_script = losing  # type: ignore[method-assign]
    assert store.start_fork(fork) == run
    store.run_script = run_script  # type: ignore[method-assign]
    assert [json.loads(line)["k"] for line in store.read_log(run, run)] == ["start", "ask"]
    assert store.tree(run)["n_tokens"] == 3
    assert store.member_ids(run) == [run, "s1"]
    assert bench.client.bitcount(bench.keys.of("bits", run, "map")) == 2
    bench.finish(bench.take_one().holder)
