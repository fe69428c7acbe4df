"""`agentq plan` as a command: what it reads, refuses and prints."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentq.cli.root import execute
from agentq.cli.session import Session
from agentq.core.pools import PoolSpec
from agentq.store.past import Served

SHAPES = ("--shape", "small=1:0.1:1s", "--shape", "large=8:0.25:1s", "--processes", "1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "monday.jsonl"
    path.write_text("".join(f'{{"at": {at / 3}, "service": 1}}\n' for at in range(600)))
    return path


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An application with two pools and a recorded load, without a server."""
    pools = {
        "tools": PoolSpec(name="tools", concurrency=4, cost_per_hour=0.05),
        "free": PoolSpec(name="free", concurrency=4),
        "auto": PoolSpec(name="auto", cost_per_hour=0.1),
        "eu:tools": PoolSpec(name="eu:tools", concurrency=4, cost_per_hour=0.05),
        "vast": PoolSpec(name="vast", concurrency=20_000, cost_per_hour=0.05),
    }
    steps = [Served(at_s=1000 + at / 3, service_s=1.0) for at in range(300)]
    made = SimpleNamespace(
        pools=pools,
        settings=SimpleNamespace(archive_url="sqlite:///x"),
        store=SimpleNamespace(recorded_load=lambda pool, *, since_s: steps if pool == "tools" else []),
    )
    monkeypatch.setattr(Session, "app", made)
    return made


def test_a_plan_of_a_file_is_one_document_and_a_picture(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = tmp_path / "plan.svg"
    code = execute(["plan", str(file), *SHAPES, "--slo-wait", "5s", "--json", "--picture", str(drawn)])
    said = json.loads(capsys.readouterr().out)
    assert code == 0
    assert said["chosen"]["meets"] is True
    assert said["chosen"] in said["pairs"]
    assert said["checked"] is None
    assert drawn.read_text().startswith("<svg")


def test_a_plan_is_told_in_words(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["plan", str(file), *SHAPES, "--check", str(file)]) == 0
    said = capsys.readouterr().out
    assert "Cheapest:" in said
    assert "On loads that it was not chosen by" in said


def test_the_load_of_a_pool_and_the_shape_of_a_pool_are_enough(
    app: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "tools.jsonl"
    said = execute(["plan", "--pool", "tools", "--shape", "tools", "--save", str(kept), "--json", "--processes", "1"])
    document = json.loads(capsys.readouterr().out)
    assert said == 0
    assert {row["always"]["shape"] for row in document["tried"] if row["always"]} == {"tools"}
    assert json.loads(kept.read_text().splitlines()[1]) == {"at": 0.333, "service": 1.0}


def test_a_pool_that_is_no_shape_is_left_out_and_told(app: Any, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["plan", str(file), "--slo-wait", "5s", "--json", "--processes", "1"]) == 0
    said = capsys.readouterr()
    assert {row["always"]["shape"] for row in json.loads(said.out)["tried"] if row["always"]} == {"tools"}
    assert said.err.count("It is left out.") == 2


def test_where_nothing_meets_the_objective_the_command_says_so_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    burst = tmp_path / "burst.jsonl"
    burst.write_text('{"at": 0, "service": 1}\n' + '{"at": 30, "service": 1}\n' * 80)
    code = execute(["plan", str(burst), "--shape", "one=1:1:60s", "--slo-wait", "1s", "--processes", "1"])
    assert code == 1
    assert "No mix of these shapes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Name a load"),
        (["nowhere.jsonl"], 'no trace and no file "nowhere.jsonl"'),
        (["bursty", "--pool", "tools"], "not for both"),
        (["bursty", "--shape", "x=1"], "is no shape"),
        (["bursty", "--shape", "x=none:1"], "slots"),
        (["bursty", "--shape", "x=100000000:1"], "less than or equal to 10000"),
        (["bursty", "--shape", "x=1:inf"], "cost_per_hour"),
        (["bursty", "--shape", "x=1:1:999d"], "startup_s"),
        (["bursty", "--shape", "x=1:-1"], "cost_per_hour"),
        (["bursty", "--shape", "x=1:1:soon"], "no start-up time"),
        (["bursty", "--shape", "x=1:1", "--shape", "x=2:1"], 'Two shapes are called "x"'),
        (["bursty", "--shape", "nobody"], 'no pool "nobody"'),
        (["bursty", "--shape", "free"], "has no cost_per_hour"),
        (["bursty", "--shape", "eu:tools"], 'Pool "eu:tools" is no shape: name'),
        (["bursty", "--shape", "vast"], "less than or equal to 10000 (given: 20000)"),
        (["bursty", "--shape", "auto"], "as many slots as its machine allows"),
        (["--pool", "nobody", "--shape", "x=1:1"], 'no pool "nobody"'),
        (["--pool", "free", "--shape", "x=1:1"], "holds no step"),
        (["bursty", "--shape", "x=1:1", "--save", "kept.jsonl"], "--save writes"),
        (["bursty", "--shape", "x=1:1", "--slo-wait", "0"], "longer than nothing"),
        (["bursty", "--shape", "x=1:1", "--slo-wait", "soon"], "no duration"),
        (["bursty", "--shape", "x=1:1", "--picture", "no/where.svg"], "no folder"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_way_out(
    app: Any, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["plan", *words]) == 2
    said = capsys.readouterr().err
    assert told in re.sub(r"\s+", " ", said)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it holds no step"),
        ('{"at": 1, "service": 0.2}\n{oops\n', "odd.jsonl:2: no step"),
        ('{"at": 0, "service": 1}\n{"at": 1e12, "service": 1}', "over 11,574,074 days, and 60 are the most"),
        ('{"at": 0, "service": 1e9}', "service is 1e+09 s, and 7 days are the most"),
        ('{"at": NaN, "service": 1}', "at is nan"),
        ('{"service": 1, "children": [{"service": 0}]}', "service 0"),
    ],
)
def test_a_file_that_is_no_load_is_refused_with_its_line(
    tmp_path: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.jsonl").write_text(text)
    assert execute(["plan", str(tmp_path / "odd.jsonl"), *SHAPES]) == 2
    assert told in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_without_an_archive_the_load_of_a_pool_is_not_known(app: Any, capsys: pytest.CaptureFixture[str]) -> None:
    app.settings.archive_url = None
    assert execute(["plan", "--pool", "tools", "--shape", "x=1:1"]) == 2
    assert "AGENTQ_ARCHIVE=off" in capsys.readouterr().err
