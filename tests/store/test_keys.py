"""Keys: one spelling for Python and Lua, a slot for each run, no user's text as a suffix."""

from __future__ import annotations

import inspect
import re

import pytest

from agentq.store import keys as module
from agentq.store.keys import PERMANENT, Keys
from tests.store.bench import Bench

KEYS = Keys("p")
KINDS = {**module._RUN_KEYS, **module._PLAIN_KEYS}
ODD = ["a'b", "a\\b", 'a"b', "ü", "a\nb", "%s", "{x}"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_lua_spells_every_key_as_python_does(bench: Bench, kind: str) -> None:
    parts = [f"part{number}" for number in range(len(KINDS[kind]))]
    arguments = ", ".join(f"ARGV[{number}]" for number in range(1, len(parts) + 1))
    script = KEYS.lua() + f"return K.{kind}({arguments})"
    assert bench.client.eval(script, 0, *parts).decode() == KEYS.of(kind, *parts)


@pytest.mark.parametrize("queue", ["q", *ODD])
@pytest.mark.parametrize("lane", [0, 3, 6, 9])
def test_lanes_are_kombus_own_lists(bench: Bench, queue: str, lane: int) -> None:
    from kombu.transport.redis import Channel

    script = KEYS.lua() + "return {K.lane(ARGV[1], ARGV[2]), K.result(ARGV[1])}"
    found = [key.decode() for key in bench.client.eval(script, 0, queue, lane)]
    assert found == [KEYS.lane(queue, lane), KEYS.result(queue)]
    assert found[0] == (f"{queue}{Channel.sep}{lane}" if lane else queue)


def test_results_lie_where_celery_looks() -> None:
    from celery.backends.base import KeyValueStoreBackend

    assert KeyValueStoreBackend.task_keyprefix == module.RESULT_PREFIX


@pytest.mark.parametrize("kind", sorted(module._RUN_KEYS))
def test_a_runs_keys_stand_in_its_slot(kind: str) -> None:
    parts = ["root", "id"][: len(KINDS[kind])]
    key = KEYS.of(kind, *parts)
    assert re.findall(r"{(.*?)}", key) == ["root"]
    assert key.startswith(f"p:{module.LAYOUT_VERSION}:{kind}:")
    assert KEYS.kind_of(key) == kind


def test_foreign_keys_have_no_kind() -> None:
    assert KEYS.kind_of("q") is None
    assert KEYS.kind_of("pq:1:step:x") is None
    assert KEYS.kind_of(KEYS.result("x")) is None


def test_wrong_parts_are_refused() -> None:
    with pytest.raises(KeyError):
        KEYS.of("nothing")
    with pytest.raises(ValueError, match="takes"):
        KEYS.of("step", "root")
    with pytest.raises(ValueError, match="takes"):
        KEYS.of("due", "x")


@pytest.mark.parametrize("prefix", ["", "a b", "a'b", "a:b", "a{b", "x" * 41])
def test_a_prefix_that_would_break_scripts_or_slots_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        Keys(prefix)


def test_permanent_kinds_are_kinds() -> None:
    assert set(KINDS) >= PERMANENT


def test_methods_are_kinds_of_the_same_name() -> None:
    names = {name for name, _ in inspect.getmembers(Keys, inspect.isfunction) if not name.startswith("_")}
    assert names - {"of", "kind_of", "lua", "lane", "result"} <= set(KINDS)
