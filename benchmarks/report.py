"""How measurements are shown: a table with ratios to stock Celery, a JSON file, and a picture."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.metadata import version
from math import log
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measures import MEASURES, Above, Figure
from benchmarks.session import Readings

COLUMNS = ("stock", "stock tuned", "agentq", "agentq threads", "floor")


@dataclass(frozen=True)
class Report:
    """What was read, and on which machine."""

    machine: dict[str, Any]
    readings: Readings


@dataclass(frozen=True)
class Row:
    """A figure of all contenders: medians of the rounds, and the ratio of each to stock.

    Attributes:
        above: contenders whose median is more than what stands there: their readings were ended by a limit.
    """

    measure: str
    figure: Figure
    medians: Mapping[str, float]
    spread: Mapping[str, tuple[float, float]]
    above: frozenset[str] = frozenset()

    @property
    def ratios(self) -> dict[str, float]:
        """Median by contender over the median of stock; empty where stock has no such thing.

        Where only one of the two is known it is a bound, see ``sign``; of two bounds nothing follows.
        """
        base = self.medians.get("stock")
        if not base:
            return {}
        both = self.above if "stock" in self.above else frozenset()
        return {name: value / base for name, value in self.medians.items() if name not in both}

    def sign(self, contender: str) -> str:
        """Return ``<`` or ``>`` where a contender's ratio is a bound, else nothing."""
        return ">" if contender in self.above else "<" if "stock" in self.above else ""

    def reached(self, contender: str) -> bool | None:
        """Whether the target is reached; None where there is none, or where a bound does not tell."""
        if contender not in self.medians or not contender.startswith("agentq"):
            return None
        if self.figure.at_most is not None:
            is_within = self.medians[contender] <= self.figure.at_most
            return None if is_within and contender in self.above else is_within
        target = self.figure.targets.get(contender)
        if target is None or contender not in self.ratios:
            return None
        ratio, sign = self.ratios[contender], self.sign(contender)
        is_within = ratio >= target if self.figure.higher_is_better else ratio <= target
        # What is below a bound that is within the target is within it too, and the other way round.
        is_told = not sign or (ratio <= target) == (sign == "<")
        return is_within if is_told else None


def rows_of(readings: Readings) -> list[Row]:
    """Summarise the readings, one row per figure."""
    rows = []
    for measure in MEASURES:
        taken = readings.get(measure.name)
        for figure in measure.figures if taken else ():
            found = {
                name: [reading[figure.name] for reading in of if figure.name in reading]
                for name, of in (taken or {}).items()
            }
            values = {name: [_known(each) for each in of] for name, of in found.items() if of}
            medians = {name: statistics.median(of) for name, of in values.items()}
            spread = {name: (min(of), max(of)) for name, of in values.items()}
            above = frozenset(name for name in values if _is_bound(found[name]))
            rows.append(Row(measure.name, figure, medians, spread, above))
    return rows


def _known(figure: float | Above) -> float:
    return figure.value if isinstance(figure, Above) else figure


