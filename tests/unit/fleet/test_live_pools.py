"""The pools file is read again when it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentq.core.errors import InvalidFile
from agentq.core.pools import PoolSpec, load_pools
from agentq.fleet.live_pools import LivePools


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pools.toml"
    path.write_text("[pools.tools]\nmax = 4\n\n[pools.plain]\n")
    return path


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))


def test_what_is_scaled_follows_the_file(file: Path) -> None:
    pools = LivePools(load_pools(file), file)
    assert {name: spec.max for name, spec in pools().items()} == {"tools": 4}
    rewrite(file, "[pools.tools]\nmax = 6\n[pools.plain]\nmax = 2\n")
    assert {name: spec.max for name, spec in pools().items()} == {"tools": 6, "plain": 2}
    rewrite(file, "[pools.plain]\nmax = 2\n")
    assert set(pools()) == {"plain"}


def test_a_mistake_is_told_with_its_place_and_changes_nothing(file: Path) -> None:
    said: list[str] = []
    pools = LivePools(load_pools(file), file, say=said.append)
    rewrite(file, "[pools.tools]\nmax = 6\nmin = 7\n")
    assert pools()["tools"].max == 4
    assert pools()["tools"].max == 4
    assert len(said) == 1
    assert f"{file}:3:" in said[0]
    assert "min" in said[0]
    file.unlink()
    assert pools()["tools"].max == 4
    rewrite_again = "[pools.tools]\nmax = 6\n"
    file.write_text(rewrite_again)
    assert pools()["tools"].max == 6
    assert said[-1] == "The pools file can be read again."


def test_what_code_declares_stays_and_only_those_named_count(file: Path) -> None:
    declared = {**load_pools(file), "code": PoolSpec(name="code", max=3), "more": PoolSpec(name="more", max=3)}
    assert set(LivePools(declared, file)()) == {"tools", "code", "more"}
    assert set(LivePools(declared, file, only=["code"])()) == {"code"}
    assert set(LivePools(declared, None)()) == {"tools", "code", "more"}


@pytest.mark.parametrize(
    ("table", "line", "words"),
    [
        ("kind = 'solo'\nslo_wait = '5s'", 3, "say the most workers that it may have, max = 8"),
        ("max = 2\nmin = 3", 3, "it is 3, and max is 2"),
        ("max = 2\nmax_cost_per_hour = 1", 3, "cost_per_hour does not say what a slot costs"),
        ("max = 0", 2, "greater than 0"),
        ("max = 2\nidle_to_zero = 'soon'", 3, "idle_to_zero"),
    ],
)
def test_a_key_that_cannot_be_is_refused_with_its_line(file: Path, table: str, line: int, words: str) -> None:
    file.write_text(f"[pools.tools]\n{table}\n")
    with pytest.raises(InvalidFile, match=f":{line}: .*{words}"):
        load_pools(file)
