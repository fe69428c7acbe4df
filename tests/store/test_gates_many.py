"""Guards under sixteen processes that race on a real server, some of which are killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from typing import Any, Final

import pytest

from agentq.store import Store
from agentq.store.admissions import Admission, breaker_wish, rate_wish
from agentq.store.refs import Holder
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.store.bench import LONG_AGO, Bench

PROCESSES: Final = 16
SLOTS = rate_wish("slots", in_flight=5)
RATE = rate_wish("rate", requests=40, window_ms=3_600_000)
BREAKER = breaker_wish("llm", rate=0.5, volume=2, window_ms=3_600_000, reset_ms=3_600_000, jitter=0, probes=3)
ACCOUNTS = [{"k": "", "l": ["steps", "tokens"]}]
ESTIMATE: Final = 10
TIMEOUT: Final = 120.0


def serve(url: str, worker: str, line: Barrier) -> None:
    """Take, ask, and end what was let through, until the driver says stop; a process of its own.

    All begin at once: the first could otherwise be through with much of it before the last is there.
    """
    store = Store(url)
    notes = store.client
    store.enroll(worker, label=worker, queues=("q",), concurrency=1, lease_ms=3_600_000)
    line.wait(TIMEOUT)
    while not notes.exists("stop"):
        reply = store.take(worker, uuid.uuid4().hex, slots=1, label=worker, queues=("q",), low_share=0, idle=True)
        for taken in reply.taken:
            root, step, _ = taken.message.decode().split('"')[3].split("|")
            _attempt(store, Holder(root, step, worker, taken.take))
        if not reply.taken:
            time.sleep(0.005)


def _attempt(store: Store, holder: Holder) -> None:
    notes, kind = store.client, holder.id[0]
    admission = {
        "l": Admission(gates=[SLOTS]),
        "r": Admission(gates=[RATE, SLOTS]),
        "b": Admission(gates=[SLOTS], accounts=ACCOUNTS, tokens=ESTIMATE),
        "k": Admission(gates=[BREAKER]),
    }[kind]
    verdict = store.admit(holder, admission, token=uuid.uuid4().hex).verdict
    notes.hincrby("verdicts", f"{kind} {verdict}", 1)
    if verdict == "waits":
        return
    if verdict == "refused":
        store.commit(holder, mode="done", status="FAILURE")
        return
    notes.hset("inside", holder.worker, holder.id)
    if kind == "k":
        while not notes.exists("answer"):
            time.sleep(0.005)
    else:
        notes.lpush("seen", notes.hlen("inside"))
        if notes.sismember("doomed", notes.incr("arrivals")):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(random.uniform(0, 0.004))
    notes.hdel("inside", holder.worker)
    used = random.randint(0, ESTIMATE)
    charge: dict[str, Any] = {"usage": {"tokens": used}, "accounts": ACCOUNTS} if kind == "b" else {}
    store.commit(holder, mode="done", status="SUCCESS", settles={"ok": 1, "tokens": used}, **charge)


@pytest.fixture
def swarm(bench: Bench, clean_server: PrivateServer) -> Iterator[Callable[[], dict[str, BaseProcess]]]:
    """Start the processes, by their workers' names."""
    started: dict[str, BaseProcess] = {}
    context = multiprocessing.get_context("fork")
    line = context.Barrier(PROCESSES)

    def start() -> dict[str, BaseProcess]:
        for number in range(PROCESSES):
            worker = f"p{number}"
            started[worker] = context.Process(target=serve, args=(clean_server.url, worker, line))
            started[worker].start()
        return started

    yield start
    bench.client.set("stop", 1)
    for process in started.values():
        process.join(timeout=60)
        process.kill()
    for key in ("stop", "answer", "inside", "seen", "verdicts", "doomed", "arrivals"):
        bench.client.delete(key)


