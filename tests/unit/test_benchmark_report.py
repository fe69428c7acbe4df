"""The measurements' table, file and picture; the figures themselves are never asserted."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import report
from benchmarks.__main__ import main
from benchmarks.measures import MEASURES, Measure
from benchmarks.session import Readings, contenders_at

READINGS: Readings = {
    "throughput": {
        "stock": [{"rate": 100.0}, {"rate": 90.0}, {"rate": 400.0}],
        "agentq": [{"rate": 260.0}, {"rate": 250.0}],
        "agentq threads": [{"rate": 290.0}],
        "floor": [{"rate": 1_000.0}],
    },
    "latency": {"stock": [{"p50": 4.0, "p99": 9.0}], "agentq": [{"p50": 1.0, "p99": 8.0}]},
    "parked": {"agentq": [{"bytes": 1_234.0, "wake": 5.0}]},
}


def row(title: str) -> report.Row:
    """The row of this figure."""
    return next(each for each in report.rows_of(READINGS) if each.figure.title == title)


def test_medians_are_compared_with_stock() -> None:
    rates = row("no-op steps/s, queue filled first")
    assert rates.medians == {"stock": 100.0, "agentq": 255.0, "agentq threads": 290.0, "floor": 1_000.0}
    assert rates.ratios["agentq"] == 2.55
    assert rates.spread["stock"] == (90.0, 400.0)


def test_each_contender_has_its_own_target() -> None:
    rates = row("no-op steps/s, queue filled first")
    assert rates.reached("agentq") is True, "2.55 of 2.5"
    assert rates.reached("agentq threads") is False, "2.9 of 3"
    assert rates.reached("floor") is None
    assert row("submit to result, p50, ms").reached("agentq") is True, "less is better"
    assert row("submit to result, p99, ms").reached("agentq") is None


def test_what_stock_has_not_is_compared_with_nothing() -> None:
    parked = row("a parked run, bytes of the server")
    assert parked.ratios == {}
    assert "| a parked run, bytes of the server | 1,234 |" in report.markdown([parked], {})


def test_a_report_comes_back_from_its_file() -> None:
    found = report.from_json(json.loads(json.dumps(report.as_json(READINGS))))
    assert found.readings == READINGS
    assert set(found.machine) >= {"processor", "cores", "python", "celery"}


def test_a_page_gets_its_table_anew() -> None:
    page = f"before\n{report.BEGIN}old\n{report.END}after\n"
    once = report.renewed(page, "new")
    assert once == f"before\n{report.BEGIN}\nnew\n{report.END}after\n"
    assert report.renewed(once, "new") == once
    with pytest.raises(ValueError, match="lacks the marks"):
        report.renewed("nothing", "new")


def test_the_picture_is_drawn_of_what_can_be_compared() -> None:
    picture = report.picture(report.rows_of(READINGS))
    ElementTree.fromstring(picture)  # noqa: S314  # our own text
    assert "no-op steps/s, queue filled first" in picture
    assert "a parked run" not in picture


def test_an_earlier_file_is_shown_again(tmp_path: Path) -> None:
    file, table, picture = tmp_path / "f.json", tmp_path / "t.md", tmp_path / "p.svg"
    file.write_text(json.dumps(report.as_json(READINGS)))
    done = CliRunner().invoke(main, ["--from", str(file), "--table", str(table), "--picture", str(picture)])
    assert done.exit_code == 0, done.output
    assert "| no-op steps/s, queue filled first | 100 | **255 (2.55)** | 290 (2.90) |" in table.read_text()
    assert picture.read_text().startswith("<svg")


@pytest.mark.parametrize("measure", MEASURES, ids=lambda each: each.name)
def test_every_measure_names_contenders_that_there_are(measure: Measure, tmp_path: Path) -> None:
    known = contenders_at("unix:///nowhere", tmp_path)
    assert set(measure.contenders) <= set(known)
    assert all(known[name].column in report.COLUMNS for name in measure.contenders)
