"""Loading and calling scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources

import pytest
import redis

from agentq.core.errors import StoreUnavailable
from agentq.store import runner
from agentq.store.keys import Keys
from agentq.store.runner import ScriptSet, included
from tests.kit.server import PrivateServer
from tests.store.bench import Bench

SCRIPTS = ScriptSet(Keys(), retention_ms=1000)


def forget_all(client: redis.Redis) -> None:
    client.script_flush()
    client.function_flush()


def test_a_server_that_has_forgotten_the_scripts_gets_them_again(bench: Bench) -> None:
    forget_all(bench.client)
    bench.store.offer([bench.step("s1")])
    forget_all(bench.client)
    assert bench.take_one().holder.id == "s1"


@pytest.fixture
def careful_user(bench: Bench) -> Iterator[str]:
    """The store's address for a user who may call no functions, as if the server were one of before them."""
    bench.client.acl_setuser("careful", enabled=True, passwords=["+word"], categories=["+@all"], keys=["*"],
                             channels=["*"], commands=["-fcall", "-function"])  # fmt: skip
    yield re.sub(r"^(\w+)://", r"\1://careful:word@", bench.store.url)
    bench.client.acl_deluser("careful")


def test_where_functions_may_not_be_called_they_are_scripts(bench: Bench, careful_user: str) -> None:
    worker = bench.worker()
    forget_all(bench.client)
    store = type(bench.store)(careful_user, prefix=bench.store.keys.prefix)
    store.offer([bench.step("s1")])
    assert store.take_command("w1", "t", slots=1, label="w1", queues=["q"])[0] == "EVALSHA"
    bench.client.script_flush()
    taken = store.take(worker, "t", slots=1, label="w1", queues=["q"]).taken
    assert len(taken) == 1
    assert bench.client.function_list() == []
    store.close()


def test_a_full_server_that_knows_no_functions_is_called_by_scripts(server: PrivateServer) -> None:
    """Else nobody could come who ends what is in custody."""
    bench = Bench(server)
    worker = bench.worker()
    bench.store.offer([bench.step("s1")])
    holder = bench.take_one(worker).holder
    server.client.function_flush()
    server.client.config_set("maxmemory", "1")
    try:
        bench.finish(holder)
    finally:
        server.client.config_set("maxmemory", "0")
    assert bench.state("s1") == "d"
    assert server.client.function_list() == []
    bench.drain()
    bench.store.close()


def test_a_call_that_was_on_its_way_when_another_learnt_better_is_repeated(bench: Bench, careful_user: str) -> None:
    forget_all(bench.client)
    store = type(bench.store)(careful_user, prefix=bench.store.keys.prefix)
    late = store.scripts.command("offer", 0, 0)
    store.offer([bench.step("s1")])
    with pytest.raises(redis.ResponseError) as refused:
        store.client.execute_command(*late)
    assert store.scripts.is_unknown(refused.value)
    store.close()


def test_what_one_call_remembers_is_forgotten_by_the_next(bench: Bench) -> None:
    """Functions stay; a bell that was full in one call must ring again in the next one."""
    for call in range(3):
        bench.store.offer([bench.step(f"s{call}-{number}") for number in range(40)])
        assert bench.client.llen(bench.store.keys.bell("q")) == 32
        bench.client.delete(bench.store.keys.bell("q"))


def libraries(client: redis.Redis) -> set[str]:
    return {
        (entry[1] if isinstance(entry, list) else entry["library_name"]).decode() for entry in client.function_list()
    }


def test_libraries_that_nobody_has_loaded_for_months_are_dropped(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.client.function_flush()
    body = "redis.register_function('{0}', function() return 1 end)"
    others = ["mine", "agentq_notes", f"agentq_7_take_{'0' * 39}"]
    old = f"agentq_{(2026 * 12 + 7)}_take_{'0' * 40}"
    for name in [*others, old]:
        bench.client.function_load(f"#!lua name={name}\n{body.format(name)}")
    monkeypatch.setattr(runner, "_month", lambda: 2026 * 12 + 9)
    bench.store.load_scripts()
    assert old in libraries(bench.client)
    monkeypatch.setattr(runner, "_month", lambda: 2026 * 12 + 10)
    bench.store.load_scripts()
    assert old not in libraries(bench.client)
    assert libraries(bench.client) >= set(others)
    assert bench.store.offer([bench.step("s1")])


def test_a_command_for_a_foreign_connection_names_the_same_script(bench: Bench) -> None:
    bench.store.load_scripts()
    bench.store.offer([bench.step("s1")])
    command = bench.store.take_command("w1", "t", slots=1, label="w1", queues=["q"])
    assert command[0] == "FCALL"
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
