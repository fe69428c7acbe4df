"""What a command makes a controller of: its pools, and the command lines of its workers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentq.cli.locate import AppSource
from agentq.cli.scaling import _Commands, unservable
from agentq.core.errors import DevicesMissing
from agentq.core.pools import PoolSpec
from agentq.fleet.live_pools import LivePools


def no_devices(names: list[str]) -> Any:
    raise DevicesMissing(pool=names[0], tags={"gpu": "a100"})


def app_with(*specs: PoolSpec, driver: str = "local") -> Any:
    settings = SimpleNamespace(autoscale_driver=driver)
    return SimpleNamespace(pools={each.name: each for each in specs}, outfit_for=no_devices, settings=settings)


GPU = PoolSpec(name="gpu", tags={"gpu": "a100"}, max=2)
PLAIN = PoolSpec(name="plain", concurrency=2, max=2)


def test_workers_are_started_as_the_pools_file_says_now(tmp_path: Path) -> None:
    file = tmp_path / "pools.toml"
    file.write_text("[pools.plain]\nmax = 2\nconcurrency = 2\n")
    pools = LivePools({"plain": PLAIN}, file)
    session: Any = SimpleNamespace(
        app=app_with(PLAIN), celery_spec="agents:app", source=AppSource("agents:app", "-A", tmp_path)
    )
    commands = _Commands(session, pools, "WARNING")
    file.write_text("[pools.plain]\nmax = 2\nconcurrency = 16\n")
    pools()
    argv, env = commands("plain", "here/plain-1")
    assert argv[argv.index("--concurrency") + 1] == "16"
    assert env["AGENTQ_INSTANCE"] == "here/plain-1"


@pytest.mark.parametrize(
    ("configured", "named", "left_out"),
    [("local", None, {"gpu"}), ("kubernetes", None, set()), ("kubernetes", "local", {"gpu"}), ("local", "pull", set())],
)
def test_a_machine_without_gpus_leads_no_pool_that_needs_them_where_workers_run_on_it(
    configured: str, named: str | None, left_out: set[str]
) -> None:
    said: list[str] = []
    assert unservable(app_with(GPU, PLAIN, driver=configured), named, said.append) == left_out
    assert len(said) == len(left_out)
    pools = LivePools({"gpu": GPU, "plain": PLAIN}, None, without=left_out)
    assert set(pools()) == {"gpu", "plain"} - left_out
