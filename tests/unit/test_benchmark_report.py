"""The measurements' table, file and picture; the figures themselves are never asserted."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import report
from benchmarks.__main__ import main
from benchmarks.contenders import Contender
from benchmarks.measures import MEASURES, Above, Measure, Reading
from benchmarks.session import Readings, Session, contenders_at

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


def fan_out(**readings: list[Reading]) -> report.Row:
    """The row of the large fan-out."""
    title = "fan-out of 10,000 and join, s"
    return next(each for each in report.rows_of({"fan-out": readings}) if each.figure.title == title)


def ten(*figures: float | Above) -> list[Reading]:
    """Readings of a fan-out of 10,000."""
    return [{"ten": each} for each in figures]


def test_a_reading_that_was_ended_is_a_bound() -> None:
    row = fan_out(stock=ten(Above(60.0)), agentq=ten(6.0))
    assert "| > 60 | **6 (< 0.10)** |" in report.markdown([row], {})
    assert row.reached("agentq") is True, "whatever stock needs, 6 s are less than a fifth of it"
    assert "≥ 10" in report.picture([row])


def test_a_bound_that_proves_nothing_reaches_nothing_and_misses_nothing() -> None:
    assert fan_out(stock=ten(Above(20.0)), agentq=ten(6.0)).reached("agentq") is None
    assert fan_out(stock=ten(20.0), agentq=ten(Above(6.0))).reached("agentq") is False, "0.3 and more"
    assert fan_out(stock=ten(60.0), agentq=ten(Above(6.0))).reached("agentq") is None, "0.1 or more"


def test_of_two_bounds_follows_no_ratio() -> None:
    row = fan_out(stock=ten(Above(60.0)), agentq=ten(Above(60.0)))
    assert "| > 60 | > 60 |" in report.markdown([row], {})
    assert row.ratios == {}


def test_a_median_is_a_bound_only_where_the_ended_readings_could_move_it() -> None:
    assert fan_out(stock=ten(5.0, Above(60.0), 6.0)).above == frozenset()
    assert fan_out(stock=ten(5.0, Above(60.0), Above(60.0))).above == {"stock"}
    assert fan_out(stock=ten(5.0, Above(60.0))).above == {"stock"}, "the middle of the two"
    assert fan_out(stock=ten(Above(4.0), 5.0, 6.0)).above == {"stock"}, "it may be more than the six"


def test_a_report_with_bounds_comes_back_from_its_file() -> None:
    readings: Readings = {"fan-out": {"stock": ten(5.0, Above(60.0))}}
    assert report.from_json(json.loads(json.dumps(report.as_json(readings)))).readings == readings


def test_a_contender_that_takes_too_long_is_not_read_again(tmp_path: Path) -> None:
    asked = []

    def read(contender: Contender, _pid: int) -> Reading:
        asked.append(contender.name)
        if contender.name == "tuned":
            raise TimeoutError
        return {"ten": Above(contender.limit_s) if contender.name == "stock" else 1.0}

    slow = Measure("fan-out", "", (), read, contenders=("stock", "tuned", "agentq"), alone=True, limit_s=7.0)
    session = Session(
        "unix:///nowhere",
        tmp_path,
        scale=1.0,
        seconds=None,
        say=lambda _: None,
        done=lambda _: None,
        clean=lambda _: None,
    )
    session.run([slow], rounds=2)
    assert asked == ["stock", "tuned", "agentq", "agentq"]
    assert session.readings == {"fan-out": {"stock": ten(Above(7.0)), "agentq": ten(1.0, 1.0)}}