def _is_bound(readings: Sequence[float | Above]) -> bool:
    """Whether the median would be more if no reading had been ended by its limit."""
    inorder = sorted(readings, key=lambda each: (_known(each), isinstance(each, Above)))
    # Ended ones behind the middle stay there whatever their value.
    return any(isinstance(each, Above) for each in inorder[: len(inorder) // 2 + 1])


def machine() -> dict[str, Any]:
    """Describe what the figures were measured on; no names of hosts, users or folders."""
    return {
        "when": datetime.now(UTC).date().isoformat(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 1),
        **{name: version(name) for name in ("celery", "kombu", "redis", "pydantic")},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def print_table(rows: Sequence[Row], *, console: Console) -> None:
    """Print one table of all rows: value and ratio of each contender."""
    table = Table(title="Medians; in brackets the ratio to stock", title_justify="left")
    table.add_column("")
    names = _columns(rows)
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("to reach", justify="right")
    for row in rows:
        cells = []
        for name in names:
            colour = {None: "", True: "green", False: "red"}[row.reached(name)]
            cells.append(f"[{colour}]{_cell(row, name)}[/]" if colour else _cell(row, name))
        table.add_row(row.figure.title, *cells, _target(row.figure))
    console.print(table)


def markdown(rows: Sequence[Row], found: Mapping[str, Any]) -> str:
    """Return the same table as Markdown, with the machine below it."""
    names = _columns(rows)
    lines = [f"| | {' | '.join(names)} | to reach |", f"|---|{'---:|' * (len(names) + 1)}"]
    for row in rows:
        cells = [f"**{_cell(row, name)}**" if row.reached(name) else _cell(row, name) for name in names]
        lines.append(f"| {row.figure.title} | {' | '.join(cells)} | {_target(row.figure)} |")
    about = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.items())
    return "\n".join(lines) + f"\n\nMeasured on: {about}.\n"


BEGIN, END = "<!-- table: ./dev bench --docs writes it -->\n", "<!-- end of table -->\n"


def renewed(page: str, table: str) -> str:
    """Return a page with the table between its marks replaced; raises ValueError for one without them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the marks {BEGIN!r} and {END!r}")
    return f"{before}{begin}\n{table}\n{end}{after}"


def _columns(rows: Sequence[Row]) -> list[str]:
    return [name for name in COLUMNS if any(name in row.medians for row in rows)]


def _cell(row: Row, name: str) -> str:
    if name not in row.medians:
        return ""
    ratio = f" ({_signed(row.sign(name), f'{row.ratios[name]:.2f}')})" if name in row.ratios and name != "stock" else ""
    return f"{_signed('>' if name in row.above else '', number(row.medians[name]))}{ratio}"


def _signed(sign: str, text: str) -> str:
    return f"{sign} {text}" if sign else text


def _target(figure: Figure) -> str:
    if figure.at_most is not None:
        return f"at most {figure.at_most:g}"
    sign = "≥" if figure.higher_is_better else "≤"
    return "; ".join(
        f"{sign} {ratio:g}" + (" (threads)" if name.endswith("threads") else "")
        for name, ratio in figure.targets.items()
    )


def number(value: float) -> str:
    """Write a figure with three digits that count."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def as_json(readings: Readings) -> dict[str, Any]:
    """Return what ``--json`` writes: the machine, the medians and every reading."""
    return {
        "machine": machine(),
        "figures": [
            {
                "measure": row.measure,
                "figure": row.figure.name,
                "title": row.figure.title,
                "higher_is_better": row.figure.higher_is_better,
                "targets": dict(row.figure.targets),
                "at_most": row.figure.at_most,
                "medians": dict(row.medians),
                "spread": {name: list(ends) for name, ends in row.spread.items()},
                "ratios": row.ratios,
                "above": sorted(row.above),
            }
            for row in rows_of(readings)
        ],
        "readings": {
            measure: {
                name: [{key: _as_plain(each) for key, each in reading.items()} for reading in of]
                for name, of in taken.items()
            }
            for measure, taken in readings.items()
        },
    }


def _as_plain(figure: float | Above) -> float | dict[str, float]:
    return {"above": figure.value} if isinstance(figure, Above) else figure


def _from_plain(found: float | Mapping[str, float]) -> float | Above:
    return Above(found["above"]) if isinstance(found, Mapping) else found


def from_json(found: Mapping[str, Any]) -> Report:
    """Return what ``as_json`` wrote."""
    readings: Readings = {
        measure: {
            name: [{key: _from_plain(each) for key, each in reading.items()} for reading in of]
            for name, of in taken.items()
        }
        for measure, taken in found["readings"].items()
    }
    return Report(dict(found["machine"]), readings)


LEFT, WIDTH, BAR, GAP = 330, 420, 12, 14
COLOURS = {
    "stock tuned": "#9aa5b1",
    "agentq": "#2563eb",
    "agentq threads": "#0e9f8e",
    "floor": "#d9a441",
}


def picture(rows: Sequence[Row]) -> str:
    """Draw each figure as bars of how many times better than stock each contender is, as the text of an SVG file.

    The scale is logarithmic, so that twice as good and half as good are equally far from the line of stock.
    """
    body, top = [], 56
    for row in rows:
        better = _advantages(row)
        if not better:
            continue
        body.append(f'<text x="{LEFT - 12}" y="{top + 10}" text-anchor="end">{escape(row.figure.title)}</text>')
        for name, times in better.items():
            body.append(_bar(name, times, top, sign=_SIGNS[row.sign(name)]))
            top += BAR
        top += GAP
    middle = LEFT + WIDTH / 2
    legend = "".join(
        f'<rect x="{LEFT + at * 110}" y="12" width="10" height="10" fill="{colour}"/>'
        f'<text x="{LEFT + at * 110 + 14}" y="21">{escape(name)}</text>'
        for at, (name, colour) in enumerate(COLOURS.items())
    )
    words = "how many times better than stock Celery: to the right is better"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 70} {top}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="#1f2933">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n<title>Times better than stock Celery</title>\n'
        f'{legend}\n<text x="{middle}" y="40" text-anchor="middle">{words}</text>\n'
        f'<line x1="{middle}" x2="{middle}" y1="48" y2="{top}" stroke="#9aa5b1"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _advantages(row: Row) -> dict[str, float]:
    return {
        name: row.ratios[name] if row.figure.higher_is_better else 1 / row.ratios[name]
        for name in COLOURS
        if row.ratios.get(name, 0) > 0
    }


_SIGNS = {"": "", "<": "≥ ", ">": "≤ "}
"""How many times better a time is of which a bound is known."""


def _bar(name: str, better: float, top: int, *, sign: str = "") -> str:
    middle, reach = LEFT + WIDTH / 2, WIDTH / 2
    # 32 times better, or worse, fills one side.
    length = max(-1.0, min(1.0, log(better) / log(32))) * reach
    x, end = (middle, middle + length + 4) if length >= 0 else (middle + length, middle + 4)
    width = max(abs(length), 1)
    return (
        f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{BAR - 2}" fill="{COLOURS[name]}"/>'
        f'<text x="{end:.1f}" y="{top + 9}" font-size="9">{sign}{number(better)}</text>'
    )
