"""`agentq autoscale` and `agentq pools --watch` as commands; the platform is one of the project's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentq.core.seasons import hour_of
from agentq.store import Store
from tests.engine.test_cli import Command, Zygote, document
from tests.kit.process import clean_environment
from tests.kit.server import PrivateServer

PROJECT = """
from agentq import AgentQ

app = AgentQ("agents")


@app.step(pool="tools")
def read(name: str) -> str:
    return name
"""

PLATFORM = '''
from agentq.fleet.drivers import Observed


class Noting:
    """Tells in a file what it is told."""

    name, chooses, acts = "noting", False, True

    def observe(self, pools):
        return {pool: Observed(wanted=0) for pool in pools}

    def apply(self, pool, instances, *, fence):
        with open("applied", "a") as notes:
            notes.write(f"{pool} {instances}\\n")

    def drain(self, pool, names, *, fence):
        raise AssertionError("it does not choose")

    def close(self, *, keep):
        pass


def make(setup):
    return Noting()
'''

POOLS = """
[pools.tools]
min = 1
max = 5

[pools.plain]
"""


@pytest.fixture
def agentq(tmp_path: Path, server: PrivateServer) -> Iterator[Command]:
    (tmp_path / "agents.py").write_text(PROJECT)
    (tmp_path / "platform_of_mine.py").write_text(PLATFORM)
    (tmp_path / "pools.toml").write_text(POOLS)
    (tmp_path / "agentq.toml").write_text('app = "agents:app"\nautoscale_driver = "platform_of_mine:make"\n')
    command = Zygote(tmp_path, clean_environment({"AGENTQ_REDIS_URL": server.celery_url}))
    yield command
    command.close()


def test_it_decides_acts_and_tells_why(agentq: Command, tmp_path: Path) -> None:
    (dry,) = document(agentq("autoscale", "--dry-run", "--once", "--json"))
    assert (dry["pool"], dry["desired"], dry["mode"]) == ("tools", 1, "dry")
    assert not (tmp_path / "applied").exists()
    (decided,) = document(agentq("autoscale", "--once", "--json"))
    assert (decided["driver"], decided["desired"], decided["why"]) == ("noting", 1, "at least 1 worker")
    assert (tmp_path / "applied").read_text() == "tools 1\n"
    (kept,) = document(agentq("autoscale", "history", "tools", "--json"))
    assert (kept["pool"], kept["desired"], kept["why"]) == ("tools", 1, decided["why"])
    (tmp_path / "applied").unlink()
    (tmp_path / "applied").mkdir()
    code, _, err = agentq("autoscale", "--once")
    assert code == 1, "it was decided, and could not be done"
    assert "it raised IsADirectoryError at platform_of_mine.py:" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--pool", "plain"], "Pool plain is not scaled"),
        (["--driver", "cloud"], "there is no such driver: it is one of heroku, kubernetes, local, pull"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(agentq: Command, argv: list[str], words: str) -> None:
    code, _, err = agentq("autoscale", "--once", *argv)
    assert code == 2
    assert words in err


def test_a_backtest_says_what_came_of_it_and_keeps_it(agentq: Command, server: PrivateServer) -> None:
    store = Store(server.celery_url)
    code, _, err = agentq("autoscale", "backtest", "tools")
    assert code == 1
    assert "two weeks and a day" in err
    key, week = store.keys.of("seasons", "tools"), hour_of(store.now_ms() / 1000)[0]
    for hour in range(168):
        # A rush each Monday at nine, in the two weeks before and in this one.
        steps = 60 if hour == 9 else 0
        weeks = range(week - 2, week + 1) if hour < 24 else range(week - 2, week)
        said = " ".join(f"{each}:1:{steps}:{steps * 2000}:3600000:0:0:0" for each in weeks)
        store.client.hset(key, str(hour), said)
    (tried,) = document(agentq("autoscale", "backtest", "tools", "--startup", "60s", "--json"))
    assert (tried["pool"], tried["days"], tried["better"]) == ("tools", 1, False)
    assert tried["verdict"] == "There is too little to tell."
    assert 0 < tried["share"] <= 1
    kept = store.seasons(["tools"])["tools"][1]
    assert kept is not None
    assert (kept.days, kept.share) == (1, tried["share"])
    store.client.delete(key)
    store.close()


def test_a_backtest_of_what_cannot_be_tried_is_refused(agentq: Command, tmp_path: Path) -> None:
    (tmp_path / "short.jsonl").write_text('{"at": 1, "service": 1}\n')
    for argv, words in (
        (["plain"], "Pool plain is not scaled"),
        (["--begins", "2026-01-05"], "name that too"),
        (["--trace", "short.jsonl"], "Name the one pool"),
        (["tools", "--trace", "none.jsonl"], "none.jsonl"),
        (["tools", "--trace", "short.jsonl"], "two whole weeks, from a Monday, and a day are needed"),
        (["tools", "--trace", "short.jsonl", "--begins", "soon"], "write 2026-03-02T00:00"),
    ):
        code, _, err = agentq("autoscale", "backtest", *argv)
        assert code == 2, (argv, err)
        assert words in err
