"""Which pool a call goes to, and how a broken pools file is told."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentq.core.errors import InvalidArguments, InvalidFile, NoPoolFor, UnknownPool
from agentq.core.models import Needs
from agentq.core.pools import PoolSpec, contradicts, declared_in_code, load_pools, meets
from agentq.core.routes import decide_route
from agentq.core.tenants import TenantSpec, load_tenants, tenant_spec

POOLS = {
    spec.name: spec
    for spec in [
        PoolSpec(name="tools"),
        PoolSpec(name="small", tags={"gpu": "t4", "vram_gb": "16"}),
        PoolSpec(name="large", tags={"gpu": "a100", "vram_gb": "80", "region": "eu"}),
        PoolSpec(name="plain_a100", tags={"gpu": "a100", "vram_gb": "40"}),
        PoolSpec(name="other_a100", tags={"gpu": "a100", "vram_gb": "40"}),
    ]
}
ORDER: list[tuple[str, Any, str]] = [
    ("call_queue", "q1", "q1"),
    ("call_pool", "small", "small"),
    ("call_needs", Needs(region="eu"), "large"),
    ("step_queue", "q2", "q2"),
    ("step_pool", "large", "large"),
    ("step_needs", Needs(gpu="a100"), "other_a100"),
]


@pytest.mark.parametrize("first", range(len(ORDER) + 1))
def test_the_first_that_is_given_decides(first: int) -> None:
    given: dict[str, Any] = {name: value for name, value, _ in ORDER[first:]}
    if "call_pool" in given:
        given["call_needs"] = Needs(gpu="t4")
    expected = ORDER[first][2] if first < len(ORDER) else "default"
    if first == 2:
        given["step_needs"] = Needs(gpu="t4")
    route = decide_route(POOLS, step="s", **given)
    assert route.queue == expected
    assert route.pool == (None if "queue" in route.why else expected)


def test_the_default_pool_may_be_another() -> None:
    assert decide_route({}, step="s", default_pool="celery").queue == "celery"


def test_empty_needs_need_nothing() -> None:
    assert decide_route(POOLS, step="s", call_needs=Needs(), step_pool="tools").queue == "tools"
    assert decide_route(POOLS, step="s", step_needs=Needs()).queue == "default"


def test_of_several_the_own_then_the_least_special_then_the_first_by_name() -> None:
    needs = Needs(gpu="a100", vram_gb=40)
    assert decide_route(POOLS, step="s", call_needs=needs, step_pool="large").queue == "large"
    assert decide_route(POOLS, step="s", call_needs=needs, step_pool="tools").queue == "other_a100"
    assert decide_route(POOLS, step="s", call_needs=Needs(vram_gb=41)).queue == "large"


def test_needs_that_no_pool_meets_are_told_with_the_pools() -> None:
    with pytest.raises(NoPoolFor) as refused:
        decide_route(POOLS, step="answer", step_needs=Needs(gpu="h100", os="linux"))
    for word in ("answer", "gpu=h100", "os=linux", "large", "without tags"):
        assert word in str(refused.value)
    assert refused.value.pool is None


def test_where_no_pool_is_declared_nothing_meets_a_need_but_any_pool_may_be_named() -> None:
    with pytest.raises(NoPoolFor, match="Declared: none"):
        decide_route({}, step="s", step_needs=Needs(gpu="t4"))
    assert decide_route({}, step="s", step_pool="model", step_needs=Needs(gpu="t4")).queue == "model"


def test_an_unknown_pool_is_refused_where_others_are_declared() -> None:
    with pytest.raises(UnknownPool, match='Did you mean "tools"'):
        decide_route(POOLS, step="s", call_pool="tool")
    with pytest.raises(UnknownPool):
        decide_route(POOLS, step="s", step_pool="tool")


@pytest.mark.parametrize(
    "given",
    [
        {"call_pool": "small", "call_needs": Needs(gpu="a100")},
        {"call_pool": "small", "step_needs": Needs(gpu="a100")},
        {"step_pool": "small", "step_needs": Needs(vram_gb=17)},
        {"call_queue": "small", "step_needs": Needs(gpu="a100")},
        {"step_queue": "small", "step_needs": Needs(gpu="a100")},
    ],
)
def test_a_named_pool_that_contradicts_the_needs_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(NoPoolFor, match='Pool "small" cannot serve'):
        decide_route(POOLS, step="s", **given)


def test_a_named_pool_whose_tags_say_nothing_is_taken() -> None:
    assert decide_route(POOLS, step="s", step_pool="tools", step_needs=Needs(region="eu")).queue == "tools"


@pytest.mark.parametrize("named", ["call_queue", "call_pool", "step_queue", "step_pool"])
def test_a_step_that_needs_a_gpu_is_refused_by_a_named_pool_without_one(named: str) -> None:
    given: dict[str, Any] = {named: "tools", "step_needs": Needs(gpu="a100")}
    with pytest.raises(NoPoolFor, match='Pool "tools" cannot serve step "s", which needs gpu=a100'):
        decide_route(POOLS, step="s", **given)
    assert decide_route({}, step="s", **given).queue == "tools", "of what is not declared nothing is known"


@pytest.mark.parametrize(
    ("tags", "needs", "met", "contradicted"),
    [
        ({}, Needs(), True, False),
        ({}, Needs(gpu="t4"), False, True),
        ({}, Needs(region="eu"), False, False),
        ({"gpu": "t4"}, Needs(gpu="t4"), True, False),
        ({"gpu": "t4"}, Needs(gpu="a100"), False, True),
        ({"vram_gb": "80"}, Needs(vram_gb=40), True, False),
        ({"vram_gb": "40"}, Needs(vram_gb=80), False, True),
        ({"vram_gb": "much"}, Needs(vram_gb=80), False, True),
        ({"os": "linux", "gpu": "t4"}, Needs(os="linux"), True, False),
    ],
)
def test_tags_meet_or_contradict(tags: dict[str, str], needs: Needs, met: bool, contradicted: bool) -> None:
    assert meets(tags, needs) is met
    assert contradicts(tags, needs) is contradicted


def test_a_file_declares_pools_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "pools.toml"
    file.write_text(
        "[pools.tools]\nkind = 'threads'\nconcurrency = 32\n"
        "[pools.model]\ntags = { gpu = 'a100', vram_gb = 80, spot = true }\ntime_limit = '10m'\n"
    )
    pools = load_pools(file)
    assert list(pools) == ["tools", "model"]
    assert pools["tools"] == PoolSpec(name="tools", kind="threads", concurrency=32)
    assert pools["model"].tags == {"gpu": "a100", "vram_gb": "80", "spot": "true"}
    assert pools["model"].time_limit == timedelta(minutes=10)
    assert pools["model"].concurrency == "auto"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[pools.a]\nkind = 'thread'\n", 2, "kind"),
        ("[pools.a]\n\nconcurency = 3\n", 3, 'Did you mean "concurrency"'),
        ("[pools.a]\nconcurrency = 0\n", 2, "given: 0"),
        ("[pools.a]\ntime_limit = 'soon'\n", 2, "soon"),
        ("# pools\n[pool.a]\n", 2, '"pool" is unknown here'),
        ("[pools]\na = 3\n", 2, "must be a table [pools.a]"),
        ("pools = 3\n", 1, "must be tables"),
        ("[pools.a]\n[pools.'b c']\n", 2, "name"),
        ("[pools.a]\n[pools.a.tags]\ngpu = ['x']\n", 3, "valid string"),
        ("[pools.a]\nkind = 'solo'\nconcurrency = 2\n", 3, "runs one attempt at once, not 2"),
        ("[pools.a]\nmax_tasks_per_child = 5\nkind = 'threads'\n", 2, "no child processes"),
        ("[pools.a]\nhard_time_limit = '5s'\n", 2, "longer than time_limit"),
        ("[pools.a]\ntime_limit = '5s'\nhard_time_limit = '5s'\n", 3, "longer than time_limit"),
        ("[pools.a]\ncost_per_hour = -1\n", 2, "given: -1"),
        ("[pools.a]\ncost_per_hour = inf\n", 2, "finite"),
        ("[pools.a]\nmax_waiting = 0\n", 2, "given: 0"),
        ("[pools.a.tags]\nvram_gb = 'much'\n", 1, "amount of memory"),
        ("[pools.a\n", 1, "not TOML"),
        ("[pools.a]\nkind =\n", 2, "not TOML"),
        ("a = '''", None, "not TOML"),
    ],
)
def test_a_broken_file_is_told_with_its_line(tmp_path: Path, text: str, line: int | None, words: str) -> None:
    file = tmp_path / "pools.toml"
    file.write_text(text)
    with pytest.raises(InvalidFile) as refused:
        load_pools(file)
    assert refused.value.line == line
    assert refused.value.file == str(file)
    assert words in str(refused.value)
    assert str(refused.value).startswith(f"{file}:{line}: " if line else f"{file}: ")


def test_a_pool_of_code_is_as_one_of_a_file() -> None:
    spec = declared_in_code("gpu", {"tags": {"vram_gb": 80, "spot": True}, "time_limit": "10m", "kind": "threads"})
    assert spec == PoolSpec(
        name="gpu", tags={"vram_gb": "80", "spot": "true"}, time_limit=timedelta(minutes=10), kind="threads"
    )


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("a", {"concurency": 3}, 'Did you mean "concurrency"'),
        ("a", {"concurrency": 0}, '"concurrency"'),
        ("a b", {}, '"name"'),
        ("a", {"kind": "solo", "concurrency": 2}, "runs one attempt at once, not 2"),
    ],
)
def test_a_pool_of_code_that_cannot_be_is_refused(name: str, fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArguments) as refused:
        declared_in_code(name, fields)
    assert words in str(refused.value)


def test_a_file_declares_tenants_beside_its_pools(tmp_path: Path) -> None:
    file = tmp_path / "pools.toml"
    file.write_text("[pools.tools]\n[tenants.acme]\nweight = 3\nmax_waiting = 100\n[tenants.'*']\nmax_waiting = 10\n")
    assert list(load_pools(file)) == ["tools"]
    tenants = load_tenants(file)
    assert tenants["acme"] == TenantSpec(name="acme", weight=3, max_waiting=100)
    assert tenant_spec(tenants, "acme") is tenants["acme"]
    assert tenant_spec(tenants, "other") is tenants["*"]
    assert tenant_spec(tenants, None) is None
    assert tenant_spec({}, "acme") is None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[tenants.a]\nweigth = 1\n", 2, 'Did you mean "weight"'),
        ("[tenants.a]\nweight = 0\n", 2, "given: 0"),
        ("[tenants]\na = 3\n", 2, "tenant a must be a table"),
    ],
)
def test_a_broken_table_of_a_tenant_is_told_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    file = tmp_path / "pools.toml"
    file.write_text(text)
    with pytest.raises(InvalidFile, match=words) as refused:
        load_tenants(file)
    assert refused.value.line == line


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="cannot be read: No such file"):
        load_pools(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'")
    with pytest.raises(InvalidFile, match="not UTF-8"):
        load_pools(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"slots_per_gpu": 2}, "the pool's tags name no gpu"),
        ({"slots_per_gpu": 2, "concurrency": 4, "tags": {"gpu": "a100"}}, "given already: concurrency = 4"),
    ],
)
def test_slots_per_gpu_is_for_gpu_pools_of_automatic_size(fields: dict[str, Any], words: str) -> None:
    assert PoolSpec(name="p", tags={"gpu": "a100"}, slots_per_gpu=2).slots_per_gpu == 2
    with pytest.raises(ValueError, match=words):
        PoolSpec(name="p", **fields)
