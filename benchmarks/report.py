"""How measurements are shown: a table with ratios to stock Celery, a JSON file, and a picture."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from math import log
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measures import Figure, Reading

Readings = dict[str, list[Reading]]
"""Readings by contender, in the order of the rounds."""


@dataclass(frozen=True)
class Row:
    """A figure of all contenders: medians of the rounds, and the ratio of each to the first, stock."""

    measure: str
    figure: Figure
    medians: Mapping[str, float]
    spread: Mapping[str, tuple[float, float]]

    @property
    def ratios(self) -> dict[str, float]:
        """Median by contender over the median of the first that was measured."""
        base = next(iter(self.medians.values()))
        return {name: value / base for name, value in self.medians.items()}

    def reached(self, contender: str) -> bool | None:
        """Whether the target is reached; None where there is none."""
        target = self.figure.target
        if target is None or contender not in self.medians or not contender.startswith("agentq"):
            return None
        ratio = self.ratios[contender]
        return ratio >= target if self.figure.higher_is_better else ratio <= target


def rows_of(measure: str, figures: Iterable[Figure], readings: Readings) -> list[Row]:
    """Summarise the readings of one measure, one row per figure."""
    rows = []
    for figure in figures:
        values = {name: [reading[figure.name] for reading in taken] for name, taken in readings.items()}
        rows.append(
            Row(
                measure=measure,
                figure=figure,
                medians={name: statistics.median(of) for name, of in values.items()},
                spread={name: (min(of), max(of)) for name, of in values.items()},
            )
        )
    return rows


def machine() -> dict[str, Any]:
    """Describe what the figures were measured on; no names of hosts, users or folders."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("celery", "kombu", "redis", "pydantic")},
    }


def print_table(rows: Sequence[Row], *, console: Console) -> None:
    """Print one table of all rows: value and ratio of each contender."""
    names = list(dict.fromkeys(name for row in rows for name in row.medians))
    table = Table(title="Medians; in brackets the ratio to the first", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("to reach", justify="right")
    for row in rows:
        cells = [_cell(row, name) for name in names]
        table.add_row(row.figure.title, *cells, _target(row.figure))
    console.print(table)


def _cell(row: Row, name: str) -> str:
    if name not in row.medians:
        return ""
    reached = row.reached(name)
    colour = {None: "", True: "green", False: "red"}[reached]
    text = f"{number(row.medians[name])} ({row.ratios[name]:.2f})"
    return f"[{colour}]{text}[/]" if colour else text


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    return f"{'≥' if figure.higher_is_better else '≤'} {figure.target:g}"


def number(value: float) -> str:
    """Write a figure with three digits that count."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def as_json(rows: Sequence[Row], *, rounds: int) -> dict[str, Any]:
    """Return what ``--json`` writes."""
    return {
        "machine": machine(),
        "rounds": rounds,
        "figures": [
            {
                "measure": row.measure,
                "figure": row.figure.name,
                "title": row.figure.title,
                "higher_is_better": row.figure.higher_is_better,
                "target": row.figure.target,
                "medians": dict(row.medians),
                "spread": {name: list(ends) for name, ends in row.spread.items()},
                "ratios": row.ratios,
            }
            for row in rows
        ],
    }


LEFT, WIDTH, BAR, GAP = 330, 420, 12, 14
COLOURS = {"stock": "#9aa5b1", "tuned": "#c3cad1", "agentq": "#2563eb", "agentq threads": "#0e9f8e", "floor": "#d9a441"}


def picture(rows: Sequence[Row]) -> str:
    """Draw each figure as bars of how many times better than stock each contender is, as the text of an SVG file.

    The scale is logarithmic, so that twice as good and half as good are equally far from the line of stock.
    """
    shown = [row for row in rows if len(row.medians) > 1]
    body, top = [], 44
    for row in shown:
        body.append(f'<text x="{LEFT - 12}" y="{top + 10}" text-anchor="end">{escape(row.figure.title)}</text>')
        for name, better in _advantages(row).items():
            body.append(_bar(name, better, top))
            top += BAR
        top += GAP
    middle = LEFT + WIDTH / 2
    legend = "".join(
        f'<rect x="{LEFT + at * 100}" y="12" width="10" height="10" fill="{colour}"/>'
        f'<text x="{LEFT + at * 100 + 14}" y="21">{escape(name)}</text>'
        for at, (name, colour) in enumerate(COLOURS.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 70} {top}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="#1f2933">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n<title>Times better than stock Celery</title>\n'
        f'{legend}\n<line x1="{middle}" x2="{middle}" y1="32" y2="{top}" stroke="#9aa5b1"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _advantages(row: Row) -> dict[str, float]:
    return {
        name: ratio if row.figure.higher_is_better else 1 / ratio
        for name, ratio in list(row.ratios.items())[1:]
        if ratio > 0
    }


def _bar(name: str, better: float, top: int) -> str:
    middle, reach = LEFT + WIDTH / 2, WIDTH / 2
    # 32 times better, or worse, fills one side.
    length = max(-1.0, min(1.0, log(better) / log(32))) * reach
    x, end = (middle, middle + length + 4) if length >= 0 else (middle + length, middle + 4)
    width, colour = max(abs(length), 1), COLOURS.get(name, "#6b7280")
    return (
        f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>'
        f'<text x="{end:.1f}" y="{top + 9}" font-size="9">{better:.2f}</text>'
    )
