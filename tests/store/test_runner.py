"""Loading and calling scripts."""

from __future__ import annotations

import re
from importlib import resources

import pytest
import redis

from agentq.core.errors import StoreUnavailable
from agentq.store.keys import Keys
from agentq.store.runner import ScriptSet, included
from tests.kit.server import PrivateServer
from tests.store.bench import Bench

SCRIPTS = ScriptSet(Keys(), retention_ms=1000)


def test_a_server_that_has_forgotten_the_scripts_gets_them_again(bench: Bench) -> None:
    bench.client.script_flush()
    bench.store.offer([bench.step("s1")])
    bench.client.script_flush()
    assert bench.take_one().holder.id == "s1"


def test_a_command_for_a_foreign_connection_names_the_same_script(bench: Bench) -> None:
    bench.store.load_scripts()
    bench.store.offer([bench.step("s1")])
    command = bench.store.take_command("w1", "t", slots=1, label="w1", queues=["q"])
    assert command[0] == "EVALSHA"
    reply = bench.store.parse_take(bench.client.execute_command(*command))
    assert len(reply.taken) == 1


def test_an_unknown_script_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        SCRIPTS.command("nothing")


def test_includes_are_read_from_their_line() -> None:
    assert included("-- x\n-- include: common tree\n") == ["common", "tree"]
    assert included("-- x\n") == []


@pytest.mark.parametrize("name", sorted(SCRIPTS.texts))
def test_every_script_compiles_and_says_what_it_takes_and_keeps(name: str, bench: Bench) -> None:
    assert bench.client.script_load(SCRIPTS.texts[name]) == SCRIPTS.hashes[name]
    source = resources.files("agentq.store.scripts").joinpath(f"{name}.lua").read_text(encoding="utf-8")
    assert source.startswith(f"-- {name}: ")
    head = source[: re.search(r"^(?!--)", source, re.MULTILINE).start()]  # type: ignore[union-attr]
    for word in ("-- ARGV:", "-- Reply:"):
        assert word in head, f"{name}.lua does not say its {word}"


@pytest.mark.parametrize("name", sorted(SCRIPTS.texts))
def test_no_script_spells_a_key_or_a_global(name: str) -> None:
    source = resources.files("agentq.store.scripts").joinpath(f"{name}.lua").read_text(encoding="utf-8")
    assert "agentq:" not in source
    assert "KEYS[" not in source
    assert not re.search(r"^function ", source, re.MULTILINE)


def test_each_prefix_has_scripts_of_its_own(bench: Bench) -> None:
    other = type(bench.store)(bench.store.url, prefix="other")
    other.offer([bench.step("s1")])
    assert other.record("s1", "s1")["s"] == "q"
    assert bench.state("s1") is None
    bench.client.delete("q\x06\x166", *bench.client.keys("other:*"))
    other.close()


def test_a_wrong_type_is_the_servers_error_and_not_swallowed(bench: Bench) -> None:
    with pytest.raises(redis.ResponseError):
        bench.store.run_script("offer", "x")


def test_a_full_server_is_unavailable_and_half_writes_nothing(server: PrivateServer) -> None:
    bench = Bench(server)
    bench.worker()
    bench.store.offer([bench.step("s1")])
    holder = bench.take_one().holder
    server.client.config_set("maxmemory", "1")
    try:
        before = bench.look()
        with pytest.raises(StoreUnavailable) as raised:
            bench.store.offer([bench.step("s2")])
        assert "memory" in str(raised.value)
        assert bench.look() == before
        # What is in custody can end: a commit begins with a command that frees memory.
        bench.finish(holder)
    finally:
        server.client.config_set("maxmemory", "0")
    bench.drain()
    bench.store.close()


def test_a_replica_is_unavailable(server: PrivateServer) -> None:
    bench = Bench(server)
    server.client.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailable):
        bench.store.offer([bench.step("s1")])
    server.client.execute_command("REPLICAOF", "NO", "ONE")
    bench.store.close()
