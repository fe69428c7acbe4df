"""A few seeded faults of the many that ``./dev crash`` does, and what its witnesses would say if something broke."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from agentq.store.admissions import Admission, rate_wish
from agentq.store.refs import Arrival
from tests.conftest import SEED
from tests.crash.campaign import Campaign
from tests.crash.faults import Fault, every_fault, plan
from tests.crash.witness import Inspector, Witness, problems_of
from tests.kit.mode import MODES
from tests.kit.proxy import Proxy
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess
from tests.store.bench import Bench, agent_join, break_rule

logger = logging.getLogger(__name__)

LONG = int(os.environ.get("CRASH_FAULTS", "100"))


SHORT = [("fused", 8), ("split", 5)]
"""Stock mode is split mode's protocol over a broker that is Redis: its campaign is one of the long ones."""

FIRST = {"split": [Fault("cut broker", "take", "after"), Fault("broker")]}
"""What each campaign of a mode begins with, however short: the rest is the seed's choice."""


@pytest.mark.parametrize(
    ("mode", "faults"),
    [
        *SHORT,
        *(pytest.param(mode, LONG, marks=[pytest.mark.long, pytest.mark.timeout(LONG * 20)]) for mode in MODES),
    ],
)
def test_runs_end_as_undisturbed_ones(
    make_worker: Callable[..., WorkerProcess], request: pytest.FixtureRequest, mode: str, faults: int
) -> None:
    broker = request.getfixturevalue("rabbitmq") if mode == "split" else None
    report = Campaign(make_worker, mode=mode, seed=SEED, broker=broker, say=logger.info).run(
        faults, first=FIRST.get(mode, ())
    )
    logger.info("%s", report.table())
    assert not report.problems, report.table()


@pytest.mark.parametrize("mode", MODES)
def test_a_plan_follows_from_its_seed_and_leaves_no_fault_out(mode: str) -> None:
    number = len(every_fault(mode))
    assert plan(number, random.Random(3), mode) == plan(number, random.Random(3), mode)
    assert set(plan(number, random.Random(3), mode)) == set(every_fault(mode))


@dataclass(frozen=True)
class Watched:
    """A bench behind a proxy whose witness sees what is committed."""

    bench: Bench
    proxy: Proxy
    witness: Witness


@pytest.fixture
def watched(clean_server: PrivateServer) -> Iterator[Watched]:
    direct = Bench(clean_server)
    direct.store.load_scripts()
    path = clean_server.folder / "p"
    proxy = Proxy(clean_server.socket, path, direct.store.scripts.hashes)
    witness = Witness()
    proxy.on_reply = witness
    proxy.start()
    behind: Any = SimpleNamespace(url=f"unix://{path}")
    bench = Bench(behind)
    bench.worker("w1")
    bench.worker("w2")
    yield Watched(bench, proxy, witness)
    bench.store.close()
    proxy.close()
    direct.store.close()


def problems(bench: Bench) -> list[str]:
    app: Any = SimpleNamespace(store=bench.store, conf=SimpleNamespace(task_default_queue="q"))
    return problems_of(app, bench.client)


def test_a_second_commit_is_noticed(watched: Watched) -> None:
    bench, witness = watched.bench, watched.witness
    bench.store.offer([bench.step("s1")])
    first = bench.take_one("w1").holder
    bench.kill("w1")
    second = bench.take_one("w2").holder
    bench.finish(second)
    assert witness.problems() == []
    held = "if f[1] ~= 'h' or f[2] ~= h.worker or f[3] ~= tostring(h.take) then\n  return { 0"
    break_rule(bench, held, "if false then\n  return { 0")
    watched.proxy.learn(bench.store.scripts.hashes)
    bench.finish(first)
    assert len(witness.problems()) == 1


def test_what_stays_behind_is_noticed(watched: Watched) -> None:
    bench = watched.bench
    run = bench.run_agent("run")
    bench.store.send(run, token="t", seen=1, joins=[agent_join("run", "map", 1)], offers=[])
    assert any("is h at the end" in line for line in problems(bench))
    assert any("was not released" in line for line in problems(bench))
    assert any("has no end" in line for line in problems(bench))
    bench.store.arrive([Arrival(root="run", id="map", index=0, succeeded=True)])
    bench.finish(run)
    assert problems(bench) == []
    bench.client.rpush(bench.keys.events("run"), '{"t":1,"e":"finished","r":"run","s":"run"}')
    assert problems(bench) == ["step run of run ended 2 times"]


def test_what_stays_reserved_is_noticed(watched: Watched) -> None:
    bench = watched.bench
    accounts = [{"k": "", "l": ["tokens"]}]
    run = bench.run_agent("run", budget={"tokens": 100})
    bench.store.offer([bench.step("s1", root="run", accounts=accounts)])
    holder = bench.take_one("w2").holder
    wish = rate_wish("slots", in_flight=1)
    bench.store.admit(holder, Admission(gates=[wish], accounts=accounts, tokens=10), token="a")
    inspector = Inspector()
    inspector.look(bench.store)
    assert inspector.problems() == []
    found = problems(bench)
    assert any("gate slots has {'o': '1'" in line for line in found)
    assert any("{'r_tokens': '10'} reserved" in line for line in found)
    bench.client.hset(bench.keys.of("gate", wish["d"]), "o", 2)
    inspector.look(bench.store)
    assert inspector.problems() == ["limit slots had 2 in flight of 1"]
    bench.client.hset(bench.keys.of("gate", wish["d"]), "o", 1)
    bench.finish(holder)
    bench.finish(run)
    assert problems(bench) == []