def _race(bench: Bench, swarm: Callable[[], dict[str, BaseProcess]], size: int, kills: int) -> None:
    bench.worker("root")
    # Those of "b" would use about 5 * size together.
    budget = 3 * size
    bench.store.offer([bench.agent("run", queue="agents", budget={"steps": 10 * size, "tokens": budget})])
    bench.take_one("root", queues=("agents",))
    for kind in "lrb":
        bench.store.offer([bench.step(f"{kind}{number}", root="run", accounts=ACCOUNTS) for number in range(size)])
    # Who arrives with one of these numbers dies in the midst of what it was admitted to. They are set before the race,
    # which may be over sooner than the driver looks again; all of "l" go, so that as many as `size` arrive for certain.
    bench.client.sadd("doomed", *(size * (death + 1) // kills for death in range(kills)))
    processes = swarm()
    alive = set(processes)
    for _ in range(kills):
        victim = wait_until(
            lambda: next((name for name in alive if processes[name].exitcode == -signal.SIGKILL), None),
            description=f"{kills} deaths",
            timeout=TIMEOUT,
            report=lambda: f"alive: {sorted(alive)}, arrived: {bench.client.get('arrivals')!r}",
        )
        alive.remove(victim)
        bench.client.hdel("inside", victim)
        bench.kill(victim)
    done = lambda: {kind: _states(bench, kind, size) for kind in "lrb"}  # noqa: E731
    wait_until(
        lambda: (
            (found := done())["l"].get("d") == size and found["b"].get("d") == size and set(found["r"]) <= {"d", "l"}
        ),
        description="all that may run has run",
        timeout=TIMEOUT,
        report=lambda: str(done()),
    )
    seen = [int(number) for number in bench.client.lrange("seen", 0, -1)]
    assert max(seen) == SLOTS["in"], "no more than the slots at once, and no slot was left empty"
    tree = bench.store.tree("run")
    assert tree["n_tokens"] + tree.get("r_tokens", 0) <= budget
    room = SLOTS["in"] * ESTIMATE
    assert tree["n_tokens"] + room > budget or not _failed(bench, size), "a step was refused that had room"
    gates = {each.name: each for each in bench.store.gates()}
    assert (gates["slots"].in_flight, gates["slots"].waiting, gates["rate"].in_flight) == (0, 0, 0)
    assert gates["rate"].requests == min(RATE["rq"], size)
    assert done()["r"].get("d", 0) <= RATE["rq"]


def _states(bench: Bench, kind: str, size: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in bench.store.records("run", [f"{kind}{number}" for number in range(size)]):
        found[record["s"]] = found.get(record["s"], 0) + 1
    return found


def _failed(bench: Bench, size: int) -> int:
    records = bench.store.records("run", [f"b{number}" for number in range(size)])
    return sum(record["o"] == "FAILURE" for record in records)


def test_sixteen_processes_keep_within_all_limits(bench: Bench, swarm: Callable[[], dict[str, BaseProcess]]) -> None:
    _race(bench, swarm, 60, kills=4)


@pytest.mark.long
@pytest.mark.parametrize("run", range(10))
def test_sixteen_processes_keep_within_all_limits_for_long(
    bench: Bench, swarm: Callable[[], dict[str, BaseProcess]], run: int
) -> None:
    _race(bench, swarm, 1000, kills=12)


def _probes(bench: Bench, swarm: Callable[[], dict[str, BaseProcess]], callers: int) -> None:
    gate = {name: str(value) for name, value in BREAKER.items() if name != "d"}
    bench.client.hset(bench.keys.of("gate", BREAKER["d"]), mapping={**gate, "st": "open", "un": LONG_AGO, "ep": 1})
    for at in range(0, callers, 500):
        names = [f"k{number}" for number in range(at, min(at + 500, callers))]
        bench.store.offer([bench.step(name) for name in names])
    swarm()

    def verdicts() -> dict[str, int]:
        return {name.decode(): int(number) for name, number in bench.client.hgetall("verdicts").items()}

    wait_until(
        lambda: sum(verdicts().values()) >= callers,
        description="all have asked",
        timeout=TIMEOUT,
        report=lambda: str(verdicts()),
    )
    assert verdicts() == {"k go": BREAKER["pk"], "k waits": callers - BREAKER["pk"]}
    # The probes answer well: it closes, and all others go.
    bench.client.set("answer", 1)

    def ended() -> bool:
        bench.tick()
        return verdicts()["k go"] == callers and bench.client.hlen("inside") == 0

    wait_until(ended, description="all have gone", timeout=TIMEOUT, report=lambda: str(verdicts()))


def test_a_thousand_callers_never_send_more_probes_than_there_are(
    bench: Bench, swarm: Callable[[], dict[str, BaseProcess]]
) -> None:
    _probes(bench, swarm, 1000)
